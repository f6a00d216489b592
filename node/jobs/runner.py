"""Carries out what the board decides, and keeps the books of every job around it.

A job's life is one call of `run` in the task of whoever asked for it: cancelling that task
cancels the job, wherever it is. Every path out frees the slot and closes the reservation once.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Final

import structlog

from network.errors import DatabaseError
from network.runtime.clock import Clock
from network.units import Address, JobId, ModelId
from node.accounting.journal import InsufficientBalanceError, PaymentRefusedError
from node.accounting.model import Credit, Ending, Job, Outcome
from node.engine.backend import Engine
from node.engine.work import EngineBusyError, ImageJob, ImageResult, JobFailedError, Progress
from node.jobs import board as board_module
from node.jobs.board import Board, Instruction, ModelLoad, Policy, Reason, Refuse, Start, Wait
from node.jobs.books import Books
from node.jobs.model import JobProgress, JobReport, NoPlaceError, RepeatedAttemptError
from node.jobs.news import Advanced, Mailbox, Over, Queued
from node.jobs.watching import Watchers

#: Attempt ids remembered, so that a gateway's repeated call does not become a second job.
REMEMBERED_ATTEMPTS: Final = 4096
#: After the grace of a stop, how long cancelled jobs get to write down that they ended.
_LAST_WORDS_SECONDS: Final = 5.0

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Active:
    job: Job
    task: "asyncio.Task[Any]"
    submitted_at: float
    started_at: float | None = None
    progress: Progress | None = None
    #: cancelled by `stop`, not by whoever asked for it
    interrupted: bool = False
    #: on the board, with a place or in the line for one
    has_place: bool = True
    #: the end is decided and being written down; from here on the job must be answered
    settling: bool = False
    ending: Ending = field(default_factory=lambda: Ending(Outcome.FAILED, "internal"))


class JobRunner:
    """Every accepted job of this node."""

    def __init__(
        self,
        engine: Engine,
        journal: Books,
        clock: Clock,
        *,
        capacities: Mapping[ModelId, int],
        policy: Policy,
    ) -> None:
        """`capacities` are the most jobs a model runs at once; all begin with none free."""
        self._engine = engine
        self._journal = journal
        self._clock = clock
        self._capacities = dict(capacities)
        self._board = Board(dict.fromkeys(capacities, 0), policy)
        self._slots: dict[ModelId, tuple[int, bool]] = {}
        self._observers: list[Callable[[JobReport], None]] = []
        self._listeners: list[Callable[[], None]] = []
        self._active: dict[str, _Active] = {}
        #: resolved with None when the slot is there, with the reason when it never will be
        self._waiting: dict[JobId, asyncio.Future[Reason | None]] = {}
        self._watchers = Watchers(engine)
        self._seen: OrderedDict[str, None] = OrderedDict()
        self._stopping = False
        self._idle = asyncio.Event()
        self._idle.set()

    def follow_engine(self) -> Callable[[], None]:
        """Keep the board's slots what the engine can do; returns the way to stop."""
        self._update_slots()
        return self._engine.subscribe(self._update_slots)

    def observe(self, observer: Callable[[JobReport], None]) -> None:
        """Tell `observer` of the end of every accepted job."""
        self._observers.append(observer)

    def subscribe(self, changed: Callable[[], None]) -> Callable[[], None]:
        """Call `changed` whenever places may have been taken or become free; returns the way to stop."""
        self._listeners.append(changed)
        return lambda: self._listeners.remove(changed)

    def places_of(self, payer: Address, model_id: ModelId) -> int:
        """Return how many jobs of an account have a place, or wait for one."""
        return sum(
            active.has_place and active.job.payer == payer and active.job.model_id == model_id
            for active in self._active.values()
        )

    @property
    def is_stopping(self) -> bool:
        """Whether the node takes no job any more."""
        return self._stopping

    def remember(self, attempt_ids: Iterable[str]) -> None:
        """Take no job of these ids: an earlier process had them."""
        for attempt_id in attempt_ids:
            self._remember(attempt_id)

    def is_under_way(self, attempt_id: str) -> bool:
        """Whether the attempt is here and has no end yet, written down or not."""
        return attempt_id in self._active

    def is_settling(self, attempt_id: str) -> bool:
        """Whether the attempt's end is decided and being written down."""
        active = self._active.get(attempt_id)
        return active is not None and active.settling

    def loads(self) -> dict[ModelId, ModelLoad]:
        """Return how busy each model is."""
        return self._board.loads()

    def was_seen(self, attempt_id: str) -> bool:
        """Whether an attempt of this id would be refused as repeated."""
        return attempt_id in self._seen

    def objection(self, model_id: ModelId, width: int, height: int) -> Reason | None:
        """Return why a job of such images would get no place at this moment, or None."""
        if self._is_too_large(model_id, width, height):
            return Reason.OUT_OF_MEMORY
        return self._board.objection(model_id, self._clock.monotonic())

    def progress(self, attempt_id: str) -> JobProgress | None:
        """Return how far a job is; None for one that is over or was never here."""
        active = self._active.get(attempt_id)
        if active is None:
            return None
        total = active.job.steps * active.job.images
        position = self._board.position(active.job.job_id) or 0
        if active.started_at is None:
            return JobProgress("waiting", 0, total, position)
        done = active.progress
        if done is None:
            return JobProgress("running", 0, total, 0)
        return JobProgress("running", done.done_steps, done.total_steps, 0)

    def watch(
        self, attempt_id: str, patience: float
    ) -> AbstractAsyncContextManager[Mailbox | None]:
        """Watch a job, which may arrive within `patience` seconds; None when there is none."""
        # What was seen is here, or over; it will not come again.
        patience = 0.0 if attempt_id in self._seen else patience
        return self._watchers.watch(attempt_id, self.progress, patience)

    async def run(
        self, job: Job, work: ImageJob, pay: Callable[[], Awaitable[Credit | None]] | None = None
    ) -> ImageResult:
        """Do a job: place, payment, reservation, images, settlement; return when it is charged durably.

        `pay` looks at the payment that came with it, which a job without a place has no use for. Raises
        NoPlaceError, RepeatedAttemptError, PaymentRefusedError, InsufficientBalanceError,
        EngineBusyError, JobFailedError, DatabaseError; then, and when the task is cancelled, nothing is
        charged.
        """
        if self.was_seen(job.attempt_id):
            raise RepeatedAttemptError(f"job id {job.attempt_id} was used before")
        place = self._submit(job)
        active = _Active(job, _current_task(), self._clock.monotonic())
        if isinstance(place, Wait):
            self._waiting[job.job_id] = asyncio.get_running_loop().create_future()
        self._remember(job.attempt_id)
        self._active[job.attempt_id] = active
        self._idle.clear()
        self._changed()
        self._watchers.begin(job.attempt_id, job.job_id)
        try:
            return await self._carry_out(active, work, place, pay)
        finally:
            self._leave(active)
            self._report(active)

    async def stop(self, grace_seconds: float) -> None:
        """Refuse newcomers and the waiting, let the running finish for a while, cancel the rest."""
        self._stopping = True
        self._apply(self._board.handle(board_module.Closing()))
        if await self._is_idle_within(grace_seconds):
            return
        for active in [active for active in self._active.values() if not active.settling]:
            active.interrupted = True
            active.task.cancel()
        if not await self._is_idle_within(_LAST_WORDS_SECONDS):
            log.error("jobs did not end", count=len(self._active))

    async def _is_idle_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True

    def _submit(self, job: Job) -> Start | Wait:
        if self._is_too_large(job.model_id, job.width, job.height):
            raise NoPlaceError(Reason.OUT_OF_MEMORY)
        state = self._engine.model(job.model_id)
        expected = 0.0
        if state is not None:
            expected = (state.pace or 0.0) * job.pixels * job.steps
            if state.status == "cold":
                expected += state.seconds_to_ready
        event = board_module.Submitted(job.job_id, job.model_id, expected, self._clock.monotonic())
        (place,) = self._board.handle(event)
        if isinstance(place, Refuse):
            raise NoPlaceError(place.reason)
        return place

    def _is_too_large(self, model_id: ModelId, width: int, height: int) -> bool:
        state = self._engine.model(model_id)
        refused = None if state is None else state.refused_pixels
        return refused is not None and width * height >= refused

    async def _carry_out(
        self,
        active: _Active,
        work: ImageJob,
        place: Start | Wait,
        pay: Callable[[], Awaitable[Credit | None]] | None,
    ) -> ImageResult:
        try:
            credit = None if pay is None else await pay()
            await self._journal.reserve(active.job, credit)
            if isinstance(place, Wait):
                await self._wait(active, place)
            result = await self._generate(active, work)
            self._leave(active)
            active.settling = True
            active.ending = self._ending(active, Outcome.DELIVERED)
            await self._journal.settle(active.job, active.ending)
        except BaseException as error:
            active.settling = True
            await self._release(active, *self._why(active, error))
            if isinstance(error, asyncio.CancelledError) and active.interrupted:
                # The gateway is still there: tell it to go elsewhere instead of hanging up.
                active.task.uncancel()
                raise NoPlaceError(Reason.CLOSING) from None
            raise
        return result

    async def _wait(self, active: _Active, place: Wait) -> None:
        future = self._waiting[active.job.job_id]
        # asyncio.wait leaves the future alone when time is up; a timeout would cancel it, and
        # with it a start that was decided in the same moment.
        await asyncio.wait([future], timeout=max(0.0, place.until - self._clock.monotonic()))
        if not future.done():
            self._apply(self._board.handle(board_module.WaitExpired(active.job.job_id)))
        reason = future.result()
        if reason is not None:
            raise NoPlaceError(reason)

    async def _generate(self, active: _Active, work: ImageJob) -> ImageResult:
        active.started_at = self._clock.monotonic()

        def on_progress(progress: Progress) -> None:
            active.progress = progress
            advanced = Advanced(progress.done_steps, progress.total_steps)
            self._watchers.tell(active.job.attempt_id, advanced)

        return await self._engine.generate(work, on_progress)

    async def _release(self, active: _Active, outcome: Outcome, reason: str) -> None:
        """Close a job that is not charged; a second cancellation does not stop the writing."""
        self._leave(active)
        # A job cancelled while its settlement was being written stays settled: the journal
        # tells which of the two came first.
        active.ending = self._ending(active, outcome, reason)
        try:
            active.ending = await asyncio.shield(
                self._journal.release(active.job.job_id, active.ending)
            )
        except DatabaseError:
            # The reservation stays open on disk and is closed as interrupted at the next start.
            log.exception("could not write down the end of a job", job_id=active.job.job_id)

    def _why(self, active: _Active, error: BaseException) -> tuple[Outcome, str]:
        match error:
            case asyncio.CancelledError():
                return (Outcome.INTERRUPTED if active.interrupted else Outcome.CANCELLED), ""
            case NoPlaceError(reason=reason):
                return Outcome.REFUSED, reason
            case PaymentRefusedError() | InsufficientBalanceError() | EngineBusyError():
                is_busy = isinstance(error, EngineBusyError)
                return Outcome.REFUSED, "engine_busy" if is_busy else "payment"
            case JobFailedError(kind=kind):
                return Outcome.FAILED, kind
            case DatabaseError():
                return Outcome.FAILED, "database"
            case _:
                return Outcome.FAILED, "internal"

    def _ending(self, active: _Active, outcome: Outcome, reason: str = "") -> Ending:
        now = self._clock.monotonic()
        started = now if active.started_at is None else active.started_at
        return Ending(outcome, reason, started - active.submitted_at, now - started)

    def _leave(self, active: _Active) -> None:
        job_id = active.job.job_id
        active.has_place = False
        self._waiting.pop(job_id, None)
        # A second time changes nothing: the job is off the board.
        self._apply(self._board.handle(board_module.Ended(job_id, self._clock.monotonic())))
        self._changed()

    def _report(self, active: _Active) -> None:
        del self._active[active.job.attempt_id]
        self._watchers.end(active.job.attempt_id, Over.of(active.ending))
        if not self._active:
            self._idle.set()
        for observe in self._observers:
            try:
                observe(JobReport(active.job, active.ending))
            except Exception:  # whatever an observer does, the job's result goes out
                log.exception("an observer of jobs failed", job_id=active.job.job_id)

    def _apply(self, instructions: tuple[Instruction, ...]) -> None:
        for instruction in instructions:
            future = self._waiting.get(instruction.job_id)
            if future is None or future.done():
                continue
            reason = instruction.reason if isinstance(instruction, Refuse) else None
            future.set_result(reason)
        for attempt_id in self._watchers.watched():
            progress = self.progress(attempt_id)
            if progress is not None and progress.position:
                self._watchers.tell(attempt_id, Queued(progress.position))

    def _remember(self, attempt_id: str) -> None:
        self._seen[attempt_id] = None
        if len(self._seen) > REMEMBERED_ATTEMPTS:
            self._seen.popitem(last=False)

    def _update_slots(self) -> None:
        for model_id, capacity in self._capacities.items():
            state = self._engine.model(model_id)
            usable = state is not None and state.status != "failed"
            # A model that loads takes nobody: a job waits on the board, where its wait has a
            # bound. A cold one is loaded by the first job that gets a slot.
            up = usable and self._engine.healthy() and state is not None
            slots = capacity if up and state is not None and state.status != "loading" else 0
            if self._slots.get(model_id) != (slots, usable):
                self._slots[model_id] = (slots, usable)
                event = board_module.SlotsChanged(
                    model_id, slots, usable=usable, now=self._clock.monotonic()
                )
                self._apply(self._board.handle(event))
                self._changed()

    def _changed(self) -> None:
        for changed in self._listeners:
            changed()


def _current_task() -> "asyncio.Task[Any]":
    task = asyncio.current_task()
    if task is None:
        raise RuntimeError("a job runs in the task of whoever asked for it")
    return task
