"""`limner-gateway fund`."""

from pathlib import Path
from typing import Any

import click
from typing_extensions import override

from gateway.cli.options import settings_options
from gateway.cli.treasury import spend
from gateway.payments.wallet import plan_funding
from network.units import Wei, parse_wei


class _Amount(click.ParamType[Wei]):
    name = "amount"

    @override
    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Wei:
        try:
            return parse_wei(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


@click.command()
@click.option("--deposit", type=_Amount(), default="0", help='Pays for tickets: "0.05 eth".')
@click.option(
    "--reserve", type=_Amount(), default="0", help="Backs them when the deposit is gone."
)
@click.option("--yes", is_flag=True, help="Send it without asking.")
@settings_options
def command(
    *, deposit: Wei, reserve: Wei, yes: bool, config: Path | None, data_dir: Path | None
) -> None:
    """Pay the account's own ether into its deposit and reserve in the TicketBroker.

    Winning tickets are paid out of the deposit. An orchestrator quotes tickets up to its share of the
    reserve: the reserve divided by the number of active orchestrators.
    """
    spend(
        config,
        data_dir,
        lambda wallet: plan_funding(wallet, deposit, reserve),
        lambda calls: calls.fund_deposit_and_reserve(deposit, reserve),
        is_agreed=yes,
    )
