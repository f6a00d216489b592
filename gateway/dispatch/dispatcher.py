"""One request's journey: choose, reserve, and try one orchestrator after the other until one delivers."""

import asyncio
import itertools
import random
from collections.abc import Collection, Sequence
from fractions import Fraction
from typing import Final

import structlog

from gateway.accounting.events import Attempt
from gateway.accounting.journal import Journal
from gateway.dispatch.allowing import NO_RATE_RETRY, allowances_of
from gateway.dispatch.attempting import Attempts, Means
from gateway.dispatch.books import Books
from gateway.dispatch.choosing import Choosing
from gateway.dispatch.foresight import Quote, Survey, foresee
from gateway.dispatch.hedging import HedgePlan, Hedging
from gateway.dispatch.journey import (
    Buyer,
    DispatchResult,
    Journey,
    Keep,
    Routing,
    Witness,
    need_of,
    seed_for,
    set_out,
)
from gateway.dispatch.paying import OffChain, Paying
from gateway.dispatch.racing import Hedges
from gateway.dispatch.recovering import Recovering
from gateway.dispatch.watching import Watching
from gateway.keys import called
from gateway.orchestrators import outlook
from gateway.orchestrators.client import OrchestratorClient
from gateway.orchestrators.directory import Directory
from gateway.orchestrators.selection import Need, Policy
from gateway.payments.allowance import Allowances
from gateway.payments.budget import Budget, NotHeld, Shortfall
from network.errors import DatabaseError, ProblemError
from network.prices import NoRateError
from network.runtime.clock import Clock
from network.units import ModelId
from network.wire import problems
from network.wire.messages import TextToImageRequest

_log: Final = structlog.get_logger(__name__)


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
        hedging: Hedging | None = None,
    ) -> None:
        """`paying` None is off-chain, `hedging` None off. `allowances` know what was spent before."""
        self._allowances = Allowances() if allowances is None else allowances
        self._directory = directory
        self._books = Books(journal, clock)
        self._budget = budget
        self._routing = routing
        self._clock = clock
        self._randomness = randomness
        self._arrivals = itertools.count()
        self._journeys: dict[str, Journey] = {}
        self._choosing = Choosing(
            directory, self._budget, self._allowances, policy=policy, routing=routing, clock=clock
        )
        means = Means(
            directory=directory,
            client=client,
            choosing=self._choosing,
            books=self._books,
            paying=OffChain() if paying is None else paying,
            allowances=self._allowances,
            routing=routing,
            clock=clock,
        )
        self._attempts = Attempts(means)
        self._recovering = Recovering(means)
        self._carry_out = self._attempts.carry_out
        #: None where late jobs are left alone.
        self.hedges: Hedges | None = None
        if hedging is not None:
            self.hedges = Hedges(hedging, self._attempts, means)
            self._carry_out = self.hedges.carry_out
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
        seed: int | None = None,
    ) -> DispatchResult:
        """Deliver images or raise ProblemError with the true reason.

        `seed` is for a request that names none; one is drawn without. `avoided` are URIs that are not asked; what is made in spite of them is no delivery to tell of.
        `request.model_id` names a model (the default is already put in). Cancelling the awaiting
        task closes the connection to the orchestrator, which frees its place. Raises
        DatabaseError when the request cannot be written down; nothing has been sent then.
        """
        model_id = ModelId(request.model_id)
        self._check_model(model_id, buyer)
        self._count_in(request_id, buyer)
        self._attempts.expect()
        try:
            journey = set_out(
                request_id,
                buyer,
                request,
                seed=self._seed(request, seed),
                max_price=self._cap(buyer, model_id),
                arrival=next(self._arrivals),
                now=self._clock.monotonic(),
            )
            journey.allowances = allowances_of(buyer)
            journey.keep = keep
            journey.tried.update(avoided)
            journey.may_be_hedged = not avoided
            self._journeys[request_id] = journey
            result = await self._travel(journey)
            if self.witness is not None and not avoided:
                self.witness(request_id, request, result)
            return result
        finally:
            self._journeys.pop(request_id, None)
            self._budget.release(request_id)
            self._allowances.release(request_id)

    async def recover(
        self,
        request_id: str,
        buyer: Buyer,
        request: TextToImageRequest,
        keep: Keep,
        attempts: Sequence[Attempt],
        *,
        seed: int,
    ) -> DispatchResult | None:
        """What one of the `attempts` of an earlier process delivered; the request is settled by it.

        None where nothing of it can be had: the request is closed then, and is to be made under another
        id. `seed` is what they were asked with. Cancelling leaves all as it is. Raises ProblemError.
        """
        self._count_in(request_id, buyer)
        try:
            journey = set_out(
                request_id,
                buyer,
                request,
                seed=self._seed(request, seed),
                max_price=None,
                arrival=next(self._arrivals),
                now=self._clock.monotonic(),
            )
            journey.allowances = allowances_of(buyer)
            journey.keep = keep
            self._journeys[request_id] = journey
            return await self._recovering.recover(journey, attempts)
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

    def hedge(self, survey: Survey) -> HedgePlan | None:
        """What would be done if its job were late; None where such jobs are left alone."""
        if self.hedges is None:
            return None
        return self.hedges.plan(survey.ranking.need, survey.ranking.best)

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

    def _seed(self, request: TextToImageRequest, drawn: int | None) -> int:
        if request.seed is None and drawn is not None:
            return drawn
        return seed_for(request, self._randomness)

    # Under way

    async def _travel(self, journey: Journey) -> DispatchResult:
        try:
            async with asyncio.timeout(self._routing.deadline):
                while True:
                    place = await self._choosing.find_place(journey)
                    result = await self._carry_out(journey, place)
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
