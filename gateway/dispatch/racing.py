"""Late jobs that are cheap and can be cancelled get a second orchestrator; the first good answer wins.

Both attempts are made by tasks, and nothing is settled in these: what comes of them is looked at, and
settled, by the request's own task, so that who cancels the request cancels all of it or is too late.
"""

import asyncio
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from gateway.dispatch.attempting import Answered, Attempts, Means
from gateway.dispatch.hedging import (
    Fate,
    HedgePlan,
    Hedging,
    Objection,
    due_in,
    fate_of,
    objection_to,
)
from gateway.dispatch.journey import (
    DispatchResult,
    Journey,
    Place,
    delivery_of,
)
from gateway.dispatch.retrying import RetryBudget
from gateway.orchestrators.lateness import Lateness, kind_of
from gateway.orchestrators.selection import Candidate, Need
from gateway.orchestrators.trail import note_hedge, note_outrun
from network.errors import DatabaseError, ProblemError
from network.units import Wei

#: So many of the best are looked at for a second.
_MOST_LOOKED_AT: Final = 8
_OUTRUN: Final = "another orchestrator was sooner"
_OUTRUN_BOTH: Final = "another orchestrator had delivered already"
#: Of a problem that no orchestrator's answer may overrule.
_UNSAFE: Final = "content_policy_violation"


@dataclass(slots=True)
class _End:
    """What came of one of two attempts."""

    answered: Answered | None = None
    error: ProblemError | DatabaseError | None = None
    #: Nothing that the other may still do is waited for,
    is_final: bool = False
    #: nor of any use.
    is_veto: bool = False


@dataclass(slots=True)
class _Race:
    """The attempts of one request that may be under way together."""

    first: Place
    second: Place | None = None
    ends: list[_End] = field(default_factory=list)
    #: Whoever is not done now is cancelled.
    is_decided: bool = False

    @property
    def best(self) -> _End | None:
        """Of those that are there together the one that the client pays less for."""
        good = [end for end in self.ends if end.answered is not None]
        return min(good, key=lambda end: end.answered.fee if end.answered else 0, default=None)


