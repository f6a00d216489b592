"""The money side of an attempt: what is sent with it, and what of that was settled when it ended."""

from typing import Any, Final, Protocol

import structlog

from gateway.accounting.events import Receipt
from gateway.dispatch.doubts import Doubts, receipt_of
from gateway.dispatch.journey import Journey, Place
from gateway.keys import called
from gateway.orchestrators.answers import (
    OrchestratorFailed,
    OrchestratorRefused,
    OrchestratorUnreachable,
    Refused,
    Statement,
)
from gateway.orchestrators.client import NodeAnswer
from gateway.orchestrators.receipts import NoReceipt
from gateway.payments.exposure import Cap
from gateway.payments.payer import CannotPayError, UnpayableError
from gateway.payments.purse import (
    CapReachedError,
    PaymentOrder,
    PreparedPayment,
    Purse,
    Settled,
)
from network.errors import Problem, ProblemError
from network.runtime.clock import Clock
from network.units import Wei
from network.wire import problems

#: Seconds after which a refusal to pay that goes on is logged again.
_REMIND: Final = 60.0
#: What Livepeer's orchestrators answer before they have looked at a payment, and after they took it.
_BEFORE_PAYMENT: Final = frozenset({402, 403, 503})
_WORKER_FAILED: Final = 500
_AFTER_PAYMENT: Final = frozenset({Refused.CLIENT_FAULT, Refused.UNSAFE})
#: Told to clients where time alone does not help.
_RETRY: Final = 60.0

_log = structlog.get_logger(__name__)


class CappedError(ProblemError):
    """A cap forbids this payment. Another orchestrator's tickets may be small enough."""


class Paying(Protocol):
    """What dispatch needs of payments; `OffChain` needs nothing."""

    async def prepare(
        self, journey: Journey, place: Place, attempt_id: str
    ) -> PreparedPayment | None:
        """Tickets for an attempt. Raises UnpayableError and its kinds, CappedError, ProblemError."""
        ...

    async def look_again(self) -> None:
        """A quote was stale: read the chain anew before the next one is judged."""

    def cancels_free(self, uri: str, fee: Wei) -> bool:
        """Whether a job for `fee` there costs nothing once it is cancelled, as far as we know."""
        ...

    def delivered(self, attempt_id: str, answer: NodeAnswer, fee: Wei) -> tuple[Receipt, ...]: ...

    def refused(
        self, attempt_id: str, error: OrchestratorRefused | OrchestratorFailed
    ) -> tuple[Receipt, ...]: ...

    def told(self, attempt_id: str, statement: Statement) -> tuple[Receipt, ...]:
        """An orchestrator told what became of an attempt of an earlier process."""
        ...

    def leave(
        self, attempt_id: str, uri: str, *, was_sent: bool, was_answered: bool
    ) -> tuple[Receipt, ...]:
        """The attempt is over, however it ended: what was not settled is looked into."""
        ...


class OffChain:
    """Nothing is paid beforehand."""

    async def prepare(
        self, journey: Journey, place: Place, attempt_id: str
    ) -> PreparedPayment | None:
        del journey, place, attempt_id
        return None

    async def look_again(self) -> None:
        """There is no chain."""

    def cancels_free(self, uri: str, fee: Wei) -> bool:
        del uri, fee
        return True

    def delivered(self, attempt_id: str, answer: NodeAnswer, fee: Wei) -> tuple[Receipt, ...]:
        del attempt_id, answer, fee
        return ()

    def refused(
        self, attempt_id: str, error: OrchestratorRefused | OrchestratorFailed
    ) -> tuple[Receipt, ...]:
        del attempt_id, error
        return ()

    def told(self, attempt_id: str, statement: Statement) -> tuple[Receipt, ...]:
        del attempt_id, statement
        return ()

    def leave(
        self, attempt_id: str, uri: str, *, was_sent: bool, was_answered: bool
    ) -> tuple[Receipt, ...]:
        del attempt_id, uri, was_sent, was_answered
        return ()


