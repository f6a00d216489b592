"""What the commands of an operator's account share: read it, show a step, have it confirmed, send it."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import click
from typing_extensions import override

from network.chain.contracts import LivepeerChain, open_chain
from network.chain.endpoint import quantity
from network.chain.model import ChainError, Head, RevertedError
from network.chain.profiles import endpoints_of, profile_of
from network.chain.progress import Pace
from network.chain.transactions import open_transactions
from network.errors import ConfigError, LimnerError
from network.identity import KeySigner, checksum, parse_address
from network.runtime.clock import SystemClock
from network.runtime.log import configure
from network.units import Address, Wei, format_wei
from node.config.settings import NodeSettings
from node.discovery.identity import open_identity
from node.payments.registration import (
    Account,
    Goal,
    NotPossibleError,
    Step,
    check_ether,
    format_lpt,
    parse_coins,
)

#: More than any goal takes; it says that the chain does not do what it was told.
_MOST_STEPS: Final = 8
#: What a step may cost more than estimated before the account is said to have too little.
_ROOM: Final = 2
_POLL_SECONDS: Final = 0.5

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Purse:
    """The node's account on its chain."""

    settings: NodeSettings
    signer: KeySigner
    chain: LivepeerChain

    async def account(self) -> tuple[Account, Head]:
        """Read it as it is now. Raises ChainError."""
        return await read_account(self.chain, self.signer.address)


class Coins(click.ParamType[Wei]):
    """An amount of ether or LPT, both of which have 18 decimals."""

    def __init__(self, unit: str) -> None:
        self.name = unit

    @override
    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Wei:
        try:
            return parse_coins(str(value), self.name)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class AccountParameter(click.ParamType[Address]):
    """An Ethereum address."""

    name = "address"

    @override
    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Address:
        try:
            return parse_address(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


async def read_account(chain: LivepeerChain, address: Address) -> tuple[Account, Head]:
    """Return all that a step may depend on, and the head that goes with it. Raises ChainError."""
    head = await chain.head()
    delegator = await chain.delegator(address)
    cut, share = await chain.transcoder_shares(address)
    locks = {
        number: await chain.unbonding_lock(address, number)
        for number in range(delegator.unbonding_locks)
    }
    account = Account(
        address=address,
        ether=await chain.balance(address),
        lpt=await chain.token_balance(address),
        allowance=await chain.token_allowance(address),
        bonded=delegator.bonded,
        delegate=delegator.delegate,
        fees=await chain.pending_fees(address, head.current_round),
        is_active=await chain.is_active(address),
        reward_cut=cut,
        fee_share=share,
        last_reward_round=await chain.last_reward_round(address),
        ai_service_uri=await chain.service_uri(address),
        service_uri=await chain.service_uri(address, ai=False),
        current_round=head.current_round,
        is_round_initialized=head.is_round_initialized,
        is_round_locked=await chain.is_round_locked(),
        is_paused=head.is_paused,
        locks={number: lock for number, lock in locks.items() if lock.amount},
    )
    return account, head


def in_purse(settings: NodeSettings, work: Callable[[Purse], Awaitable[T]]) -> T:
    """Run `work` with the account; ends the command with the reason where it cannot be."""

    async def run() -> T:
        profile = await asyncio.to_thread(profile_of, settings.chain.network)
        if profile is None:
            raise ConfigError(
                "chain.network",
                'this node is off-chain; name a network, for example "arbitrum-one", or the '
                "network.json of a devnet",
            )
        keystore = settings.keystore
        identity = await open_identity(
            settings.data_dir, keystore.passphrase, keystore.passphrase_file
        )
        opened = open_chain(
            profile,
            endpoints_of(settings.chain, profile),
            SystemClock(),
            timeout_seconds=settings.chain.timeout_seconds,
        )
        async with opened as chain:
            return await work(Purse(settings, identity.signer, chain))

    # What is not an answer goes to stderr, and only if it matters to whoever types commands.
    configure("warning", "console")
    return in_loop(run())


def in_loop(work: Coroutine[Any, Any, T]) -> T:
    """Run `work`; what goes wrong on purpose ends the command with its message."""
    try:
        return asyncio.run(work)
    except RevertedError as error:
        raise click.ClickException(
            f"the network's contracts would refuse this: {error.reason or 'without a reason'}"
        ) from None
    except LimnerError as error:
        raise click.ClickException(str(error)) from None


def walk(settings: NodeSettings, goal_of: Callable[[Account], Goal], *, is_agreed: bool) -> None:
    """Take every step towards a goal, each shown and confirmed, unless `is_agreed`.

    `goal_of` is given the account as it is at the beginning.
    """

    async def work(purse: Purse) -> int:
        account, _ = await purse.account()
        goal = goal_of(account)
        for taken in range(_MOST_STEPS):
            account, head = await purse.account()
            step = goal(account)
            if step is None:
                return taken
            await _take(purse, account, head, step, is_agreed=is_agreed)
        raise ChainError("the account does not change as it should; look at it with wallet show")

    if in_purse(settings, work) == 0:
        click.echo("Nothing to do: it is so already.")


async def _take(
    purse: Purse, account: Account, head: Head, step: Step, *, is_agreed: bool
) -> None:
    call = step.build(await purse.chain.calls())
    gas = await purse.chain.estimate_gas(account.address, call)
    cost = Wei(gas * head.gas_price)
    check_ether(account, Wei(cost * _ROOM))
    profile = purse.chain.profile
    held = f"{format_wei(account.ether)} and {format_lpt(account.lpt)}"
    for line in (
        f"To do:     {step.what}",
        f"Account:   {checksum(account.address)} with {held}",
        f"Contract:  {step.contract} {checksum(call.to)}",
        f"Network:   {profile.name} (chain {profile.chain_id})",
        f"Gas:       about {gas} at {format_wei(head.gas_price)} each: {format_wei(cost)}",
    ):
        click.echo(line, err=True)
    if not is_agreed and not await asyncio.to_thread(click.confirm, "Send it?", err=True):
        raise NotPossibleError("nothing was sent")
    data_dir = purse.settings.data_dir
    chain_settings = purse.settings.chain
    transactions = open_transactions(
        purse.signer,
        purse.chain,
        data_dir,
        SystemClock(),
        chain_settings,
        pace=Pace(
            confirmations=chain_settings.confirmations,
            replace_seconds=chain_settings.gas.replace_after_seconds,
            # Somebody waits.
            poll_seconds=min(_POLL_SECONDS, chain_settings.poll_seconds),
        ),
    )
    async with transactions as sender:
        # A command that was cut off, and is repeated before its transaction is mined, finds the same
        # count and waits for that one.
        count = await _count(purse)
        receipt = await sender.send(call, f"{step.name}, transaction {count}")
    click.echo(
        f"Done: transaction 0x{receipt.transaction_hash.hex()} in block {receipt.block_number}, "
        f"gas cost {format_wei(receipt.cost)}"
    )


async def _count(purse: Purse) -> int:
    question = (checksum(purse.signer.address), "latest")
    return quantity(await purse.chain.rpc.request("eth_getTransactionCount", question))


def yes_option() -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return the option of every command that spends."""
    return click.option("--yes", is_flag=True, help="Send without asking.")
