"""Whom a request goes to: the best that is free, in order of arrival, within what may be spent."""

import asyncio
from collections.abc import Sequence
from typing import Final

from gateway.dispatch.foresight import Survey
from gateway.dispatch.holding import hold_within_budgets
from gateway.dispatch.journey import Journey, Place, Routing
from gateway.orchestrators import outlook
from gateway.orchestrators.directory import Directory
from gateway.orchestrators.line import Line, LineFull
from gateway.orchestrators.selection import Candidate, Need, Policy, Ranking, rank
from gateway.orchestrators.trail import note_wait
from gateway.payments.allowance import Allowance, Allowances
from gateway.payments.budget import Budget, NotHeld
from network.errors import ProblemError
from network.runtime.clock import Clock
from network.units import Wei
from network.wire import problems

#: A retry looks no further when so many of the best would come too late.
_MOST_TOO_SLOW: Final = 8


class Choosing:
    """Claims places for requests, and keeps the line of those who found none."""

    def __init__(
        self,
        directory: Directory,
        budget: Budget,
        allowances: Allowances,
        *,
        policy: Policy,
        routing: Routing,
        clock: Clock,
    ) -> None:
        self._directory = directory
        self._budget = budget
        self._allowances = allowances
        self._policy = policy
        self._routing = routing
        self._clock = clock
        self._line: Line[Place] = Line(routing.max_waiting, self.give_back)
        self._is_advancing = False
        directory.subscribe(self._advance_soon)

    @property
    def waiting(self) -> int:
        """Requests in the line."""
        return len(self._line)

    def position(self, journey: Journey) -> int:
        """Place in the line, the first being 1."""
        return self._line.position(journey.arrival)

    async def find_place(self, journey: Journey) -> Place:
        """Claim the best place there is, behind those who wait already."""
        if not len(self._line):
            place = self._try(journey)
            if place is not None:
                return place
        model_id = journey.need.model_id
        left = self._routing.max_wait - journey.waited
        began = self._clock.monotonic()
        self._directory.press(model_id, max(left, 0.0))
        # What one request was refused, its like are refused too, unless its own history counts.
        group = None if journey.tried else (model_id, journey.need.price_cap)
        try:
            return await self._line.wait(
                journey.arrival, lambda: self._try(journey), max(left, 0.0), group
            )
        except LineFull:
            raise ProblemError(
                outlook.line_full(
                    self._rank(journey), self._directory.jobs_of(model_id), len(self._line)
                )
            ) from None
        except TimeoutError:
            # The deadline's own time-out arrives as a cancellation, so this one is the line's.
            ahead = self._line.position(journey.arrival) - 1
            waited = self._clock.monotonic() - began + journey.waited
            raise ProblemError(
                outlook.no_capacity(
                    self._rank(journey), self._directory.jobs_of(model_id), ahead, waited
                )
            ) from None
        finally:
            journey.waited += self._clock.monotonic() - began
            note_wait(self._clock.monotonic() - began)

    def _try(self, journey: Journey) -> Place | None:
        """Claim a place now, or answer None where waiting may help. Raises ProblemError."""
        best = self._best(journey)
        if best is None:
            self._nobody(journey)
            return None
        offer = self._directory.offer(best.uri)
        if offer is None:
            return None
        self.hold(journey.request_id, journey.allowances, best.fee)
        self._directory.claim(best.uri, journey.need.model_id)
        return Place(best, journey.need.model_id, offer)

    def hold(self, request_id: str, allowances: Sequence[Allowance], fee: Wei) -> None:
        """Promise a request its fee. Raises ProblemError naming the limit that forbids it."""
        held = self._budget.hold(request_id, fee)
        if isinstance(held, NotHeld):
            raise ProblemError(
                problems.rate_limited(
                    1.0,
                    "The requests in flight cost as much together as this gateway may spend at "
                    "once. Try again when some of them are done.",
                )
            )
        now, book = self._clock.now(), self._allowances
        hold_within_budgets(book, self._routing, request_id, allowances, amount=fee, now=now)

    def _best(self, journey: Journey) -> Candidate | None:
        """None where nobody is free. Raises ProblemError where a retry would come too late."""
        now = self._clock.monotonic()
        best = self._directory.best(journey.need, now, journey.tried)
        if not journey.failures:
            return best
        left = journey.started + self._routing.deadline - now
        too_slow: set[str] = set()
        while best is not None and self._comes_too_late(best, journey.need, left):
            too_slow.add(best.uri)
            if len(too_slow) >= _MOST_TOO_SLOW:
                break
            best = self._directory.best(journey.need, now, journey.tried | too_slow)
        else:
            if best is not None or not too_slow:
                return best
        raise ProblemError(outlook.too_late(journey.failures, left))

    def _comes_too_late(self, one: Candidate, need: Need, left: float) -> bool:
        """By what it did at this size. Another size tells little: small images are mostly overhead."""
        return one.expected_seconds > left and self._directory.has_measured(one.uri, need)

    def _nobody(self, journey: Journey) -> None:
        """Where waiting may help; else raises ProblemError with why nobody takes it."""
        ranking = self._rank(journey)
        if outlook.may_pass(ranking):
            return
        if journey.capped:
            raise journey.capped[0]
        others = self._directory.others(journey.need.model_id)
        raise ProblemError(outlook.nobody(ranking, journey.failures, others))

    def _rank(self, journey: Journey) -> Ranking:
        prospects = self._directory.prospects(journey.need.model_id)
        return rank(journey.need, prospects, self._policy, self._clock.monotonic(), journey.tried)

    def give_back(self, place: Place) -> None:
        """The place was claimed for a request that is gone."""
        self._directory.release(place.uri, place.model_id, was_sent=False)

    def survey(self, need: Need) -> Survey:
        """What a request that needs this would meet now."""
        now = self._clock.monotonic()
        prospects = self._directory.prospects(need.model_id)
        return Survey(
            ranking=rank(need, prospects, self._policy, now),
            others=self._directory.others(need.model_id),
            jobs=self._directory.jobs_of(need.model_id),
            waiting=self.waiting,
            max_waiting=self._routing.max_waiting,
            now=now,
        )

    def _advance_soon(self) -> None:
        """Something changed. Many changes of one moment are looked at once."""
        if len(self._line) and not self._is_advancing:
            self._is_advancing = True
            asyncio.get_running_loop().call_soon(self._advance)

    def _advance(self) -> None:
        self._is_advancing = False
        self._line.advance()
