"""Attempts of a process that was killed: where one of them delivered, its answer is had without another job.

Our own nodes tell what became of an attempt, and give what they delivered once more, at no charge, to
whoever paid for it. From others nothing is asked but the former, which they do not answer.
"""

import asyncio
from collections.abc import Sequence

import structlog

from gateway.accounting.events import Attempt, Event
from gateway.accounting.interrupted import outcome_of
from gateway.dispatch.attempting import Means
from gateway.dispatch.journey import (
    DispatchResult,
    Journey,
    Place,
    Running,
    kept_of,
    order_for,
    owed,
)
from gateway.orchestrators.answers import OrchestratorFailed, OrchestratorRefused, Statement
from gateway.orchestrators.client import NodeAnswer
from gateway.orchestrators.offer import Offer
from gateway.orchestrators.receipts import NoReceipt
from gateway.orchestrators.selection import Candidate, Prospect
from network.errors import ProblemError
from network.units import ModelId

_log = structlog.get_logger(__name__)


class Recovering:
    """No place is claimed for it, and nobody's pace learned of it: the work is done already."""

    def __init__(self, means: Means) -> None:
        self._means = means

    async def recover(
        self, journey: Journey, attempts: Sequence[Attempt]
    ) -> DispatchResult | None:
        """Settle the request by what one of `attempts` delivered; else close it, for nothing.

        Cancelling leaves all of them open, for the next process. Raises ProblemError where the buyer may
        not spend the fee any more; the request is closed then.
        """
        journey.attempts = max(one.number for one in attempts)
        try:
            async with asyncio.timeout(self._means.routing.deadline):
                for attempt in attempts:
                    running = await self._taken_up(journey, attempt)
                    if running is None:
                        continue
                    found = await self._answer(journey, running)
                    if found is not None:
                        # Nothing is awaited from here on: who cancels it now is too late.
                        rest = [one for one in attempts if one is not attempt]
                        return self._settle(journey, running, *found, rest)
        except TimeoutError:
            pass
        except ProblemError:
            _ = self._means.books.end_interrupted(journey, attempts)
            raise
        # Not waited for, so that who cancels the request finds its end written, or still to be written.
        _ = self._means.books.end_interrupted(journey, attempts)
        return None

    async def _taken_up(self, journey: Journey, attempt: Attempt) -> Running | None:
        """The attempt, where its orchestrator has an answer of it, or is about to have one."""
        offer = await self._offer(attempt.orchestrator, journey.need.model_id)
        if offer is None:
            return None
        try:
            told = await self._means.client.receipt(offer, attempt.attempt_id)
        except OrchestratorFailed:
            return None
        if isinstance(told, Statement) and not told.is_delivered:
            # What it was paid is credit there, for whoever is asked next.
            self._means.books.note(self._means.paying.told(attempt.attempt_id, told))
            return None
        if not isinstance(told, Statement) and told is not NoReceipt.NOT_YET:
            return None
        age = self._means.clock.now() - attempt.started_at
        started = self._means.clock.monotonic() - max(age, 0.0)
        return Running(attempt.attempt_id, _place(journey, offer, attempt), started)

    async def _offer(self, uri: str, model_id: ModelId) -> Offer | None:
        """What it offers now: not what it told an earlier process."""
        offer = self._means.directory.offer(uri)
        if offer is None or offer.is_remembered:
            await self._means.directory.refresh(uri, model_id, 0.0)
            offer = self._means.directory.offer(uri)
        if offer is None or offer.is_remembered or not offer.transcoder:
            return None
        return offer if model_id in offer.models else None

    async def _answer(
        self, journey: Journey, running: Running
    ) -> tuple[NodeAnswer, tuple[Event, ...]] | None:
        """Ask for it again, without tickets: it is paid for. Raises ProblemError for the buyer's limits."""
        place = running.place
        self._means.choosing.hold(journey.request_id, journey.allowances, place.candidate.fee)
        journey.under_way.append(running)
        began = self._means.clock.monotonic()
        try:
            order = order_for(journey, place, running, None)
            answer = await self._means.client.text_to_image(
                place.offer, order, self._means.routing.attempt_timeout
            )
            journey.asked += self._means.clock.monotonic() - began
            return answer, await kept_of(journey, place, answer)
        except (OrchestratorRefused, OrchestratorFailed) as error:
            # It may have forgotten the answer; and no doubt is left about the payment that is not looked into.
            why = journey.scrubbed(str(error))
            _log.warning(
                "attempt_not_recovered",
                attempt_id=running.attempt_id,
                uri=place.uri,
                problem=why,
            )
            journey.leave(running.attempt_id)
            return None

    def _settle(
        self,
        journey: Journey,
        running: Running,
        answer: NodeAnswer,
        kept: Sequence[Event],
        rest: Sequence[Attempt],
    ) -> DispatchResult:
        place, now = running.place, self._means.clock.now()
        fee = owed(place, answer)
        receipts = self._means.paying.delivered(running.attempt_id, answer, fee)
        usd = self._means.allowances.settle(journey.request_id, fee, now)
        beside = (*receipts, *kept, *(outcome_of(one, now) for one in rest))
        settled = self._means.books.settle(
            journey, running, fee, answer.node_job_id, beside, usd=usd
        )
        _log.info("attempt_recovered", attempt_id=running.attempt_id, uri=place.uri)
        return DispatchResult(
            answer.images,
            fee,
            place.uri,
            journey.attempts,
            journey.asked,
            settled,
            answer.warnings,
        )


def _place(journey: Journey, offer: Offer, attempt: Attempt) -> Place:
    """Where it was sent, at the price and fee that were agreed then."""
    price = attempt.price
    prospect = Prospect(
        attempt.orchestrator,
        price.numerator,
        price.denominator,
        free=0,
        pace=0,
        overhead=0,
        fresh_until=0.0,
    )
    candidate = Candidate(0, attempt.orchestrator, attempt.fee, 0, prospect)
    return Place(candidate, journey.need.model_id, offer)
