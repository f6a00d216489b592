"""Payments as the settings want them: nothing off-chain, else the chain and all that counts on it."""

import math
from asyncio import to_thread
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final

import structlog

from gateway.accounting.journal import Journal
from gateway.accounting.payments import BalanceKey, PaymentState
from gateway.config import GatewaySettings, PaymentSettings
from gateway.dispatch.doubts import Doubts
from gateway.dispatch.paying import TicketPaying
from gateway.orchestrators.answers import OrchestratorFailed, Statement
from gateway.orchestrators.client import OrchestratorClient
from gateway.orchestrators.directory import Directory
from gateway.orchestrators.receipts import NoReceipt
from gateway.payments.appraisal import Appraiser, Payees, payees_of
from gateway.payments.balances import Account, Balances, Stake
from gateway.payments.deposit import DepositWatch, Thresholds
from gateway.payments.exposure import Batch, Caps, Exposure
from gateway.payments.payer import TicketMaker
from gateway.payments.purse import Purse
from network.chain.contracts import open_chain
from network.chain.model import ChainError, Head, WrongChainError
from network.chain.profiles import endpoints_of, profile_of
from network.chain.watch import ChainWatch
from network.errors import ConfigError
from network.identity import parse_address
from network.payments.checks import PayerLimits
from network.payments.tickets import CreationRound
from network.runtime.clock import Clock
from network.runtime.supervisor import Supervisor
from network.units import Address, Wei

#: A remote signer of this network signs no more in one call (Livepeer wire, 7.4).
_SIGNERS_TICKETS: Final = 100

_log: Final = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Payments:
    """Made by `open_payments`; `begin` sets it going."""

    watch: ChainWatch
    deposit: DepositWatch
    appraiser: Appraiser
    balances: Balances
    exposure: Exposure
    purse: Purse
    clock: Clock

    async def begin(
        self,
        client: OrchestratorClient,
        directory: Directory,
        journal: Journal,
        supervisor: Supervisor,
    ) -> TicketPaying:
        """Go on where an earlier process stopped, and watch the chain from now on."""
        ask = partial(_ask_receipt, client, directory)
        doubts = Doubts(self.purse, journal, ask, self.clock)
        self._restore(await journal.payment_state(self.clock.now()), doubts)
        self.watch.subscribe(self.purse.on_head)
        self.watch.subscribe(_Rollover(directory).on_head)
        supervisor.start("chain", self.watch.run)
        supervisor.start("deposit", self.deposit.run)
        supervisor.start("receipts", doubts.run)
        return TicketPaying(self.purse, doubts, self.clock)

    def _restore(self, state: PaymentState, doubts: Doubts) -> None:
        for key, amount in state.available.items():
            self.balances.restore(_account(key), amount)
        for batch in state.sent:
            value, face_value = math.ceil(batch.credit), batch.tickets * batch.face_value
            self.exposure.restore(
                Batch(
                    attempt_id=batch.attempt_id,
                    key_id=batch.key_id,
                    recipient=Address(bytes.fromhex(batch.recipient)),
                    value=Wei(value),
                    face_value=Wei(face_value),
                    creation_round=batch.creation_round,
                    made_at=batch.made_at,
                )
            )
        for one in state.in_doubt:
            stake = Stake(_account(one.key), one.taken, one.tickets, one.credit)
            self.purse.restore(one.attempt_id, stake, one.fee)
            doubts.add(one.attempt_id, one.key.orchestrator, was_answered=False)
        if state.in_doubt:
            _log.warning("payments_in_doubt", attempts=len(state.in_doubt))


class _Rollover:
    """Quotes name a round: with a new one, every orchestrator is asked anew."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self._creation: CreationRound | None = None

    def on_head(self, head: Head) -> None:
        """A subscriber of the chain."""
        if self._creation not in {None, head.creation}:
            self._directory.hurry_all()
        self._creation = head.creation


@asynccontextmanager
async def open_payments(
    settings: GatewaySettings,
    maker: TicketMaker,
    clock: Clock,
    payees: Callable[[str], Payees] | None = None,
) -> AsyncIterator[Payments | None]:
    """None off-chain. A chain that does not answer is no error: nothing is paid until it does.

    `payees` tells whom tickets may pay at a URI; without it, the settings do.

    Raises ConfigError naming the setting that is wrong.
    """
    chain = settings.chain
    profile = await to_thread(profile_of, chain.network)
    if profile is None:
        yield None
        return
    urls = endpoints_of(chain, profile)
    try:
        async with open_chain(
            profile, urls, clock, timeout_seconds=chain.timeout_seconds
        ) as contracts:
            watch = ChainWatch(
                contracts,
                clock,
                poll_seconds=chain.poll_seconds,
                stale_seconds=chain.stale_seconds,
            )
            payments = assemble(settings, maker, watch, clock, payees)
            await _read_first(payments)
            yield payments
    except WrongChainError as error:
        raise ConfigError("chain.rpc", str(error)) from error


def assemble(
    settings: GatewaySettings,
    maker: TicketMaker,
    watch: ChainWatch,
    clock: Clock,
    payees: Callable[[str], Payees] | None = None,
) -> Payments:
    """All parts of paying, on what `watch` says of the chain."""
    pay = settings.payments
    thresholds = Thresholds(pay.warn_deposit, pay.warn_reserve)
    deposit = DepositWatch(watch, maker.address, thresholds)
    pinned = {one.uri: parse_address(one.address) for one in settings.orchestrators if one.address}
    appraiser = Appraiser(deposit, watch, _payer_limits(pay), clock, payees or payees_of(pinned))
    balances, exposure = Balances(), Exposure(_caps(pay))
    purse = Purse(
        maker=maker,
        deposit=deposit,
        appraiser=appraiser,
        balances=balances,
        exposure=exposure,
        clock=clock,
    )
    return Payments(watch, deposit, appraiser, balances, exposure, purse, clock)


def _account(key: BalanceKey) -> Account:
    return Account(Address(bytes.fromhex(key.recipient)), key.orchestrator, key.model_id)


async def _ask_receipt(
    client: OrchestratorClient, directory: Directory, uri: str, attempt_id: str
) -> Statement | NoReceipt:
    """Raises OrchestratorFailed."""
    offer = directory.offer(uri)
    if offer is None or not offer.transcoder:
        raise OrchestratorFailed("it does not say where it takes calls")
    return await client.receipt(offer, attempt_id)


async def _read_first(payments: Payments) -> None:
    try:
        await payments.watch.refresh()
        await payments.deposit.refresh()
    except WrongChainError:
        raise
    except ChainError as error:
        _log.warning("payments_wait_for_the_chain", problem=str(error))


def _payer_limits(pay: PaymentSettings) -> PayerLimits:
    most = min(pay.max_tickets, _SIGNERS_TICKETS) if pay.signer_url else pay.max_tickets
    return PayerLimits(
        max_ticket_value=pay.max_ticket_value,
        max_total_value=pay.max_payment_value,
        deposit_multiplier=pay.deposit_multiplier,
        max_tickets=most,
    )


def _caps(pay: PaymentSettings) -> Caps:
    return Caps(
        per_hour=pay.max_wei_per_hour,
        per_hour_and_key=pay.max_wei_per_hour_per_key,
        per_hour_and_orchestrator=pay.max_wei_per_hour_per_orchestrator,
        face_value=pay.max_face_value,
    )
