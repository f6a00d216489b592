"""`limner-gateway signer`."""

import asyncio
import signal
from pathlib import Path

import click
import orjson
import structlog

from gateway.cli.options import in_loop, load_settings, settings_options, with_passphrase
from gateway.config import GatewaySettings
from gateway.home import open_gateway_chain, open_identity
from gateway.signer.service import check_exposure, open_signer
from network.chain.model import ChainUnavailableError
from network.chain.watch import ChainWatch
from network.runtime import log
from network.runtime.clock import SystemClock
from network.runtime.supervisor import supervise

_log = structlog.get_logger(__name__)


@click.command()
@settings_options
@click.option("--listen", help="host:port for clients.  [default: 127.0.0.1:8938]")
@click.option("--orchestrator", "orchestrators", multiple=True, help="Let clients discover URL.")
@click.option("--webhook-url", help="Asked who may have tickets.")
@click.option("--allow-no-auth", is_flag=True, help="On a public address even without a webhook.")
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]))
@click.option("--json-ready", is_flag=True, help="Print one JSON line on stdout when serving.")
def command(
    *,
    config: Path | None,
    data_dir: Path | None,
    listen: str | None,
    orchestrators: tuple[str, ...],
    webhook_url: str | None,
    allow_no_auth: bool,
    log_level: str | None,
    json_ready: bool,
) -> None:
    """Make tickets for clients that hold no key, until SIGTERM or Ctrl-C.

    Whoever reaches it spends this account's deposit: it stays on loopback unless a webhook says who may.
    """
    overrides: dict[str, object] = {
        "signer.listen": listen,
        "orchestrators": [{"uri": uri} for uri in orchestrators] or None,
        "signer.webhook_url": webhook_url,
        "signer.allow_no_auth": allow_no_auth or None,
        "log.level": log_level,
    }
    settings = with_passphrase(load_settings(config, data_dir, overrides))
    log.configure(settings.log.level, settings.log.format)
    in_loop(_serve(settings, json_ready=json_ready))


async def _serve(settings: GatewaySettings, *, json_ready: bool) -> None:
    check_exposure(settings)
    clock = SystemClock()
    signer = await open_identity(settings)
    async with open_gateway_chain(settings, clock) as chain, supervise(clock) as supervisor:
        watch = ChainWatch(
            chain,
            clock,
            poll_seconds=settings.chain.poll_seconds,
            stale_seconds=settings.chain.stale_seconds,
        )
        try:
            await watch.refresh()
        except ChainUnavailableError as error:
            # It may come back: until then every payment is answered with 503.
            _log.warning("chain_not_known", problem=str(error))
        supervisor.start("chain", watch.run)
        async with open_signer(settings, signer, watch, clock) as served:
            if json_ready:
                line = {"event": "ready", "url": served.url, "admin_url": ""}
                click.echo(orjson.dumps({**line, "address": served.address}))
            await _told_to_stop()
            _log.info("stopping")
    _log.info("stopped")


async def _told_to_stop() -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await stop.wait()