class TicketPaying:
    """Tickets go with every attempt that costs something."""

    def __init__(self, purse: Purse, doubts: Doubts, clock: Clock) -> None:
        self._purse = purse
        self._doubts = doubts
        self._clock = clock
        self._told = ""
        self._told_at = float("-inf")
        #: URIs of those that told what a payment brought: our own nodes. They charge for deliveries
        #: only, keep as credit what else was paid, and can be asked about it.
        self._tellers: set[str] = set()
        #: Of those that had not told when they were asked; nothing makes up for that.
        self._silent: set[str] = set()
        doubts.heard = self._note_told

    def status(self) -> dict[str, Any]:
        """For `/status`; wei as text, for they outgrow JSON's numbers."""
        figures = {name: str(amount) for name, amount in self._purse.figures().items()}
        return {"problem": self._purse.problem(), "in_doubt": len(self._doubts), **figures}

    def figures(self) -> dict[str, int]:
        """For `/metrics`."""
        return {**self._purse.figures(), "payments_in_doubt": len(self._doubts)}

    async def prepare(
        self, journey: Journey, place: Place, attempt_id: str
    ) -> PreparedPayment | None:
        reply = place.model.reply
        if reply is None:
            raise UnpayableError("it quoted nothing")
        order = PaymentOrder(
            attempt_id=attempt_id,
            key_id=journey.buyer.key_id,
            uri=place.uri,
            model_id=place.model_id,
            price=place.candidate.prospect.price,
            fee=place.candidate.fee,
            named=place.offer.address,
            info=reply,
        )
        try:
            return await self._purse.prepare(order)
        except CannotPayError as error:
            self._tell_operator(str(error))
            raise ProblemError(problems.payments_unavailable(_RETRY)) from None
        except CapReachedError as error:
            self._tell_operator(str(error))
            raise CappedError(self._cap_reached(error, order.key_id)) from None

    async def look_again(self) -> None:
        await self._purse.look_again()

    def cancels_free(self, uri: str, fee: Wei) -> bool:
        return not fee or (uri in self._tellers and uri not in self._silent)

    def delivered(self, attempt_id: str, answer: NodeAnswer, fee: Wei) -> tuple[Receipt, ...]:
        if answer.credit is None:
            return self._receipt(self._purse.settle_delivered(attempt_id, fee))
        stake = self._purse.stake(attempt_id)
        if stake is not None:
            self._tellers.add(stake.account.node)
        return self._receipt(self._purse.settle_told(attempt_id, answer.credit, fee))

    def refused(
        self, attempt_id: str, error: OrchestratorRefused | OrchestratorFailed
    ) -> tuple[Receipt, ...]:
        """What is certain at once; the rest is left in doubt."""
        if isinstance(error, OrchestratorRefused) and error.kind is Refused.BALANCE:
            self._purse.distrust(attempt_id)
        if isinstance(error, OrchestratorUnreachable):
            return self._receipt(self._purse.settle_unsent(attempt_id))
        told = error.statement
        if told is None:
            return self._receipt(self._as_livepeer_counts(attempt_id, error))
        return self._receipt(self._purse.settle_told(attempt_id, told.credited, told.charged))

    def told(self, attempt_id: str, statement: Statement) -> tuple[Receipt, ...]:
        credited, charged = statement.credited, statement.charged
        return self._receipt(self._purse.settle_told(attempt_id, credited, charged, "receipt"))

    def _as_livepeer_counts(
        self, attempt_id: str, error: OrchestratorRefused | OrchestratorFailed
    ) -> Settled | None:
        """A node that tells nothing of money; where its words say how far it came, so do its books.

        Livepeer's look at credentials and capacity first, then at the tickets, then work, and charge
        for a delivery only (wire, 3.3). None where that is not certain.
        """
        if not isinstance(error, OrchestratorRefused):
            return None
        if error.status in _BEFORE_PAYMENT or error.kind is Refused.CREDENTIALS:
            return self._purse.settle_ignored(attempt_id, "assumed")
        if error.status == _WORKER_FAILED and error.kind in _AFTER_PAYMENT:
            return self._purse.settle_delivered(attempt_id, Wei(0), "assumed")
        return None

    def leave(
        self, attempt_id: str, uri: str, *, was_sent: bool, was_answered: bool
    ) -> tuple[Receipt, ...]:
        if not was_sent:
            return self._receipt(self._purse.settle_unsent(attempt_id))
        if self._purse.is_open(attempt_id):
            self._doubts.add(attempt_id, uri, was_answered=was_answered)
        return ()

    def _note_told(self, uri: str, told: Statement | NoReceipt) -> None:
        """What a node said of an attempt that we saw no delivery of.

        One that charged for it, or says that it never saw the tickets, may have been quicker, or slower, than
        our cancellation. It may as well live on such: before the next, it delivers something.
        """
        if isinstance(told, Statement):
            if told.charged:
                self._tellers.discard(uri)
        elif told is NoReceipt.NEVER_SEEN:
            self._tellers.discard(uri)
        else:
            self._silent.add(uri)

    def _receipt(self, settled: Settled | None) -> tuple[Receipt, ...]:
        return () if settled is None else (receipt_of(settled, self._clock.now()),)

    def _cap_reached(self, error: CapReachedError, key_id: str) -> Problem:
        frees_at = error.reached.frees_at
        wait = _RETRY if frees_at is None else max(frees_at - self._clock.now(), 1.0)
        if error.reached.cap is Cap.KEY_HOUR:
            message = f"{called(key_id)} has spent what it may spend in an hour."
            return problems.rate_limited(wait, message)
        return problems.payments_unavailable(
            wait, "This gateway has spent as much as it may at the moment. Try again later."
        )

    def _tell_operator(self, why: str) -> None:
        """The reason is not for clients, and is the same for many requests."""
        now = self._clock.monotonic()
        if why != self._told or now - self._told_at > _REMIND:
            _log.error("cannot_pay", reason=why)
            self._told, self._told_at = why, now
