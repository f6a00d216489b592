"""What goes with each attempt to pay for it, and what became of that."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Final, Literal

import structlog

from gateway.payments.appraisal import Appraiser, is_free
from gateway.payments.balances import Account, Balances, Stake
from gateway.payments.deposit import DepositWatch
from gateway.payments.exposure import Batch, Cap, CapReached, Exposure
from gateway.payments.payer import (
    CannotPayError,
    Quote,
    SignedTickets,
    TicketMaker,
    UnpayableError,
)
from network.chain.model import ChainUnavailableError, Head
from network.errors import LimnerError
from network.payments.tickets import TicketParams
from network.runtime.clock import Clock
from network.units import Address, ModelId, Wei
from network.wire.codec import encode_payment
from network.wire.headers import encode_header
from network.wire.session import OrchestratorInfo, Payment
from network.wire.tickets import encode_creation_round, encode_ticket_params

#: Seconds since the chain was read, after which only a part of the deposit is counted on: it may be
#: gone, and what we know of the round is old.
_SURE_SECONDS: Final = 60.0
_UNSURE_PART: Final = 4

_log = structlog.get_logger(__name__)

#: Who said what an attempt cost: the answer itself, the orchestrator when it was asked later, nobody (it
#: is then taken as Livepeer's gateways take it), or the attempt was never sent.
Source = Literal["answer", "receipt", "assumed", "unsent"]


class CapReachedError(LimnerError):
    """A cap that the operator set, or the deposit, forbids the payment."""

    def __init__(self, reached: CapReached) -> None:
        super().__init__(f"{reached.limit} wei: {reached.cap.value}")
        self.reached = reached


@dataclass(frozen=True, slots=True)
class PaymentOrder:
    """What is to be paid for. `price` in wei per pixel and `fee` are those agreed."""

    attempt_id: str
    key_id: str
    uri: str
    model_id: ModelId
    price: Fraction
    fee: Wei
    #: The account that the orchestrator names, and its answer about the model.
    named: Address | None
    info: OrchestratorInfo


@dataclass(frozen=True, slots=True)
class PreparedPayment:
    """What goes with one attempt. The tickets are signed and not sent."""

    order: PaymentOrder
    #: Header `Livepeer-Payment`.
    header: str
    #: Header `Livepeer-Segment` where the key is elsewhere, else "".
    credentials: str
    stake: Stake
    params: TicketParams
    #: Of its tickets; 0 without any.
    first_nonce: int


@dataclass(frozen=True, slots=True)
class Settled:
    """What an attempt's payment came to. Amounts in wei."""

    attempt_id: str
    credited: Fraction
    charged: Wei
    #: Of an earlier balance that the orchestrator does not acknowledge.
    forfeited: Fraction
    source: Source


@dataclass(slots=True)
class _Open:
    account: Account
    fee: Wei
    is_balance_known: bool = True
    #: Of the balance, besides what the attempt took of it.
    forfeited: Fraction = Fraction(0)


