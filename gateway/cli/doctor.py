"""`limner-gateway doctor`."""

from collections.abc import Sequence
from pathlib import Path

import click

from gateway.cli.options import ENV_PREFIX, in_loop, settings_options, with_passphrase
from gateway.config import GatewaySettings
from gateway.doctor.checkup import examine_gateway
from network.doctor.report import as_json, exit_status, show
from network.doctor.running import Section
from network.errors import ConfigError
from network.findings import fail
from network.runtime.clock import SystemClock
from network.runtime.settings import load


@click.command()
@click.option(
    "--orchestrator",
    "uris",
    multiple=True,
    help="Ask this URL instead of the configured; repeatable.",
)
@click.option("--json", "in_json", is_flag=True, help="JSON.")
@settings_options
def command(
    *, uris: tuple[str, ...], in_json: bool, config: Path | None, data_dir: Path | None
) -> None:
    """Look at everything the gateway stands on, and say what to do about what is wrong.

    Account or signer, settings, database, keys, disk, ports, certificate, public URL, chain, clock, deposit
    and reserve, orchestrators and their prices. Give it the settings that the gateway runs with; it may
    run beside it. Ends with status 1 if something fails.
    """
    sections = _examined(config, data_dir, uris)
    if in_json:
        click.echo(as_json(sections))
    else:
        show(sections)
    raise SystemExit(exit_status(sections))


def _examined(
    config: Path | None, data_dir: Path | None, uris: tuple[str, ...]
) -> Sequence[Section]:
    flags = {
        "data_dir": None if data_dir is None else str(data_dir),
        "orchestrators": [{"uri": uri} for uri in uris] or None,
    }
    try:
        settings = load(GatewaySettings, config, ENV_PREFIX, flags)
    except ConfigError as error:
        advice = "correct it; configs/gateway.toml explains every setting"
        return (Section("settings", (fail("settings", str(error), advice),)),)
    return in_loop(examine_gateway(with_passphrase(settings), SystemClock()))
