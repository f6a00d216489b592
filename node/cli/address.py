"""`limner-node address`."""

import asyncio
from pathlib import Path

import click

from network.errors import LimnerError
from network.identity import checksum
from node.cli.options import load_settings, settings_options, with_passphrase
from node.discovery.identity import open_identity


@click.command()
@settings_options
def address(config: Path | None, data_dir: Path | None) -> None:
    """Print the node's account; makes it if there is none yet."""
    settings = with_passphrase(load_settings(config, {"data_dir": data_dir}))
    keystore = settings.keystore
    try:
        identity = asyncio.run(
            open_identity(settings.data_dir, keystore.passphrase, keystore.passphrase_file)
        )
    except LimnerError as error:
        raise click.ClickException(str(error)) from None
    click.echo(checksum(identity.signer.address))
