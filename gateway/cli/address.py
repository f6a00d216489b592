"""`limner-gateway address`."""

from pathlib import Path

import click

from gateway.cli.options import in_loop, load_settings, settings_options, with_passphrase
from gateway.home import open_identity
from network.identity import checksum


@click.command()
@settings_options
def command(*, config: Path | None, data_dir: Path | None) -> None:
    """Print the account by which orchestrators know this gateway; made at first use.

    An orchestrator that serves only gateways on its list needs this address there.
    """
    settings = with_passphrase(load_settings(config, data_dir))
    click.echo(checksum(in_loop(open_identity(settings)).address))
