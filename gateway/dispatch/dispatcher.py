"""One request's journey: choose, reserve, write down, call, check, and settle or try the next."""

import asyncio
import itertools
import random
import re
from collections.abc import Collection
from fractions import Fraction
from typing import Final

import structlog

from gateway.accounting.events import Event
from gateway.accounting.journal import AttemptState, Journal
from gateway.dispatch.allowing import NO_RATE_RETRY, allowances_of
from gateway.dispatch.books import Books
from gateway.dispatch.choosing import Choosing
from gateway.dispatch.foresight import Quote, Survey, foresee
from gateway.dispatch.journey import (
    Buyer,
    DispatchResult,
    Journey,
    Keep,
    Place,
    Routing,
    Running,
    Witness,
    delivery_of,
    kept_of,
    need_of,
    order_for,
    owed,
    set_out,
)
from gateway.dispatch.paying import CappedError, OffChain, Paying
from gateway.dispatch.retrying import RetryBudget
from gateway.dispatch.watching import Watching
from gateway.keys import called
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
from gateway.orchestrators.selection import Need, Policy
from gateway.orchestrators.standing import Fault
from gateway.payments.allowance import Allowances
from gateway.payments.budget import Budget, NotHeld, Shortfall
from gateway.payments.payer import StaleQuoteError, UnpayableError
from gateway.payments.purse import PreparedPayment
from network.errors import DatabaseError, ProblemError
from network.prices import NoRateError
from network.runtime.clock import Clock
from network.runtime.randomness import RandomBytes
from network.units import ModelId
from network.wire import problems
from network.wire.messages import LARGEST_SEED, TextToImageRequest

_log: Final = structlog.get_logger(__name__)

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


