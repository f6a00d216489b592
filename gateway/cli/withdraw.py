"""`limner-gateway withdraw`."""

from pathlib import Path

import click

from gateway.cli.options import settings_options
from gateway.cli.treasury import spend
from gateway.payments.wallet import plan_withdrawal
from network.chain.calls import Calls


@click.command()
@click.option("--yes", is_flag=True, help="Send it without asking.")
@settings_options
def command(*, yes: bool, config: Path | None, data_dir: Path | None) -> None:
    """Take deposit and reserve out of the TicketBroker, once `unlock` has had its rounds."""
    spend(config, data_dir, plan_withdrawal, Calls.withdraw, is_agreed=yes)