class Purse:
    """All payments of the gateway. Everything but signing is done in one go, without a pause."""

    def __init__(
        self,
        *,
        maker: TicketMaker,
        deposit: DepositWatch,
        appraiser: Appraiser,
        balances: Balances,
        exposure: Exposure,
        clock: Clock,
    ) -> None:
        self._maker = maker
        self._deposit = deposit
        self._appraiser = appraiser
        self._balances = balances
        self._exposure = exposure
        self._clock = clock
        self._open: dict[str, _Open] = {}

    async def look_again(self) -> None:
        """After a StaleQuoteError: it may be our own knowledge of the chain that is old."""
        await self._deposit.look_again()

    async def prepare(self, order: PaymentOrder) -> PreparedPayment | None:
        """Signed tickets for what the balance does not cover; None for work that costs nothing.

        Raises StaleQuoteError or UnpayableError for this orchestrator, CannotPayError for all,
        CapReachedError. `settle_unsent` undoes it all.
        """
        if is_free(order.info) and not order.fee:
            self._check_credentials()
            return None
        quote = Quote.of(order.model_id, order.info)
        if order.info.price != order.price:
            raise UnpayableError("its price is not the one that was agreed")
        if quote.params.expected_value <= 0:
            self._check_credentials()
            return None
        self._check_funds()
        recipient = self._appraiser.account(order.uri, order.named, quote.params.recipient)
        account = Account(recipient, order.uri, order.model_id)
        stake = self._balances.take(
            order.attempt_id, account, order.fee, quote.params.expected_value
        )
        try:
            self._allow(order, quote, stake)
            signed = await self._maker.make(quote, stake.tickets)
        except BaseException:
            self._balances.undo(order.attempt_id)
            self._exposure.undo(order.attempt_id)
            raise
        self._open[order.attempt_id] = _Open(account, order.fee)
        return PreparedPayment(
            order=order,
            header=self._header(quote, signed),
            credentials=signed.credentials,
            stake=stake,
            params=quote.params,
            first_nonce=signed.tickets[0].nonce if signed.tickets else 0,
        )

    def is_open(self, attempt_id: str) -> bool:
        """Whether an attempt's payment is not settled."""
        return attempt_id in self._open

    def stake(self, attempt_id: str) -> Stake | None:
        """What an attempt has at its orchestrator, while its payment is not settled."""
        return self._balances.stake(attempt_id)

    # What became of it. Each answers None where the attempt was settled before, or has no payment.

    def settle_unsent(self, attempt_id: str) -> Settled | None:
        """Nothing left for the orchestrator."""
        self._exposure.undo(attempt_id)
        if self._open.pop(attempt_id, None) is None or not self._balances.undo(attempt_id):
            return None
        return Settled(attempt_id, Fraction(0), Wei(0), Fraction(0), "unsent")

    def settle_told(
        self, attempt_id: str, credited: Fraction, charged: Wei, source: Source = "answer"
    ) -> Settled | None:
        """The orchestrator's own words. One that claims more than was agreed is not believed."""
        known, stake = self._open.get(attempt_id), self._balances.stake(attempt_id)
        if known is None or stake is None:
            return None
        if charged > known.fee or credited > stake.credit:
            return self.settle_lost(attempt_id)
        return self._settle(attempt_id, credited, charged, source)

    def settle_delivered(
        self, attempt_id: str, charged: Wei, source: Source = "answer"
    ) -> Settled | None:
        """It worked and says nothing of credit: all tickets count, as at Livepeer's nodes."""
        stake = self._balances.stake(attempt_id)
        return (
            None if stake is None else self.settle_told(attempt_id, stake.credit, charged, source)
        )

    def settle_ignored(self, attempt_id: str, source: Source = "receipt") -> Settled | None:
        """It did not take the payment: the tickets are gone, the balance is as it was."""
        return self._settle(attempt_id, Fraction(0), Wei(0), source)

    def settle_lost(self, attempt_id: str) -> Settled | None:
        """It failed and cannot be asked: what Livepeer's nodes hold for us then, nobody knows."""
        self.distrust(attempt_id, all_of_it=False)
        return self._settle(attempt_id, Fraction(0), Wei(0), "assumed")

    def distrust(self, attempt_id: str, *, all_of_it: bool = True) -> None:
        """The balance that this attempt counted on is not there; if `all_of_it`, nor is the rest."""
        known = self._open.get(attempt_id)
        if known is not None:
            known.is_balance_known = False
            if all_of_it:
                known.forfeited += self._balances.distrust(known.account)

    def _settle(
        self, attempt_id: str, credited: Fraction, charged: Wei, source: Source
    ) -> Settled | None:
        known = self._open.pop(attempt_id, None)
        if known is None:
            return None
        self._exposure.keep(attempt_id)
        given_up = self._balances.confirm(
            attempt_id, credited, charged, is_balance_known=known.is_balance_known
        )
        if given_up is None:
            return None
        return Settled(attempt_id, credited, charged, known.forfeited + given_up, source)

    # Keeping watch

    def on_head(self, head: Head) -> None:
        """A subscriber of the chain: forget what has expired."""
        self._exposure.forget(head.oldest_valid_round, self._clock.now())

    def restore(self, attempt_id: str, stake: Stake, fee: Wei) -> None:
        """Take up an attempt of an earlier process whose end is not known."""
        self._balances.restore_stake(attempt_id, stake)
        self._open[attempt_id] = _Open(stake.account, fee)

    def problem(self) -> str:
        """Why nothing can be paid, for the operator; "" where it can."""
        return self._deposit.problem()

    def figures(self) -> Mapping[str, int]:
        """In wei, for metrics and status; what cannot be known now is left out."""
        told = {
            "credit_wei": math.floor(self._balances.total),
            "paid_in_the_last_hour_wei": self._exposure.paid_in_the_last_hour(self._clock.now()),
        }
        try:
            head, funds = self._deposit.head, self._deposit.funds
        except ChainUnavailableError:
            return told
        out = self._exposure.outstanding(head.oldest_valid_round)
        return {
            "deposit_wei": funds.deposit,
            "reserve_wei": funds.reserve,
            "outstanding_wei": out.value,
            "outstanding_face_value_wei": out.face_value,
            **told,
        }

    def _check_credentials(self) -> None:
        """Work without tickets has to be signed by the gateway itself."""
        if not self._maker.signs_jobs:
            raise UnpayableError(
                "it asks for nothing, and the remote signer signs jobs that are paid for only"
            )

    def _check_funds(self) -> None:
        problem = self._deposit.problem()
        if problem:
            raise CannotPayError(problem)

    def _allow(self, order: PaymentOrder, quote: Quote, stake: Stake) -> None:
        """Look at the quote once more, and count the tickets. A payment without any promises nothing."""
        if not stake.tickets:
            return
        self._appraiser.check(quote, stake.tickets, stake.account.recipient)
        head, deposit = self._deposit.head, self._deposit.funds.deposit
        if self._clock.monotonic() - head.read_at > _SURE_SECONDS:
            deposit = Wei(deposit // _UNSURE_PART)
        batch = Batch(
            attempt_id=order.attempt_id,
            key_id=order.key_id,
            recipient=stake.account.recipient,
            value=Wei(math.ceil(stake.credit)),
            face_value=Wei(stake.tickets * quote.params.face_value),
            creation_round=quote.params.creation.number,
            made_at=self._clock.now(),
        )
        reached = self._exposure.count(batch, deposit, head.oldest_valid_round)
        if reached is None:
            return
        if reached.cap is Cap.ORCHESTRATOR_HOUR:
            raise UnpayableError(f"{reached.limit} wei is {reached.cap.value}")
        raise CapReachedError(reached)

    def _header(self, quote: Quote, signed: SignedTickets) -> str:
        params = expiration = None
        if signed.tickets:
            params, expiration = _encoded(quote.params)
        payment = Payment(
            sender=self._maker.address,
            expected_price=quote.info.price,
            ticket_params=params,
            expiration_params=expiration,
            tickets=signed.tickets,
        )
        return encode_header(encode_payment(payment))


@lru_cache(maxsize=1024)
def _encoded(params: TicketParams) -> tuple[bytes, bytes]:
    """As they go into a payment: the creation round stands in a field of its own."""
    return encode_ticket_params(params, with_creation=False), encode_creation_round(
        params.creation
    )
