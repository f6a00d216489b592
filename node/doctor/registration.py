"""How the node's account stands on its chain: registered, active, staked, findable, able to pay for gas."""

import asyncio
from dataclasses import dataclass
from typing import Final

from network.chain.contracts import LivepeerChain
from network.chain.model import Head
from network.findings import Finding, fail, ok, skip, warn
from network.identity import checksum
from network.units import Address, Wei, format_wei
from node.payments.announcing import Registered, command, difference, shown
from node.payments.registration import format_lpt

#: Redemptions that the account's ether should last for.
_AHEAD: Final = 10
_NOBODY: Final = Address(bytes(20))


@dataclass(frozen=True, slots=True)
class Membership:
    """An orchestrator's account at one moment; LPT in its smallest unit, ether in wei."""

    address: Address
    ether: Wei
    bonded: Wei
    delegate: Address
    is_registered: bool
    is_active: bool
    last_reward_round: int
    registered: Registered


async def read_membership(chain: LivepeerChain, address: Address) -> Membership:
    """Ask the chain. Raises ChainError."""
    ether, delegator, reward = await asyncio.gather(
        chain.balance(address), chain.delegator(address), chain.last_reward_round(address)
    )
    is_registered, is_active, ai_uri, uri = await asyncio.gather(
        chain.is_registered(address),
        chain.is_active(address),
        chain.service_uri(address),
        chain.service_uri(address, ai=False),
    )
    return Membership(
        address=address,
        ether=ether,
        bonded=delegator.bonded,
        delegate=delegator.delegate,
        is_registered=is_registered,
        is_active=is_active,
        last_reward_round=reward,
        registered=Registered(ai_uri, uri),
    )


def judge_membership(
    found: Membership, head: Head, service_uri: str | None, redeem_gas: int
) -> tuple[Finding, ...]:
    """Say whether gateways would buy from this account, and whether it can redeem what it wins."""
    return (
        _stake(found),
        _pool(found, head),
        _address(found, service_uri),
        _gas(found, head, redeem_gas),
    )


def _stake(found: Membership) -> Finding:
    what = "stake"
    if found.delegate not in (_NOBODY, found.address):
        return fail(
            what,
            f"{format_lpt(found.bonded)} are staked on {checksum(found.delegate)}",
            "unbond it there, and stake on the node's own account: limner-node activate",
        )
    if not found.bonded or not found.is_registered:
        return fail(
            what,
            f"{checksum(found.address)} stakes nothing on itself, so it is no orchestrator",
            "limner-node activate --stake ...",
        )
    return ok(what, f"{format_lpt(found.bonded)} on itself")


def _pool(found: Membership, head: Head) -> Finding:
    what = "active set"
    if found.is_active:
        return ok(what, f"active in round {head.current_round}; tickets are paid to this account")
    if not found.is_registered:
        return fail(what, "not in it", "limner-node activate --stake ...")
    return fail(
        what,
        f"not active in round {head.current_round}, so no payment is taken",
        "it begins with the next round after bonding, if the stake is among the largest "
        "(limner-node bond)",
    )


def _address(found: Membership, service_uri: str | None) -> Finding:
    what = "registered service URI"
    told = shown(found.registered.for_images)
    if service_uri is None:
        if not told:
            return fail(what, "none", "set service_uri, then limner-node service-uri")
        return warn(
            what,
            f"{told}; the settings name no service_uri to compare it with",
            f'set service_uri = "{told}" if that is the node',
        )
    wrong = difference(service_uri, found.registered)
    if wrong:
        return fail(what, wrong, command(service_uri))
    older = shown(found.registered.for_video)
    also = f"; the older ServiceRegistry has {older}" if older not in ("", service_uri) else ""
    return ok(what, f"{told}{also}")


def _gas(found: Membership, head: Head, redeem_gas: int) -> Finding:
    what = "ether for gas"
    cost = redeem_gas * head.gas_price
    detail = f"{format_wei(found.ether)}"
    if not cost:
        return skip(what, f"{detail}; the chain names no gas price")
    times = found.ether // cost
    if times < 1:
        return fail(
            what,
            f"{detail}; one redemption takes about {format_wei(Wei(cost))}",
            f"send ether to {checksum(found.address)}: winning tickets expire otherwise",
        )
    if times < _AHEAD:
        return warn(what, f"{detail}: {times} redemptions", "send some more")
    return ok(what, f"{detail}: {times} redemptions")
