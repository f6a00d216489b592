"""`limner-node run`."""

import asyncio
import signal
import sys
from pathlib import Path

import click
import orjson
import structlog
import uvloop

from network.errors import LimnerError
from network.identity import checksum
from network.runtime import log as logging_setup
from node.app import open_node
from node.cli.options import load_settings, settings_options, with_passphrase
from node.config.settings import NodeSettings

log = structlog.get_logger(__name__)


@click.command()
@settings_options
@click.option("--listen", help="Where gateways reach the node.  [default: https://127.0.0.1:8936]")
@click.option("--admin-listen", help="Metrics and status.  [default: 127.0.0.1:7935]")
@click.option("--service-uri", help="The URL to advertise, when it is not the one listened on.")
@click.option("--open", "is_open", is_flag=True, help="Serve any gateway, known or not.")
@click.option("--price", help='Wei per pixel: 2400000, "0.5", "7/2" or "5 gwei".')
@click.option("--device", help="auto, cpu, cuda or cuda:N.  [default: auto]")
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]))
@click.option("--json-ready", is_flag=True, help="Print one JSON line on stdout once it serves.")
def run(
    *,
    config: Path | None,
    data_dir: Path | None,
    listen: str | None,
    admin_listen: str | None,
    service_uri: str | None,
    price: str | None,
    device: str | None,
    log_level: str | None,
    is_open: bool,
    json_ready: bool,
) -> None:
    """Run the node until it is told to stop (Ctrl-C or SIGTERM).

    A first start makes an account, a passphrase file and a TLS certificate in the data
    directory. To be reachable from outside, set a public address and name your gateways:

    \b
        listen = "https://0.0.0.0:8936"
        service_uri = "https://node.example.org:8936"
        allowed_gateways = ["0x..."]
    """  # noqa: D301  click reads \b as a paragraph it must not wrap
    settings = load_settings(
        config,
        {
            "data_dir": data_dir,
            "listen": listen,
            "admin_listen": admin_listen,
            "service_uri": service_uri,
            "open": True if is_open else None,
            "price": price,
            "engine.device": device,
            "log.level": log_level,
        },
    )
    settings = with_passphrase(settings)
    logging_setup.configure(settings.log.level, settings.log.format)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve(settings, json_ready=json_ready))
    except LimnerError as error:
        raise click.ClickException(str(error)) from None


async def _serve(settings: NodeSettings, *, json_ready: bool) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with open_node(settings) as node:
        _announce(node.url, node.admin_url, checksum(node.address), json_ready=json_ready)
        await stop.wait()
        log.info("stopping", grace_seconds=settings.server.shutdown_seconds)
    log.info("stopped")


def _announce(url: str, admin_url: str, account: str, *, json_ready: bool) -> None:
    log.info("serving", url=url, admin_url=admin_url, address=account)
    if json_ready:
        line = {"event": "ready", "url": url, "admin_url": admin_url, "address": account}
        sys.stdout.write(orjson.dumps(line).decode() + "\n")
        sys.stdout.flush()
