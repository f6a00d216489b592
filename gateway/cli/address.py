"""`limner-gateway address`."""

from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Final

import click

from gateway.cli.options import in_loop, load_settings, settings_options, with_passphrase
from gateway.config import GatewaySettings
from gateway.home import open_payer
from network.identity import checksum

_VERSION: Final = installed_version("limner")


@click.command()
@settings_options
def command(*, config: Path | None, data_dir: Path | None) -> None:
    """Print the account by which orchestrators know this gateway; made at first use, or its signer's.

    An orchestrator that serves only gateways on its list needs this address there.
    """
    settings = with_passphrase(load_settings(config, data_dir))
    click.echo(in_loop(_address(settings)))


async def _address(settings: GatewaySettings) -> str:
    async with open_payer(settings, _VERSION) as payer:
        return checksum(payer.maker.address)
