"""`limner-gateway run`."""

import asyncio
import gc
import os
import resource
import signal
import sys
from pathlib import Path
from typing import TextIO, cast

import click
import orjson
import structlog
from prometheus_client import disable_created_metrics

from gateway.app import Gateway, open_gateway
from gateway.cli.options import in_loop, load_settings, settings_options, with_passphrase
from gateway.config import GatewaySettings
from network.runtime import log
from network.runtime.clock import SystemClock
from network.runtime.gathering import GatheringStream

_log = structlog.get_logger(__name__)

#: Database, images, orchestrators.
_OTHER_FILES = 512
#: What requests leave behind is freed when they end, all but a few objects that hold each other: the collector
#: need not look for these seven times in a hundred requests, as it does by default.
_COLLECTIONS = (5_000, 20, 50)


@click.command()
@settings_options
@click.option("--listen", help="host:port for clients.  [default: 127.0.0.1:8937]")
@click.option("--admin-listen", help="host:port for metrics and status; '' opens none.")
@click.option("--public-url", help="The address clients reach us at, for the images' URLs.")
@click.option("--orchestrator", "orchestrators", multiple=True, help="Buy from URL; repeatable.")
@click.option("--default-model", help="The model of requests that name none.")
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]))
@click.option("--log-format", type=click.Choice(["auto", "console", "json"]))
@click.option("--json-ready", is_flag=True, help="Print one JSON line on stdout when serving.")
def command(
    *,
    config: Path | None,
    data_dir: Path | None,
    listen: str | None,
    admin_listen: str | None,
    public_url: str | None,
    orchestrators: tuple[str, ...],
    default_model: str | None,
    log_level: str | None,
    log_format: str | None,
    json_ready: bool,
) -> None:
    """Serve clients until SIGTERM or Ctrl-C.

    Settings come from the file, then LIMNER_GATEWAY__... in the environment (nested by two
    underscores: LIMNER_GATEWAY__ROUTING__TIME_VALUE), then these flags.
    """
    overrides: dict[str, object] = {
        "listen": listen,
        "admin_listen": admin_listen,
        "public_url": public_url,
        "orchestrators": [{"uri": uri} for uri in orchestrators] or None,
        "default_model": default_model,
        "log.level": log_level,
        "log.format": log_format,
    }
    settings = with_passphrase(load_settings(config, data_dir, overrides))
    # Timestamps of when each counter was made would double the length of /metrics.
    disable_created_metrics()  # type: ignore[no-untyped-call]
    _allow_connections(settings.server.max_connections)
    lines = GatheringStream(sys.stderr)
    log.configure(settings.log.level, settings.log.format, cast("TextIO", lines))
    in_loop(_serve(settings, lines, json_ready=json_ready))


async def _serve(settings: GatewaySettings, lines: GatheringStream, *, json_ready: bool) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _ask_to_stop, stop)
    with lines.gathering():
        await _serve_until(stop, settings, json_ready=json_ready)


async def _serve_until(
    stop: asyncio.Event, settings: GatewaySettings, *, json_ready: bool
) -> None:
    async with open_gateway(settings, SystemClock()) as gateway:
        # What stands now stands until the end: no collection needs to look at it again.
        gc.collect()
        gc.freeze()
        gc.set_threshold(*_COLLECTIONS)
        if json_ready:
            _announce(gateway)
        await stop.wait()
        _log.info("stopping", in_flight=gateway.in_flight())
    _log.info("stopped")


def _allow_connections(clients: int) -> None:
    """Raise the soft limit of open files as far as it goes: each client may need a second socket."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * clients + _OTHER_FILES
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def _ask_to_stop(stop: asyncio.Event) -> None:
    if stop.is_set():
        # Asked twice: the operator does not want to wait for the requests under way.
        os._exit(130)
    stop.set()


def _announce(gateway: Gateway) -> None:
    line = {
        "event": "ready",
        "url": gateway.url,
        "admin_url": gateway.admin_url,
        "address": gateway.address,
    }
    click.echo(orjson.dumps(line))
