"""The life of one call of somebody else's app in our books: place, payment, reservation, settlement.

It is charged when its answer has left whole, and not otherwise. Every path out frees its place and
closes its reservation once.
"""

import asyncio
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeVar

import structlog

from network.errors import DatabaseError, LimnerError
from network.runtime.clock import Clock
from node.accounting.journal import InsufficientBalanceError, Journal, PaymentRefusedError
from node.accounting.model import Credit, Ending, Job, Outcome
from node.jobs.model import JobReport, RepeatedAttemptError

#: Attempt ids remembered, so that a repeated call does not become a second job.
_REMEMBERED: Final = 4096
#: After the grace of a stop, how long cancelled calls get to write down that they ended.
_LAST_WORDS_SECONDS: Final = 5.0

T = TypeVar("T")

log = structlog.get_logger(__name__)


class NoRoomError(LimnerError):
    """As many calls of this app run as may, or the node is about to stop."""


class UpstreamError(LimnerError):
    """The app did not answer, or not to the end. `reason` is a short fixed word."""

    def __init__(self, reason: str, *, is_cut: bool) -> None:
        """`is_cut`: a part of its answer has left already, so that no other can."""
        super().__init__(f"the app failed: {reason}")
        self.reason = reason
        self.is_cut = is_cut


@dataclass(frozen=True, slots=True)
class Place:
    """Where calls are counted: of one runner, at most `capacity` at a time."""

    runner_id: str
    capacity: int


@dataclass(frozen=True, slots=True)
class Delivery(Generic[T]):
    """What left for the payer. `fault`, unless empty, is why it costs nothing all the same."""

    answer: T
    fault: str = ""


@dataclass(slots=True)
class _Active:
    job: Job
    runner_id: str
    task: "asyncio.Task[Any]"
    submitted_at: float
    started_at: float | None = None
    has_place: bool = True
    #: cancelled by `stop`, not by whoever called
    interrupted: bool = False
    #: the answer has left: from here on the call is charged
    settling: bool = False
    ending: Ending = field(default_factory=lambda: Ending(Outcome.FAILED, "internal"))


