"""One attempt at one orchestrator: pay, write down, ask, check, and settle or note what went wrong."""

import re
from dataclasses import dataclass
from typing import Final, NamedTuple

from gateway.accounting.events import Event
from gateway.accounting.journal import AttemptState
from gateway.dispatch.books import Books
from gateway.dispatch.choosing import Choosing
from gateway.dispatch.journey import (
    DispatchResult,
    Journey,
    Place,
    Routing,
    Running,
    delivery_of,
    kept_of,
    order_for,
    owed,
)
from gateway.dispatch.paying import CappedError, Paying
from gateway.dispatch.retrying import RetryBudget
from gateway.orchestrators import outlook
from gateway.orchestrators.answers import (
    DeliveredWrongly,
    OrchestratorFailed,
    OrchestratorLost,
    OrchestratorRefused,
    OrchestratorUnreachable,
    Refused,
)
from gateway.orchestrators.client import NodeAnswer, OrchestratorClient
from gateway.orchestrators.directory import Directory
from gateway.orchestrators.standing import Fault
from gateway.payments.allowance import Allowances
from gateway.payments.payer import StaleQuoteError, UnpayableError
from gateway.payments.purse import PreparedPayment
from network.errors import ProblemError
from network.runtime.clock import Clock
from network.runtime.randomness import RandomBytes
from network.units import Wei
from network.wire import problems

_attempt_ids: Final = RandomBytes()
#: An orchestrator may refuse the same request for want of a place this often, as places come and
#: go; one that advertises places it never gives is given up then.
_MOST_BUSY: Final = 20
#: In our own nodes' words; as with an unknown model, another name may be offered.
_UNKNOWN_LORA: Final = re.compile(r"LoRa '.+' is not offered here\.")
#: And this often for credentials, a price or a payment that a refresh should have mended.
_MOST_MENDED: Final = 2
#: So many orchestrators' tickets may be above a cap until the request is given up.
_MOST_CAPPED: Final = 8
#: Of these an orchestrator is thought worse when they go on.
_FAULTS: Final = frozenset({Refused.CREDENTIALS, Refused.BALANCE})


class Answered(NamedTuple):
    """An attempt that delivered what was asked. `fee` is what it is paid, in wei."""

    running: Running
    answer: NodeAnswer
    fee: Wei


@dataclass(frozen=True, slots=True)
class Means:
    """What the attempts of all requests are carried out with."""

    directory: Directory
    client: OrchestratorClient
    choosing: Choosing
    books: Books
    paying: Paying
    allowances: Allowances
    routing: Routing
    clock: Clock