class Dispatcher:
    """Carries requests to orchestrators. One per process."""

    def __init__(
        self,
        *,
        directory: Directory,
        client: OrchestratorClient,
        journal: Journal,
        budget: Budget,
        policy: Policy,
        routing: Routing,
        clock: Clock,
        randomness: random.Random,
        paying: Paying | None = None,
        allowances: Allowances | None = None,
    ) -> None:
        """`paying` None is off-chain. `allowances` know what was spent before."""
        self._allowances = Allowances() if allowances is None else allowances
        self._paying: Paying = OffChain() if paying is None else paying
        self._directory = directory
        self._client = client
        self._books = Books(journal, clock)
        self._budget = budget
        self._routing = routing
        self._retries = RetryBudget(routing.retry_share, routing.retry_spare)
        self._clock = clock
        self._randomness = randomness
        self._arrivals = itertools.count()
        self._journeys: dict[str, Journey] = {}
        self._choosing = Choosing(
            directory, self._budget, self._allowances, policy=policy, routing=routing, clock=clock
        )
        #: Where each request in flight stands.
        self.watching = Watching(client, self._journeys.get, self._choosing.position)
        #: Told of every delivery.
        self.witness: Witness | None = None

    @property
    def routing(self) -> Routing:
        """The settings by which it goes."""
        return self._routing

    @property
    def in_flight(self) -> int:
        """Requests that are not answered yet."""
        return len(self._journeys)

    @property
    def waiting(self) -> int:
        """Those of them that wait for a free place."""
        return self._choosing.waiting

    async def run(
        self,
        request_id: str,
        buyer: Buyer,
        request: TextToImageRequest,
        keep: Keep | None = None,
        *,
        avoided: Collection[str] = (),
    ) -> DispatchResult:
        """Deliver images or raise ProblemError with the true reason.

        `avoided` are URIs that are not asked; what is made in spite of them is no delivery to tell of.
        `request.model_id` names a model (the default is already put in). Cancelling the awaiting
        task closes the connection to the orchestrator, which frees its place. Raises
        DatabaseError when the request cannot be written down; nothing has been sent then.
        """
        model_id = ModelId(request.model_id)
        self._check_model(model_id, buyer)
        self._count_in(request_id, buyer)
        self._retries.earn()
        try:
            journey = set_out(
                request_id,
                buyer,
                request,
                seed=self._seed(request),
                max_price=self._cap(buyer, model_id),
                arrival=next(self._arrivals),
                now=self._clock.monotonic(),
            )
            journey.allowances = allowances_of(buyer)
            journey.keep = keep
            journey.tried.update(avoided)
            self._journeys[request_id] = journey
            result = await self._travel(journey)
            if self.witness is not None and not avoided:
                self.witness(request_id, request, result)
            return result
        finally:
            self._journeys.pop(request_id, None)
            self._budget.release(request_id)
            self._allowances.release(request_id)

    # Foretelling

    def quote(self, request_id: str, buyer: Buyer, request: TextToImageRequest) -> Quote:
        """What `run` would cost and take if it began now; nothing is claimed, held or sent.

        Raises ProblemError as `run` would, but for what only orchestrators and payments can tell.
        """
        model_id = ModelId(request.model_id)
        self._check_model(model_id, buyer)
        self._count_in(request_id, buyer)
        try:
            survey = self.survey(need_of(request, self._cap(buyer, model_id)))
            foreseen = foresee(survey)
            self._choosing.hold(request_id, allowances_of(buyer), foreseen.best.fee)
        finally:
            self._budget.release(request_id)
            self._allowances.release(request_id)
        best = foreseen.best
        offer = self._directory.offer(best.uri)
        return Quote(
            model_id=model_id,
            fee=best.fee,
            price=best.prospect.price,
            expected_seconds=foreseen.wait + best.expected_seconds,
            orchestrators=foreseen.free,
            warm=offer is not None and offer.models[model_id].warm,
            waiting=survey.waiting,
        )

    def survey(self, need: Need) -> Survey:
        """What a request that needs this would meet now."""
        return self._choosing.survey(need)

    # Setting out

    def _cap(self, buyer: Buyer, model_id: ModelId) -> Fraction | None:
        try:
            return self._routing.cap(buyer, model_id)
        except NoRateError as error:
            # Without the cap's worth in wei, any price might be above it.
            _log.warning("no_price_cap", key_id=buyer.key_id, problem=str(error))
            raise ProblemError(problems.payments_unavailable(NO_RATE_RETRY)) from None

    def _check_model(self, model_id: ModelId, buyer: Buyer) -> None:
        allowed = buyer.models
        if not self._directory.prospects(model_id):
            known = self._directory.known_models()
            if not known:
                raise ProblemError(outlook.nobody_known(self._directory.others(model_id)))
            usable = known if allowed is None else [one for one in known if one in allowed]
            raise ProblemError(problems.model_not_found(model_id, usable))
        if allowed is not None and model_id not in allowed:
            raise ProblemError(
                problems.forbidden(
                    f"{called(buyer.key_id)} may use {', '.join(sorted(allowed)) or 'no models'} only."
                )
            )

    def _count_in(self, request_id: str, buyer: Buyer) -> None:
        held = self._budget.open(request_id, buyer.key_id, buyer.max_in_flight)
        if not isinstance(held, NotHeld):
            return
        if held.reason is Shortfall.IN_FLIGHT:
            raise ProblemError(problems.bad_request("A request of this id is in flight."))
        raise ProblemError(
            problems.rate_limited(
                1.0,
                f"{called(buyer.key_id)} has {held.limit} requests in flight, as many as it may have. "
                "Wait for one of them.",
            )
        )

    def _seed(self, request: TextToImageRequest) -> int:
        """Drawn here rather than by the orchestrator: a second attempt makes the same images."""
        if request.seed is not None:
            return request.seed
        return self._randomness.randrange(LARGEST_SEED - request.num_images_per_prompt + 2)

    # Under way

    async def _travel(self, journey: Journey) -> DispatchResult:
        try:
            async with asyncio.timeout(self._routing.deadline):
                while True:
                    place = await self._choosing.find_place(journey)
                    result = await self._attempt(journey, place)
                    if result is not None:
                        return result
        except TimeoutError:
            problem = problems.timed_out(
                f"No orchestrator delivered within {self._routing.deadline:g} s."
            )
            await self._books.close(journey, "failed", problem.message)
            raise ProblemError(problem) from None
        except ProblemError as error:
            await self._books.close(journey, "failed", error.problem.message)
            raise
        except DatabaseError:
            _ = self._books.close(journey, "failed", "the journal could not be written")
            raise
        except Exception:
            _ = self._books.close(journey, "failed", "an error of the gateway")
            raise
        except asyncio.CancelledError:
            _ = self._books.close(journey, "cancelled", "the client went away")
            raise

    async def _attempt(self, journey: Journey, place: Place) -> DispatchResult | None:
        """Ask one orchestrator; None where the next may be asked. The place is given back."""
        uri, model_id = place.uri, place.model_id
        if place.offer.is_remembered:
            # Of an earlier process: places, price and quote may all be others by now.
            self._choosing.give_back(place)
            await self._directory.refresh(uri, model_id, 0.0)
            return None
        attempt_id = _attempt_ids.hex(16)
        seen_at = 0.0
        was_sent = was_busy = was_answered = False
        try:
            payment = await self._paying.prepare(journey, place, attempt_id)
            running = await self._books.begin(journey, place, attempt_id, payment)
            self._directory.note_sent(uri, model_id)
            was_sent = True
            answer = await self._ask(journey, place, running, payment)
            kept = await kept_of(journey, place, answer) if journey.keep is not None else ()
            # Nothing is awaited from here on: who cancels the request from now on is too late.
            return self._settle(journey, place, running, answer, kept)
        except StaleQuoteError as stale:
            seen_at = self._clock.monotonic()
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
            seen_at = self._clock.monotonic()
            self._note_refusal(journey, uri, attempt_id, refusal)
        except OrchestratorFailed as failure:
            was_answered = failure.was_answered
            self._note_failure(journey, uri, attempt_id, failure)
            return None
        finally:
            self._directory.release(uri, model_id, was_sent=was_sent, was_busy=was_busy)
            self._books.note(
                self._paying.leave(attempt_id, uri, was_sent=was_sent, was_answered=was_answered)
            )
        if not was_busy:
            # Its token, its price or its quote is not what we know: look before the next decision. Or
            # it is the chain that we know less of than it does.
            await self._paying.look_again()
            await self._directory.refresh(uri, model_id, seen_at)
        return None

    async def _ask(
        self, journey: Journey, place: Place, running: Running, payment: PreparedPayment | None
    ) -> NodeAnswer:
        began = self._clock.monotonic()
        try:
            order = order_for(journey, place, running, payment)
            return await self._client.text_to_image(
                place.offer, order, self._routing.attempt_timeout
            )
        finally:
            journey.asked += self._clock.monotonic() - began

    # Arriving

    def _settle(
        self,
        journey: Journey,
        place: Place,
        running: Running,
        answer: NodeAnswer,
        kept: tuple[Event, ...],
    ) -> DispatchResult:
        fee = owed(place, answer)
        seconds = self._clock.monotonic() - running.started
        receipts = self._paying.delivered(running.attempt_id, answer, fee)
        usd = self._allowances.settle(journey.request_id, fee, self._clock.now())
        beside = (*receipts, *kept)
        settled = self._books.settle(journey, fee, answer.node_job_id, beside, usd=usd)
        self._directory.note_success(place.uri, delivery_of(journey, place, seconds))
        return DispatchResult(
            answer.images,
            fee,
            place.uri,
            journey.attempts,
            journey.asked,
            settled,
            answer.warnings,
        )

    def _note_refusal(
        self, journey: Journey, uri: str, attempt_id: str, refusal: OrchestratorRefused
    ) -> None:
        """Raises ProblemError where asking somebody else would not help."""
        kind, text = refusal.kind, journey.scrubbed(refusal.text)
        receipts = self._paying.refused(attempt_id, refusal)
        state: AttemptState = "busy" if kind is Refused.BUSY else "refused"
        self._books.end_attempt(journey, state, text, receipts)
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
            self._directory.note_failure(uri, Fault.FAULTY, reason)
        self._give_up(journey, uri, reason)

    def _note_failure(
        self, journey: Journey, uri: str, attempt_id: str, failure: OrchestratorFailed
    ) -> None:
        """Raises ProblemError when enough orchestrators have failed."""
        reason = journey.scrubbed(str(failure))
        receipts = self._paying.refused(attempt_id, failure)
        self._books.end_attempt(journey, "failed", reason, receipts)
        self._directory.note_failure(uri, _fault(failure), reason)
        self._give_up(journey, uri, reason)
        # Where no connection was made, nobody had any work of it.
        if isinstance(failure, OrchestratorUnreachable):
            return
        if not self._retries.spend(self._clock.monotonic()):
            raise ProblemError(outlook.not_retried(journey.failures))

    def _give_up(self, journey: Journey, uri: str, reason: str) -> None:
        journey.tried.add(uri)
        journey.failures.append(reason)
        if len(journey.failures) >= self._routing.max_failures:
            raise ProblemError(outlook.all_failed(journey.failures))


def _fault(failure: OrchestratorFailed) -> Fault:
    if isinstance(failure, DeliveredWrongly):
        return Fault.WRONG
    is_unreachable = isinstance(failure, OrchestratorUnreachable | OrchestratorLost)
    return Fault.UNREACHABLE if is_unreachable else Fault.FAULTY
