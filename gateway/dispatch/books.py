"""The journal's side of a request: what is written when, and the one log line at its end."""

from collections.abc import Awaitable, Sequence

import structlog

from gateway.accounting.events import NOTHING, Event
from gateway.accounting.interrupted import ends_of
from gateway.accounting.journal import (
    Accepted,
    Attempt,
    AttemptState,
    Journal,
    Outcome,
    Receipt,
    RequestState,
    Settlement,
    TicketBatch,
)
from gateway.dispatch.journey import Journey, Place, Running
from gateway.payments.purse import PreparedPayment
from network.dollars import AttoUsd
from network.errors import DatabaseError
from network.runtime.clock import Clock
from network.units import Wei

_log = structlog.get_logger(__name__)


class Books:
    """Writes down what happens to requests, in the order in which it must be durable."""

    def __init__(self, journal: Journal, clock: Clock) -> None:
        self._journal = journal
        self._clock = clock
        # Bound once: the lazy logger would do it anew for every line.
        self._log = _log.bind()

    async def begin(
        self,
        journey: Journey,
        place: Place,
        attempt_id: str,
        payment: PreparedPayment | None = None,
    ) -> Running:
        """Return when the attempt and its tickets outlive this process: an orchestrator may charge for it, and redeem them, from then on.

        Raises DatabaseError; nothing may be sent then.
        """
        now = self._clock.now()
        attempt = Attempt(
            attempt_id=attempt_id,
            request_id=journey.request_id,
            number=journey.attempts + 1,
            orchestrator=place.uri,
            price=place.candidate.prospect.price,
            fee=place.candidate.fee,
            started_at=now,
        )
        events: tuple[Event, ...] = (attempt,)
        if not journey.attempts:
            events = (_accepted(journey, now), attempt)
        if payment is not None:
            events = (*events, _batch(payment))
        # Counted before the write: a caller that is cancelled meanwhile leaves an attempt to close.
        journey.attempts += 1
        running = Running(attempt.attempt_id, place, self._clock.monotonic())
        journey.under_way.append(running)
        try:
            await self._journal.intend(*events)
        except DatabaseError:
            journey.attempts -= 1
            journey.under_way.remove(running)
            raise
        return running

    def end_attempt(
        self,
        journey: Journey,
        attempt_id: str,
        state: AttemptState,
        reason: str,
        receipts: Sequence[Receipt] = (),
    ) -> None:
        """The attempt failed, the request goes on."""
        running = journey.leave(attempt_id)
        if running is not None:
            _ = self._journal.record(self._outcome(running, state, reason=reason), *receipts)

    def end_spare(
        self,
        journey: Journey,
        attempt_id: str,
        reason: str,
        *,
        receipts: Sequence[Receipt] = (),
        fee: Wei = NOTHING,
        node_job_id: str = "",
    ) -> None:
        """Another attempt was sooner. `fee` is what this one cost us where it had delivered, too."""
        running = journey.leave(attempt_id)
        if running is not None:
            outcome = self._outcome(running, "outrun", fee, node_job_id=node_job_id, reason=reason)
            _ = self._journal.record(outcome, *receipts)

    def note(self, receipts: Sequence[Receipt]) -> None:
        """Write down what payments came to, beside everything else."""
        if receipts:
            _ = self._journal.record(*receipts)

    def settle(
        self,
        journey: Journey,
        running: Running,
        fee: Wei,
        node_job_id: str,
        beside: Sequence[Event] = (),
        *,
        usd: AttoUsd | None = None,
    ) -> Awaitable[None]:
        """The attempt delivered: its fee and the request's are written together, and what is `beside`.

        `usd` is what the fee counts for in dollars; None where no rate was known.
        Await the answer for them to be durable; it does not raise.
        """
        _ = journey.leave(running.attempt_id)
        outcome = self._outcome(running, "succeeded", fee, node_job_id=node_job_id)
        uri = running.place.uri
        settlement = Settlement(
            journey.request_id, "settled", fee, self._clock.now(), uri, usd=usd
        )
        self._tell(journey, "settled", fee=fee, orchestrator=uri)
        return self._journal.record(outcome, settlement, *beside)

    def end_interrupted(self, journey: Journey, attempts: Sequence[Attempt]) -> Awaitable[None]:
        """Nothing is had of an earlier process's attempts: they and the request end. As `settle`."""
        journey.under_way.clear()
        return self._journal.record(*ends_of(journey.request_id, attempts, self._clock.now()))

    def close(self, journey: Journey, state: RequestState, reason: str) -> Awaitable[None]:
        """Settle for nothing, together with what was under way. As `settle`."""
        ended: AttemptState = "cancelled" if state == "cancelled" else "failed"
        outcomes = [self._outcome(one, ended, reason=reason) for one in journey.under_way]
        journey.under_way.clear()
        self._tell(journey, state, reason=reason)
        if not journey.attempts:
            return self._journal.record()
        settlement = Settlement(
            journey.request_id, state, Wei(0), self._clock.now(), reason=reason
        )
        return self._journal.record(*outcomes, settlement)

    def _outcome(
        self,
        running: Running,
        state: AttemptState,
        fee: Wei = NOTHING,
        *,
        node_job_id: str = "",
        reason: str = "",
    ) -> Outcome:
        seconds = self._clock.monotonic() - running.started
        now = self._clock.now()
        return Outcome(running.attempt_id, state, fee, now, seconds, node_job_id, reason)

    def _tell(self, journey: Journey, state: RequestState, **facts: object) -> None:
        self._log.debug(
            "request_" + state,
            request_id=journey.request_id,
            key_id=journey.buyer.key_id,
            model=journey.need.model_id,
            pixels=journey.need.pixels,
            ms=round((self._clock.monotonic() - journey.started) * 1000),
            attempts=journey.attempts,
            **facts,
        )


def _batch(payment: PreparedPayment) -> TicketBatch:
    stake, params = payment.stake, payment.params
    return TicketBatch(
        attempt_id=payment.order.attempt_id,
        recipient=stake.account.recipient.hex(),
        model_id=stake.account.model_id,
        tickets=stake.tickets,
        credit=stake.credit,
        taken=stake.taken,
        face_value=params.face_value,
        win_prob=Wei(params.win_prob),
        recipient_rand_hash=params.recipient_rand_hash.hex(),
        first_nonce=payment.first_nonce,
        creation_round=params.creation.number,
    )


def _accepted(journey: Journey, now: float) -> Accepted:
    return Accepted(
        request_id=journey.request_id,
        key_id=journey.buyer.key_id,
        model_id=journey.need.model_id,
        width=journey.expected.width,
        height=journey.expected.height,
        images=journey.expected.images,
        steps=journey.need.steps,
        accepted_at=now,
    )
