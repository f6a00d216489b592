"""`limner-gateway wallet`."""

from pathlib import Path
from typing import Any

import click
import orjson

from gateway.cli.options import in_loop, load_settings, settings_options, with_passphrase
from gateway.cli.treasury import open_treasury
from gateway.config import GatewaySettings
from network.identity import checksum
from network.units import Wei, format_wei


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object; amounts are wei as text.")
@settings_options
def command(*, as_json: bool, config: Path | None, data_dir: Path | None) -> None:
    """What the account has: ether for gas, deposit and reserve, and whether they are locked."""
    told = in_loop(_tell(with_passphrase(load_settings(config, data_dir))))
    if as_json:
        click.echo(orjson.dumps(told))
        return
    for name, value in told.items():
        text = format_wei(Wei(int(value))) if name in _AMOUNTS else str(value)
        click.echo(f"{name.replace('_', ' '):<14}{text}")


_AMOUNTS = frozenset(("ether", "deposit", "reserve", "claimed"))


async def _tell(settings: GatewaySettings) -> dict[str, Any]:
    async with open_treasury(settings) as treasury:
        wallet, head = await treasury.wallet()
        profile = treasury.chain.profile
    return {
        "account": checksum(wallet.account),
        "network": profile.name,
        "chain_id": profile.chain_id,
        "ether": str(wallet.ether),
        "deposit": str(wallet.funds.deposit),
        "reserve": str(wallet.funds.reserve_remaining),
        "claimed": str(wallet.funds.reserve_claimed_in_round),
        "state": wallet.lock_state,
        "withdraw_round": wallet.funds.withdraw_round,
        "round": head.current_round,
        "paused": wallet.is_paused,
    }
