"""`limner-node wallet`: what the account has, and fees and stake taken out of the contracts."""

from pathlib import Path

import click
import orjson

from network.chain.calls import WHOLE_SHARE
from network.identity import checksum
from network.units import Address, Wei, format_wei
from node.cli.onchain import AccountParameter, Coins, Purse, in_purse, walk, yes_option
from node.cli.options import load_settings, settings_options
from node.payments.registration import (
    Account,
    format_lpt,
    withdrawing_fees,
    withdrawing_stake,
)


@click.group()
def wallet() -> None:
    """Show the node's account on its chain, and withdraw what it earned."""


@wallet.command()
@settings_options
@click.option(
    "--json", "as_json", is_flag=True, help="JSON; amounts in the smallest unit, as text."
)
def show(*, config: Path | None, data_dir: Path | None, as_json: bool) -> None:
    """Show ether, LPT, stake, fees, standing and service URI."""
    settings = load_settings(config, {"data_dir": data_dir})

    async def look(purse: Purse) -> Account:
        return (await purse.account())[0]

    account = in_purse(settings, look)
    if as_json:
        click.echo(orjson.dumps(_json(account), option=orjson.OPT_INDENT_2))
    else:
        for name, value in _lines(account):
            click.echo(f"{name + ':':14}{value}")


@wallet.command("withdraw-fees")
@settings_options
@click.option("--amount", type=Coins("ETH"), help="All of it, unless given.")
@click.option("--to", type=AccountParameter(), help="The node's own account, unless given.")
@yes_option()
def withdraw_fees(
    *,
    config: Path | None,
    data_dir: Path | None,
    amount: Wei | None,
    to: Address | None,
    yes: bool,
) -> None:
    """Withdraw the fees of redeemed tickets as ether."""
    walk(
        load_settings(config, {"data_dir": data_dir}),
        lambda account: withdrawing_fees(
            account.fees if amount is None else amount, to or account.address, account.fees
        ),
        is_agreed=yes,
    )


@wallet.command("withdraw-stake")
@settings_options
@click.argument("lock", type=click.IntRange(0))
@yes_option()
def withdraw_stake(*, config: Path | None, data_dir: Path | None, lock: int, yes: bool) -> None:
    """Withdraw unbonded LPT; `wallet show` lists the LOCKs and when they open."""
    settings = load_settings(config, {"data_dir": data_dir})
    walk(settings, lambda _account: withdrawing_stake(lock), is_agreed=yes)


def _lines(account: Account) -> list[tuple[str, str]]:
    standing = "active" if account.is_active else "not active in this round"
    if not account.is_registered:
        standing = "not registered: limner-node activate"
    lines = [
        ("account", checksum(account.address)),
        ("ether", format_wei(account.ether)),
        ("LPT", format_lpt(account.lpt)),
        ("staked", format_lpt(account.bonded)),
        ("fees", f"{format_wei(account.fees)} of redeemed tickets, not withdrawn"),
        ("standing", f"{standing} (round {account.current_round})"),
        ("reward cut", _percent(account.reward_cut)),
        ("fee share", _percent(account.fee_share)),
        ("last reward", f"round {account.last_reward_round}"),
        ("service URI", account.ai_service_uri or "none: limner-node service-uri"),
    ]
    return lines + [
        (f"lock {number}", f"{format_lpt(lock.amount)} from round {lock.withdraw_round} on")
        for number, lock in account.locks.items()
    ]


def _percent(share: int) -> str:
    return f"{share * 100 / WHOLE_SHARE:g} %"


def _json(account: Account) -> dict[str, object]:
    return {
        "address": checksum(account.address),
        "ether": str(account.ether),
        "lpt": str(account.lpt),
        "bonded": str(account.bonded),
        "fees": str(account.fees),
        "is_registered": account.is_registered,
        "is_active": account.is_active,
        "reward_cut": account.reward_cut,
        "fee_share": account.fee_share,
        "last_reward_round": account.last_reward_round,
        "ai_service_uri": account.ai_service_uri,
        "service_uri": account.service_uri,
        "current_round": account.current_round,
        "locks": {
            str(number): {"amount": str(lock.amount), "withdraw_round": lock.withdraw_round}
            for number, lock in account.locks.items()
        },
    }
