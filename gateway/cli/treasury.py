"""What `wallet`, `fund`, `unlock` and `withdraw` share: the account on its chain, and one confirmed call."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import click

from gateway.cli.audit import audited
from gateway.cli.options import fail, in_loop, load_settings, with_passphrase
from gateway.config import GatewaySettings
from gateway.home import open_gateway_chain, open_identity
from gateway.payments.wallet import Step, Wallet, check_gas
from network.chain.calls import Calls
from network.chain.contracts import LivepeerChain
from network.chain.endpoint import quantity
from network.chain.model import Call, Head, Receipt
from network.chain.transactions import open_transactions
from network.identity import KeySigner, checksum
from network.runtime.clock import SystemClock
from network.units import Wei, format_wei

Planning = Callable[[Wallet], Step]
Building = Callable[[Calls], Call]


@dataclass(frozen=True, slots=True)
class Treasury:
    """The gateway's account on its chain."""

    settings: GatewaySettings
    signer: KeySigner
    chain: LivepeerChain

    async def wallet(self) -> tuple[Wallet, Head]:
        """As of now. Raises ChainError."""
        head = await self.chain.head()
        account = self.signer.address
        wallet = Wallet(
            account=account,
            ether=await self.chain.balance(account),
            funds=await self.chain.sender_info(account),
            current_round=head.current_round,
            unlock_period=await self.chain.unlock_period(),
            is_paused=head.is_paused,
        )
        return wallet, head

    async def transaction_count(self) -> int:
        """How many transactions of the account are in the chain."""
        question = (checksum(self.signer.address), "latest")
        return quantity(await self.chain.rpc.request("eth_getTransactionCount", question))


@dataclass(frozen=True, slots=True)
class Prospect:
    """A call that would succeed now, and what it would take."""

    step: Step
    wallet: Wallet
    contract: str
    network: str
    chain_id: int
    gas: int
    gas_price: Wei
    cost: Wei


@asynccontextmanager
async def open_treasury(settings: GatewaySettings) -> AsyncIterator[Treasury]:
    """Raises ConfigError, also where the gateway is off-chain, and ChainError for a wrong chain."""
    signer = await open_identity(settings)
    async with open_gateway_chain(settings, SystemClock()) as chain:
        yield Treasury(settings, signer, chain)


def spend(
    config: Path | None, data_dir: Path | None, plan: Planning, build: Building, *, is_agreed: bool
) -> None:
    """Show what one call would do and cost, have it confirmed unless `is_agreed`, and send it."""
    settings = with_passphrase(load_settings(config, data_dir))
    prospect = in_loop(_look(settings, plan, build))
    _show(prospect)
    if not is_agreed and not click.confirm("Send it?", err=True):
        raise fail("nothing was sent")
    with audited(settings) as note:
        what = prospect.step.what
        about = {"account": checksum(prospect.wallet.account), "network": prospect.network}
        # Before: whatever becomes of this process, the transaction may be on its way.
        note("transaction begun", what=what, sends_wei=str(prospect.step.value), **about)
        receipt = in_loop(_send(settings, plan, build))
        outcome = "transaction done" if receipt.is_successful else "transaction reverted"
        sent = f"0x{receipt.transaction_hash.hex()}"
        note(outcome, what=what, transaction=sent, gas_wei=str(receipt.cost), **about)
    if not receipt.is_successful:
        raise fail(
            f"transaction 0x{receipt.transaction_hash.hex()} was reverted; its gas is spent"
        )
    click.echo(
        f"Done in block {receipt.block_number}: transaction 0x{receipt.transaction_hash.hex()}, "
        f"gas cost {format_wei(receipt.cost)}"
    )


async def _look(settings: GatewaySettings, plan: Planning, build: Building) -> Prospect:
    async with open_treasury(settings) as treasury:
        return await _prospect(treasury, plan, build)


async def _prospect(treasury: Treasury, plan: Planning, build: Building) -> Prospect:
    wallet, head = await treasury.wallet()
    step = plan(wallet)
    call = build(await treasury.chain.calls())
    gas = await treasury.chain.estimate_gas(wallet.account, call)
    profile = treasury.chain.profile
    return Prospect(
        step=step,
        wallet=wallet,
        contract=checksum(call.to),
        network=profile.name,
        chain_id=profile.chain_id,
        gas=gas,
        gas_price=head.gas_price,
        cost=check_gas(wallet, step, gas, head.gas_price),
    )


async def _send(settings: GatewaySettings, plan: Planning, build: Building) -> Receipt:
    async with (
        open_treasury(settings) as treasury,
        open_transactions(
            treasury.signer,
            treasury.chain,
            settings.data_dir.expanduser(),
            SystemClock(),
            settings.chain,
        ) as sender,
    ):
        # Looked at again: whoever confirms may take their time.
        wallet, _ = await treasury.wallet()
        step = plan(wallet)
        call = build(await treasury.chain.calls())
        # A command that was cut off after sending, and is repeated before that one is mined, finds the
        # same count and waits for the same transaction.
        count = await treasury.transaction_count()
        return await sender.send(call, f"{step.what}, transaction {count}")


def _show(prospect: Prospect) -> None:
    """On stderr: what stands there is for whoever decides, not for a script."""
    step, wallet, cost = prospect.step, prospect.wallet, format_wei(prospect.cost)
    deposit, reserve = wallet.funds.deposit, wallet.funds.reserve_remaining
    lines = [
        f"To do:     {step.what}",
        f"Account:   {checksum(wallet.account)} with {format_wei(wallet.ether)}",
        f"Paid in:   deposit {format_wei(deposit)}, reserve {format_wei(reserve)}",
        f"Contract:  TicketBroker {prospect.contract}",
        f"Network:   {prospect.network} (chain {prospect.chain_id})",
        f"Sends:     {format_wei(step.value)}",
        f"Gas:       about {prospect.gas} at {format_wei(prospect.gas_price)} each: {cost}",
        *step.consequences,
    ]
    click.echo("\n".join(lines), err=True)