class AppCalls:
    """Every call of somebody else's app."""

    def __init__(self, journal: Journal, clock: Clock) -> None:
        self._journal = journal
        self._clock = clock
        self._in_use: Counter[str] = Counter()
        self._tallies: dict[str, Counter[str]] = {}
        self._active: dict[str, _Active] = {}
        self._seen: OrderedDict[str, None] = OrderedDict()
        self._observers: list[Callable[[JobReport], None]] = []
        self._stopping = False
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def in_use(self) -> Mapping[str, int]:
        """How many calls each runner has now."""
        return self._in_use

    def tally(self, runner_id: str) -> Mapping[str, int]:
        """How many of a runner's calls ended in which way."""
        return self._tallies.get(runner_id, {})

    def forget_all_but(self, runner_ids: Collection[str]) -> None:
        """Drop the tallies of runners that are gone."""
        for runner_id in [one for one in self._tallies if one not in runner_ids]:
            del self._tallies[runner_id]

    def observe(self, observer: Callable[[JobReport], None]) -> None:
        """Tell `observer` of the end of every call that got a place."""
        self._observers.append(observer)

    def remember(self, attempt_ids: Iterable[str]) -> None:
        """Take no call of these ids: an earlier process had them."""
        for attempt_id in attempt_ids:
            self._remember(attempt_id)

    def was_seen(self, attempt_id: str) -> bool:
        """Whether an attempt of this id would be refused as repeated."""
        return attempt_id in self._seen

    def is_under_way(self, attempt_id: str) -> bool:
        """Whether the attempt is here and has no end yet, written down or not."""
        return attempt_id in self._active

    async def run(
        self,
        job: Job,
        place: Place,
        pay: Callable[[], Awaitable[Credit | None]] | None,
        deliver: Callable[[], Awaitable[Delivery[T]]],
    ) -> T:
        """Do a call; `deliver` returns when the whole answer has left, but for its end.

        So whoever sees the end of an answer may make the next call, and finds this one in the books.

        Raises NoRoomError, RepeatedAttemptError, PaymentRefusedError, InsufficientBalanceError,
        DatabaseError, and what `pay` and `deliver` raise; then, and when the task is cancelled, nothing
        is charged. A DatabaseError after delivery leaves the job open on disk, uncharged.
        """
        if self.was_seen(job.attempt_id):
            raise RepeatedAttemptError(f"job id {job.attempt_id} was used before")
        if self._stopping or self._in_use[place.runner_id] >= place.capacity:
            raise NoRoomError("no capacity available for runner")
        active = _Active(job, place.runner_id, _current_task(), self._clock.monotonic())
        self._remember(job.attempt_id)
        self._active[job.attempt_id] = active
        self._idle.clear()
        self._in_use[place.runner_id] += 1
        try:
            return await self._carry_out(active, pay, deliver)
        finally:
            self._leave(active)
            self._report(active)

    async def stop(self, grace_seconds: float) -> None:
        """Refuse newcomers, let the running finish for a while, cancel the rest."""
        self._stopping = True
        if await self._is_idle_within(grace_seconds):
            return
        for active in [active for active in self._active.values() if not active.settling]:
            active.interrupted = True
            active.task.cancel()
        if not await self._is_idle_within(_LAST_WORDS_SECONDS):
            log.error("calls of apps did not end", count=len(self._active))

    async def _is_idle_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True

    async def _carry_out(
        self,
        active: _Active,
        pay: Callable[[], Awaitable[Credit | None]] | None,
        deliver: Callable[[], Awaitable[Delivery[T]]],
    ) -> T:
        try:
            credit = None if pay is None else await pay()
            await self._journal.reserve(active.job, credit)
            active.started_at = self._clock.monotonic()
            delivery = await deliver()
            self._leave(active)
            if delivery.fault:
                await self._release(active, Outcome.FAILED, delivery.fault)
            else:
                active.settling = True
                active.ending = self._ending(active, Outcome.DELIVERED)
                await self._journal.settle(active.job, active.ending)
        except BaseException as error:
            await self._release(active, *_why(error, interrupted=active.interrupted))
            if isinstance(error, asyncio.CancelledError) and active.interrupted:
                active.task.uncancel()
                raise NoRoomError("the node is about to stop") from None
            raise
        return delivery.answer

    def _leave(self, active: _Active) -> None:
        if active.has_place:
            active.has_place = False
            self._in_use[active.runner_id] -= 1
            self._in_use += Counter()  # drops runners without a call

    async def _release(self, active: _Active, outcome: Outcome, reason: str) -> None:
        """Close a call that is not charged; a second cancellation does not stop the writing.

        One that was cancelled while its settlement was being written stays settled.
        """
        active.ending = self._ending(active, outcome, reason)
        try:
            active.ending = await asyncio.shield(
                self._journal.release(active.job.job_id, active.ending)
            )
        except DatabaseError:
            # The reservation stays open on disk and is closed as interrupted at the next start.
            log.exception("could not write down the end of a call", job_id=active.job.job_id)

    def _ending(self, active: _Active, outcome: Outcome, reason: str = "") -> Ending:
        now = self._clock.monotonic()
        started = now if active.started_at is None else active.started_at
        return Ending(outcome, reason, started - active.submitted_at, now - started)

    def _report(self, active: _Active) -> None:
        del self._active[active.job.attempt_id]
        tally = self._tallies.setdefault(active.runner_id, Counter())
        tally[active.ending.outcome.value] += 1
        if not self._active:
            self._idle.set()
        for observe in self._observers:
            try:
                observe(JobReport(active.job, active.ending))
            except Exception:  # whatever an observer does, the answer goes out
                log.exception("an observer of calls failed", job_id=active.job.job_id)

    def _remember(self, attempt_id: str) -> None:
        self._seen[attempt_id] = None
        if len(self._seen) > _REMEMBERED:
            self._seen.popitem(last=False)


def _why(error: BaseException, *, interrupted: bool) -> tuple[Outcome, str]:
    match error:
        case asyncio.CancelledError():
            return (Outcome.INTERRUPTED if interrupted else Outcome.CANCELLED), ""
        case ConnectionError():
            # the payer's: those to the app are UpstreamErrors
            return Outcome.CANCELLED, ""
        case PaymentRefusedError() | InsufficientBalanceError():
            return Outcome.REFUSED, "payment"
        case UpstreamError(reason=reason):
            return Outcome.FAILED, reason
        case DatabaseError():
            return Outcome.FAILED, "database"
        case _:
            return Outcome.FAILED, "internal"


def _current_task() -> "asyncio.Task[Any]":
    task = asyncio.current_task()
    if task is None:
        raise RuntimeError("a call runs in the task of whoever made it")
    return task
