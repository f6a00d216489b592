"""`limner-node runner`."""

import asyncio
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import orjson
import structlog
import uvloop

from network.errors import LimnerError
from network.runtime import log as logging_setup
from network.runtime.settings import load
from node.cli.options import settings_options
from node.config.settings import ENVIRONMENT_PREFIX, NodeSettings
from node.container.announcement import UNKNOWN_HOST, needs_host
from node.container.app import RunningContainer, open_container
from node.container.environment import runner_environment, with_models

log = structlog.get_logger(__name__)


@click.command()
@click.option(
    "--model",
    "models",
    multiple=True,
    metavar="ID",
    help="A model to serve, the first is the default; again for more.  [default: of the settings]",
)
@click.option("--listen", metavar="HOST:PORT", help="[default: 127.0.0.1:8000]")
@click.option("--url", help="How go-livepeer reaches it, where that is another address.")
@click.option(
    "--token-file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Holds the bearer token that callers must show; made with a new one if not there.",
)
@click.option("--open", "is_open", is_flag=True, help="Serve anybody who reaches it.")
@click.option("--device", help="auto, cpu, cuda or cuda:N.  [default: auto]")
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]))
@click.option("--json-ready", is_flag=True, help="Print one JSON line on stdout once it serves.")
@settings_options
def runner(
    *,
    models: tuple[str, ...],
    config: Path | None,
    data_dir: Path | None,
    listen: str | None,
    url: str | None,
    token_file: Path | None,
    device: str | None,
    log_level: str | None,
    is_open: bool,
    json_ready: bool,
) -> None:
    """Stand in for Livepeer's ai-runner, so that go-livepeer has its images made here.

    Prints the line for go-livepeer's aiModels.json. Needs no account and no chain: the orchestrator
    that calls it is paid. The ai-runner's variables MODEL_ID, MODEL_DIR, AUTH_TOKEN, VERSION and
    PIPELINE are understood, so that it can take the place of its image.

    \b
        limner-node runner --model stabilityai/sdxl-turbo
        limner-node runner --listen 0.0.0.0:8000 --token-file runner.token
    """  # noqa: D301  click reads \b as a paragraph it must not wrap
    overrides = {
        "data_dir": data_dir,
        "container.listen": listen,
        "container.url": url,
        "container.token_file": token_file,
        "container.open": True if is_open else None,
        "engine.device": device,
        "log.level": log_level,
    }
    try:
        environment = runner_environment(os.environ)
        settings = load(NodeSettings, config, ENVIRONMENT_PREFIX, overrides, environment)
        settings = with_models(settings, models, environment)
        logging_setup.configure(settings.log.level, settings.log.format)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as loop:
            loop.run(_serve(settings, json_ready=json_ready))
    except LimnerError as error:
        raise click.ClickException(str(error)) from None


async def _serve(settings: NodeSettings, *, json_ready: bool) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with open_container(settings) as running:
        _announce(running, json_ready=json_ready)
        await stop.wait()
        log.info("stopping", grace_seconds=settings.server.shutdown_seconds)
    log.info("stopped")


def _announce(running: RunningContainer, *, json_ready: bool) -> None:
    log.info("serving", url=running.url)
    if running.token.is_new:
        log.info("made a new token", file=str(running.token.path))
    if json_ready:
        entries = [orjson.loads(entry) for entry in running.ai_models]
        ready = {"event": "ready", "url": running.url, "ai_models": entries}
        sys.stdout.write(orjson.dumps(ready).decode() + "\n")
    else:
        for line in _advice(running):
            click.echo(line, err=True)
        sys.stdout.write("".join(f"{entry}\n" for entry in running.ai_models))
    sys.stdout.flush()


def _advice(running: RunningContainer) -> Iterator[str]:
    yield "For go-livepeer's aiModels.json, which is a list of such entries:"
    if any(needs_host(orjson.loads(entry)["url"]) for entry in running.ai_models):
        yield f"  in the place of {UNKNOWN_HOST}: how go-livepeer reaches this machine (--url)"
    if running.token.value:
        yield "  in the place of <...>: the token"