class Hedges:
    """Carries out attempts as `Attempts` does, and more of them where one is late."""

    def __init__(self, hedging: Hedging, attempts: Attempts, means: Means) -> None:
        self._hedging = hedging
        self._attempts = attempts
        self._means = means
        self._lateness = Lateness(hedging.quantile)
        self._allowed = RetryBudget(hedging.share, hedging.spare)
        self._fates = Counter(dict.fromkeys(Fate, 0))

    def figures(self) -> Mapping[str, int]:
        """Late jobs since the start, by what became of them."""
        return {fate.value: count for fate, count in self._fates.items()}

    def plan(self, need: Need, candidate: Candidate | None) -> HedgePlan:
        """For a request that would go to `candidate`; nothing is claimed by it."""
        if candidate is None:
            return HedgePlan(None, objection=Objection.NOBODY)
        due = self._due(need, candidate, self._means.routing.deadline)
        if isinstance(due, Objection):
            return HedgePlan(None, objection=due)
        second = self._best(need, {candidate.uri}, self._means.routing.deadline - due)
        if isinstance(second, Objection):
            return HedgePlan(due, objection=second)
        return HedgePlan(due, second.uri)

    async def carry_out(self, journey: Journey, place: Place) -> DispatchResult | None:
        """As `Attempts.carry_out`."""
        if not journey.attempts:
            self._allowed.earn()
        left = journey.started + self._means.routing.deadline - self._means.clock.monotonic()
        due = self._due(journey.need, place.candidate, left)
        # One late job of a request is enough.
        if isinstance(due, Objection) or not journey.may_be_hedged:
            answered = await self._observed(journey, place)
        else:
            answered = await self._race(journey, place, due)
        return None if answered is None else await self._attempts.settle(journey, answered)

    # When, and whom

    def _due(self, need: Need, candidate: Candidate, left: float) -> float | Objection:
        objection = self._objection_to(candidate)
        if objection is not None:
            return objection
        kind = self._kind(need, candidate)
        return due_in(self._lateness.late_after(kind, candidate.expected_seconds), left)

    def _objection_to(self, one: Candidate) -> Objection | None:
        cancels_free = self._means.paying.cancels_free(one.uri, one.fee)
        return objection_to(self._hedging, one.fee, cancels_free=cancels_free)

    def _kind(self, need: Need, candidate: Candidate) -> tuple[str, int, bool]:
        is_measured = self._means.directory.has_measured(candidate.uri, need)
        return kind_of(need, candidate, is_measured=is_measured)

    def _best(self, need: Need, tried: set[str], left: float) -> Candidate | Objection:
        """The best that is free and may be asked second; else what is against the last one looked at."""
        objection = Objection.ALONE
        for _ in range(_MOST_LOOKED_AT):
            one = self._means.directory.best(need, self._means.clock.monotonic(), tried)
            if one is None:
                break
            found = self._objection_to(one)
            if found is None and one.expected_seconds <= left:
                return one
            objection = found or Objection.TOO_LATE
            tried = tried | {one.uri}
        return objection

    def _claim_second(self, journey: Journey, first: Place) -> Place | Objection:
        """A place, with both fees held for it."""
        if self._means.choosing.waiting:
            return Objection.CROWDED
        now = self._means.clock.monotonic()
        left = journey.started + self._means.routing.deadline - now
        best = self._best(journey.need, journey.tried | {first.uri}, left)
        if isinstance(best, Objection):
            return best
        offer = self._means.directory.offer(best.uri)
        if offer is None or offer.is_remembered:
            return Objection.ALONE
        if not self._hold(journey, Wei(first.candidate.fee + best.fee)):
            self._hold(journey, first.candidate.fee)
            return Objection.UNCOVERED
        if not self._allowed.spend(now):
            self._hold(journey, first.candidate.fee)
            return Objection.SPENT
        self._means.directory.claim(best.uri, journey.need.model_id)
        return Place(best, journey.need.model_id, offer)

    def _hold(self, journey: Journey, fee: Wei) -> bool:
        with suppress(ProblemError):
            self._means.choosing.hold(journey.request_id, journey.allowances, fee)
            return True
        return False

    # Both under way

    async def _race(self, journey: Journey, place: Place, due: float) -> Answered | None:
        race = _Race(place)
        asked, began = journey.asked, self._means.clock.monotonic()
        try:
            await self._run(race, journey, due)
        except BaseException:
            for end in race.ends:
                if end.answered is not None:
                    self._attempts.drop(end.answered)
            raise
        if race.second is None:
            return self._alone(race)
        # Both were asked at the same time, which is not to be counted twice.
        journey.asked = asked + self._means.clock.monotonic() - began
        return self._judge(race, journey)

    async def _run(self, race: _Race, journey: Journey, due: float) -> None:
        """Return when nothing of the two is under way any more."""
        async with asyncio.TaskGroup() as group:
            first = group.create_task(self._attempt(race, journey, race.first))
            await asyncio.wait((first,), timeout=due)
            if first.done() or not self._is_asked(journey, race.first):
                return
            second = self._claim_second(journey, race.first)
            if isinstance(second, Objection):
                self._note(Fate.WITHHELD)
                return
            race.second, journey.may_be_hedged = second, False
            places = {
                first: race.first,
                group.create_task(self._attempt(race, journey, second)): second,
            }
            pending: set[asyncio.Task[None]] = set(places)
            while pending and not any(end.is_final for end in race.ends):
                # Whoever is over needs no more money.
                left = sum(places[task].candidate.fee for task in pending)
                self._hold(journey, Wei(left))
                _, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            race.is_decided = True
            for task in pending:
                task.cancel()

    def _is_asked(self, journey: Journey, first: Place) -> bool:
        """Whether the first is being asked: not before it was written down and paid."""
        return any(one.place is first for one in journey.under_way)

    async def _attempt(self, race: _Race, journey: Journey, place: Place) -> None:
        """One of the two; what comes of it is noted in the race."""
        end = _End()
        try:
            end.answered = await self._observed(journey, place)
            end.is_final = end.answered is not None
        except (ProblemError, DatabaseError) as error:
            end.error = error
            end.is_veto = isinstance(error, ProblemError) and error.problem.code == _UNSAFE
            # What is wrong with the second alone does not end the first.
            end.is_final = end.is_veto or place is race.first or not journey.under_way
        except asyncio.CancelledError:
            if not race.is_decided:
                raise
            self._note_outrun(journey, place)
            return
        race.ends.append(end)

    def _note_outrun(self, journey: Journey, place: Place) -> None:
        """It was cancelled, for the other one's end is the request's: no fault of its own."""
        running = next((one for one in journey.under_way if one.place is place), None)
        if running is None:
            return
        seconds = self._means.clock.monotonic() - running.started
        self._means.directory.note_overdue(place.uri, delivery_of(journey, place, seconds))
        self._means.books.end_spare(journey, running.attempt_id, _OUTRUN)
        note_outrun(running.attempt_id)

    async def _observed(self, journey: Journey, place: Place) -> Answered | None:
        """Ask, and learn how long that takes in comparison to what was expected."""
        kind = self._kind(journey.need, place.candidate)
        expected = place.candidate.expected_seconds
        began = self._means.clock.monotonic()
        try:
            answered = await self._attempts.ask(journey, place)
        except asyncio.CancelledError:
            seconds = self._means.clock.monotonic() - began
            self._lateness.learn(kind, seconds, expected, was_cut_off=True)
            raise
        if answered is not None:
            seconds = self._means.clock.monotonic() - began
            self._lateness.learn(kind, seconds, expected, was_cut_off=False)
        return answered

    # Over

    def _alone(self, race: _Race) -> Answered | None:
        (end,) = race.ends
        if end.error is not None:
            raise end.error
        return end.answered

    def _judge(self, race: _Race, journey: Journey) -> Answered | None:
        """The answer that wins. Raises what ended the request."""
        best = None if any(end.is_veto for end in race.ends) else race.best
        good = [end.answered for end in race.ends if end.answered is not None]
        for answered in good:
            if best is None or answered is not best.answered:
                self._attempts.settle_spare(journey, answered, _OUTRUN_BOTH)
                note_outrun(answered.running.attempt_id)
        places = [answered.running.place for answered in good]
        won = None if best is None or best.answered is None else best.answered.running.place
        self._note(
            fate_of(
                first_delivered=race.first in places,
                second_delivered=race.second in places,
                second_won=won is race.second,
            )
        )
        if best is not None:
            return best.answered
        for end in sorted(race.ends, key=lambda end: not end.is_veto):
            if end.error is not None and end.is_final:
                raise end.error
        return None

    def _note(self, fate: Fate) -> None:
        self._fates[fate] += 1
        note_hedge(fate.value)