class Attempts:
    """Carries out the attempts of all requests."""

    def __init__(self, means: Means) -> None:
        self._means = means
        routing = means.routing
        self._retries = RetryBudget(routing.retry_share, routing.retry_spare)

    def expect(self) -> None:
        """A request came: it earns its share of a retry."""
        self._retries.earn()

    async def carry_out(self, journey: Journey, place: Place) -> DispatchResult | None:
        """Ask one orchestrator; None where the next may be asked. The place is given back."""
        answered = await self.ask(journey, place)
        return None if answered is None else await self.settle(journey, answered)

    async def ask(self, journey: Journey, place: Place) -> Answered | None:
        """A good answer, which is to be settled or dropped; the place is kept until then.

        None where the next orchestrator may be asked.
        """
        uri, model_id = place.uri, place.model_id
        if place.offer.is_remembered:
            # Of an earlier process: places, price and quote may all be others by now.
            self._means.choosing.give_back(place)
            await self._means.directory.refresh(uri, model_id, 0.0)
            return None
        attempt_id = _attempt_ids.hex(16)
        seen_at = 0.0
        was_sent = was_busy = was_answered = is_good = False
        try:
            payment = await self._means.paying.prepare(journey, place, attempt_id)
            running = await self._means.books.begin(journey, place, attempt_id, payment)
            self._means.directory.note_sent(uri, model_id)
            was_sent = True
            answer = await self._post(journey, place, running, payment)
            fee = owed(place, answer)
            is_good = True
            return Answered(running, answer, fee)
        except StaleQuoteError as stale:
            seen_at = self._means.clock.monotonic()
            self._mend(journey, uri, Refused.CREDENTIALS, str(stale))
        except CappedError as capped:
            journey.tried.add(uri)
            journey.capped.append(capped)
            if len(journey.capped) >= _MOST_CAPPED:
                raise
            return None
        except UnpayableError as refusal:
            self._give_up(journey, uri, f"it cannot be paid: {refusal}")
            return None
        except OrchestratorRefused as refusal:
            was_busy, was_answered = refusal.kind is Refused.BUSY, refusal.was_answered
            seen_at = self._means.clock.monotonic()
            self._note_refusal(journey, uri, attempt_id, refusal)
        except OrchestratorFailed as failure:
            was_answered = failure.was_answered
            self._note_failure(journey, uri, attempt_id, failure)
            return None
        finally:
            if not is_good:
                self._means.directory.release(uri, model_id, was_sent=was_sent, was_busy=was_busy)
                self._means.books.note(
                    self._means.paying.leave(
                        attempt_id, uri, was_sent=was_sent, was_answered=was_answered
                    )
                )
        if not was_busy:
            # Its token, its price or its quote is not what we know: look before the next decision. Or
            # it is the chain that we know less of than it does.
            await self._means.paying.look_again()
            await self._means.directory.refresh(uri, model_id, seen_at)
        return None

    async def _post(
        self, journey: Journey, place: Place, running: Running, payment: PreparedPayment | None
    ) -> NodeAnswer:
        began = self._means.clock.monotonic()
        try:
            order = order_for(journey, place, running, payment)
            return await self._means.client.text_to_image(
                place.offer, order, self._means.routing.attempt_timeout
            )
        finally:
            journey.asked += self._means.clock.monotonic() - began

    # Arriving

    async def settle(self, journey: Journey, answered: Answered) -> DispatchResult:
        """The request is delivered by this answer, and pays for it."""
        try:
            kept: tuple[Event, ...] = ()
            if journey.keep is not None:
                kept = await kept_of(journey, answered.running.place, answered.answer)
            # Nothing is awaited from here on: who cancels the request from now on is too late.
            return self._settle(journey, answered, kept)
        finally:
            self.drop(answered)

    def _settle(
        self, journey: Journey, answered: Answered, kept: tuple[Event, ...]
    ) -> DispatchResult:
        running, answer, fee = answered
        place = running.place
        receipts = self._means.paying.delivered(running.attempt_id, answer, fee)
        usd = self._means.allowances.settle(journey.request_id, fee, self._means.clock.now())
        beside = (*receipts, *kept)
        settled = self._means.books.settle(
            journey, running, fee, answer.node_job_id, beside, usd=usd
        )
        self._note_delivery(journey, running)
        return DispatchResult(
            answer.images,
            fee,
            place.uri,
            journey.attempts,
            journey.asked,
            settled,
            answer.warnings,
        )

    def settle_spare(self, journey: Journey, answered: Answered, reason: str) -> None:
        """It is a good answer that the request has no more need of: we owe for it, the client does not."""
        running, answer, fee = answered
        receipts = self._means.paying.delivered(running.attempt_id, answer, fee)
        self._means.books.end_spare(
            journey,
            running.attempt_id,
            reason,
            receipts=receipts,
            fee=fee,
            node_job_id=answer.node_job_id,
        )
        self._note_delivery(journey, running)
        self.drop(answered)

    def drop(self, answered: Answered) -> None:
        """Give the place back; a payment that was not settled is looked into."""
        running = answered.running
        uri = running.place.uri
        self._means.directory.release(uri, running.place.model_id, was_sent=True)
        self._means.books.note(
            self._means.paying.leave(running.attempt_id, uri, was_sent=True, was_answered=True)
        )

    def _note_delivery(self, journey: Journey, running: Running) -> None:
        seconds = self._means.clock.monotonic() - running.started
        delivery = delivery_of(journey, running.place, seconds)
        self._means.directory.note_success(running.place.uri, delivery)

    def _note_refusal(
        self, journey: Journey, uri: str, attempt_id: str, refusal: OrchestratorRefused
    ) -> None:
        """Raises ProblemError where asking somebody else would not help."""
        kind, text = refusal.kind, journey.scrubbed(refusal.text)
        receipts = self._means.paying.refused(attempt_id, refusal)
        state: AttemptState = "busy" if kind is Refused.BUSY else "refused"
        self._means.books.end_attempt(journey, attempt_id, state, text, receipts)
        if kind is Refused.CLIENT_FAULT:
            if _UNKNOWN_LORA.match(text):
                raise ProblemError(problems.lora_not_found(text))
            raise ProblemError(problems.bad_request(text or "The request was refused."))
        if kind is Refused.UNSAFE:
            raise ProblemError(problems.unsafe(text))
        self._mend(journey, uri, kind, text)

    def _mend(self, journey: Journey, uri: str, kind: Refused, text: str) -> None:
        """What a newer look at the orchestrator may mend is tried again, but not for ever."""
        times = journey.refusals[uri, kind] = journey.refusals.get((uri, kind), 0) + 1
        if times < (_MOST_BUSY if kind is Refused.BUSY else _MOST_MENDED):
            return
        reason = f"it refused {times} times: {text}"
        if kind in _FAULTS:
            self._means.directory.note_failure(uri, Fault.FAULTY, reason)
        self._give_up(journey, uri, reason)

    def _note_failure(
        self, journey: Journey, uri: str, attempt_id: str, failure: OrchestratorFailed
    ) -> None:
        """Raises ProblemError when enough orchestrators have failed, and none is at work."""
        reason = journey.scrubbed(str(failure))
        receipts = self._means.paying.refused(attempt_id, failure)
        self._means.books.end_attempt(journey, attempt_id, "failed", reason, receipts)
        self._means.directory.note_failure(uri, _fault(failure), reason)
        self._give_up(journey, uri, reason)
        # Where no connection was made, nobody had any work of it; where a second attempt is under
        # way, it takes the place of a retry.
        if isinstance(failure, OrchestratorUnreachable) or journey.under_way:
            return
        if not self._retries.spend(self._means.clock.monotonic()):
            raise ProblemError(outlook.not_retried(journey.failures))

    def _give_up(self, journey: Journey, uri: str, reason: str) -> None:
        journey.tried.add(uri)
        journey.failures.append(reason)
        if len(journey.failures) >= self._means.routing.max_failures and not journey.under_way:
            raise ProblemError(outlook.all_failed(journey.failures))


def _fault(failure: OrchestratorFailed) -> Fault:
    if isinstance(failure, DeliveredWrongly):
        return Fault.WRONG
    is_unreachable = isinstance(failure, OrchestratorUnreachable | OrchestratorLost)
    return Fault.UNREACHABLE if is_unreachable else Fault.FAULTY
