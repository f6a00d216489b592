"""`limner-gateway unlock`."""

from pathlib import Path

import click

from gateway.cli.options import settings_options
from gateway.cli.treasury import spend
from gateway.payments.wallet import plan_cancel_unlock, plan_unlock
from network.chain.calls import Calls


@click.command()
@click.option("--cancel", is_flag=True, help="Stay after all.")
@click.option("--yes", is_flag=True, help="Send it without asking.")
@settings_options
def command(*, cancel: bool, yes: bool, config: Path | None, data_dir: Path | None) -> None:
    """Begin to take deposit and reserve out: after some rounds `withdraw` gives them back.

    From now on orchestrators take no tickets from this account.
    """
    plan = plan_cancel_unlock if cancel else plan_unlock
    build = Calls.cancel_unlock if cancel else Calls.unlock
    spend(config, data_dir, plan, build, is_agreed=yes)
