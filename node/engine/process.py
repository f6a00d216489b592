"""The engine's side of its worker process: keeps one alive, sends it jobs, survives its death."""

import asyncio
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import structlog

from network.runtime.clock import Clock
from network.units import JobId, ModelId
from node.engine.audience import Audience
from node.engine.entry import Entry
from node.engine.launch import WorkerProcess, launch, worker_environment
from node.engine.liveness import Patience, Signs, hang_reason, restart_delay
from node.engine.models import Models
from node.engine.options import NO_CHECKER, EngineOptions, SafetyOptions
from node.engine.protocol import (
    HEADER_BYTES,
    Activity,
    Beat,
    Cancel,
    ChannelError,
    CheckerChanged,
    Dying,
    Failed,
    FromWorker,
    Hello,
    ImageDone,
    ModelChanged,
    Previewed,
    Setup,
    Started,
    Stepped,
    Submit,
    Warned,
    Watch,
    body_length,
    decode_from_worker,
    encode_frame,
)
from node.engine.recovery import after_crash, to_send
from node.engine.vitals import is_stirring
from node.engine.work import (
    EngineBusyError,
    FailureKind,
    ImageJob,
    ImageResult,
    JobFailedError,
    LoraSpec,
    ModelSpec,
    ModelState,
    Preview,
    Progress,
    SafetyState,
    Tally,
)

_log = structlog.get_logger("node.engine")

_WATCH_INTERVAL = 0.5  # seconds
_OVERDUE = 1.5  # seconds without a message, after which the worker is looked at from outside


class _WorkerLostError(Exception):
    """The worker died or must be given up; the message says why."""


@dataclass(slots=True)
class _Link:
    """The present worker. `device` is None until it has said hello."""

    worker: WorkerProcess
    signs: Signs
    born_at: float
    device: str | None = None
    resident_bytes: int = 0


class ProcessEngine:
    """Implements `backend.Engine`; `run` must run for as long as it is used."""

    def __init__(
        self,
        specs: Sequence[ModelSpec],
        device: str,
        clock: Clock,
        options: EngineOptions,
        command: Sequence[str],
        *,
        loras: Sequence[LoraSpec] = (),
    ) -> None:
        self._models = Models(specs, attempts=options.attempts, forget_after=options.forget_after)
        self._loras = tuple(loras)
        self._device = device
        self._clock = clock
        self._options = options
        self._command = tuple(command)
        self._safety = _first_safety(options.safety)
        self._entries: dict[int, Entry] = {}
        self._last_ticket = 0
        self._link: _Link | None = None
        self._closed = False
        self._failed_starts = 0
        self._crashes_in_row = 0
        self._watchers: list[Callable[[], None]] = []
        self._tally = Tally()
        self._audience = Audience(self._tell_worker_who_is_watched)

    def models(self) -> tuple[ModelState, ...]:
        return self._models.all()

    def model(self, model_id: ModelId) -> ModelState | None:
        return self._models.get(model_id)

    def healthy(self) -> bool:
        link = self._link
        if link is None or link.device is None or self._closed:
            return False
        if self._safety.status == "failed":
            return False  # whoever was promised checked images is better served elsewhere
        silence = self._clock.monotonic() - link.signs.heard_at
        return silence <= self._options.hang_after

    def worker_pid(self) -> int | None:
        return None if self._link is None else self._link.worker.pid

    def resident_bytes(self) -> int:
        return 0 if self._link is None else self._link.resident_bytes

    def tally(self) -> Tally:
        return self._tally

    def safety(self) -> SafetyState:
        return self._safety

    def subscribe(self, changed: Callable[[], None]) -> Callable[[], None]:
        self._watchers.append(changed)
        return lambda: self._watchers.remove(changed)

    def watch(self, job_id: JobId, on_preview: Callable[[Preview], None]) -> Callable[[], None]:
        return self._audience.join(job_id, on_preview)

    async def generate(
        self, job: ImageJob, on_progress: Callable[[Progress], None]
    ) -> ImageResult:
        if self._models.get(job.model_id) is None:
            raise JobFailedError(
                FailureKind.INVALID, f"There is no model {job.model_id} on this node."
            )
        if self._closed or len(self._entries) >= self._options.max_jobs:
            raise EngineBusyError("The engine takes no more jobs now.")
        _refuse_unsendable(job)
        self._last_ticket += 1
        ended: asyncio.Future[ImageResult] = asyncio.get_running_loop().create_future()
        entry = Entry(self._last_ticket, job, on_progress, ended)
        self._entries[entry.ticket] = entry
        self._send_jobs()
        images = len(job.seeds)
        try:
            result = await ended
        except asyncio.CancelledError:
            self._tally = replace(self._tally, cancelled=self._tally.cancelled + images)
            if self._link is not None and entry.sent:
                self._link.worker.send(Cancel(entry.ticket))
            raise
        except Exception:
            self._tally = replace(self._tally, failed=self._tally.failed + images)
            raise
        else:
            self._tally = replace(self._tally, done=self._tally.done + images)
            return result
        finally:
            del self._entries[entry.ticket]
            if self._link is not None and entry.sent and self._audience.watches(job.job_id):
                self._link.worker.send(Watch(entry.ticket, wanted=False))
            self._send_jobs()

    def close(self) -> None:
        """Take no more jobs and fail those there are; `run` is then to be cancelled."""
        self._closed = True
        for entry in self._entries.values():
            entry.fail(EngineBusyError("The engine is closing."))

    async def run(self) -> None:
        """Keep a worker running until cancelled."""
        while True:
            born_at = self._clock.monotonic()
            reason = await self._run_worker()
            if self._clock.monotonic() - born_at > self._options.steady_after:
                self._crashes_in_row = 0
            self._crashes_in_row += 1
            self._recover(reason)
            delay = restart_delay(
                self._crashes_in_row,
                self._options.restart_backoff,
                self._options.restart_backoff_cap,
            )
            await asyncio.sleep(delay)

    async def _run_worker(self) -> str:
        """Run one worker to its end, which is never wanted; returns why it ended."""
        environment = worker_environment(
            os.environ, self._options.threads, self._options.compiled_dir
        )
        try:
            worker = await launch(self._command, environment)
        except OSError as error:
            return f"the worker cannot be started: {error}"
        now = self._clock.monotonic()
        beginning = Activity("starting", 0.0, self._options.longest_load, kind="read")
        self._link = link = _Link(worker, Signs(now, (beginning,), now), now)
        reason = ""
        try:
            worker.send(
                Setup.of(self._models.for_worker(), self._device, self._options, self._loras)
            )
            self._send_jobs()
            async with asyncio.TaskGroup() as group:
                group.create_task(self._listen(link))
                group.create_task(self._watch(link))
                group.create_task(link.worker.log_output())
        except* _WorkerLostError as lost:
            reason = str(lost.exceptions[0])
        finally:
            self._link = None
            if not self._closed:
                worker.kill()
            ending = await worker.end()
        return f"{reason} ({ending})"

    async def _listen(self, link: _Link) -> None:
        reader = link.worker.reader
        while True:
            try:
                length = body_length(await reader.readexactly(HEADER_BYTES))
                message = decode_from_worker(await reader.readexactly(length))
            except (asyncio.IncompleteReadError, ConnectionError):
                raise _WorkerLostError("the worker died") from None
            except ChannelError as error:
                raise _WorkerLostError(str(error)) from None
            self._take(link, message)

    async def _watch(self, link: _Link) -> None:
        """Look whether the worker hangs, at its beginning included."""
        patience = Patience(self._options.hang_after, self._options.still_after)
        while True:
            before = self._clock.monotonic()
            await asyncio.sleep(_WATCH_INTERVAL)
            now = self._clock.monotonic()
            if now - before > 2 * _WATCH_INTERVAL + self._options.hang_after / 2:
                # We ourselves were held up (a suspended laptop): its messages wait unread.
                link.signs = replace(link.signs, heard_at=now)
                continue
            if self._models.forget_refused_sizes(now):
                self._tell_watchers()
            if now - link.signs.heard_at > _OVERDUE and await asyncio.to_thread(
                is_stirring, link.worker.pid
            ):
                link.signs = replace(link.signs, stirred_at=now)
            reason = hang_reason(link.signs, now, patience)
            if reason is not None:
                link.worker.kill()
                raise _WorkerLostError(f"the worker hangs: {reason}")

    def _take(self, link: _Link, message: FromWorker) -> None:
        link.signs = replace(link.signs, heard_at=self._clock.monotonic())
        match message:
            case Beat():
                link.signs = replace(link.signs, activities=message.activities)
                link.resident_bytes = message.resident_bytes
                self._count_steps(message)
            case Hello():
                link.device = message.device
                self._failed_starts = 0
                _log.info(
                    "engine.ready",
                    device=message.device,
                    threads=message.threads,
                    pid=link.worker.pid,
                    seconds=round(self._clock.monotonic() - link.born_at, 2),
                )
                self._tell_watchers()
            case ModelChanged():
                self._take_state(message.state)
            case CheckerChanged():
                self._take_safety(message)
            case Dying():
                raise _WorkerLostError(f"the device failed: {message.reason}")
            case Previewed():
                entry = self._entries.get(message.ticket)
                if entry is not None and not entry.ended.done():
                    job_id = entry.job.job_id
                    self._audience.show(Preview(job_id, message.index, message.step, message.jpeg))
            case Started() | Warned() | Stepped() | ImageDone() | Failed():
                entry = self._entries.get(message.ticket)
                if entry is not None and not entry.ended.done():
                    entry.take(message)

    def _count_steps(self, beat: Beat) -> None:
        if beat.batches:
            batches = Counter(self._tally.batches)
            batches.update(beat.batches)
            seconds = self._tally.step_seconds + beat.step_seconds
            self._tally = replace(self._tally, batches=dict(batches), step_seconds=seconds)

    def _take_state(self, state: ModelState) -> None:
        if self._models.take(state, self._clock.monotonic()):
            _log.info(
                "engine.model",
                model=state.model_id,
                status=state.status,
                detail=state.detail,
                load_seconds=state.load_seconds,
            )
        self._tell_watchers()

    def _take_safety(self, message: CheckerChanged) -> None:
        self._safety = replace(self._safety, status=message.status, detail=message.detail)
        tell = _log.error if message.status == "failed" else _log.info
        tell(
            "engine.safety",
            checker=self._safety.checker,
            status=message.status,
            detail=message.detail,
        )
        self._tell_watchers()

    def _tell_watchers(self) -> None:
        for changed in tuple(self._watchers):
            changed()

    def _send_jobs(self) -> None:
        link = self._link
        if link is None:
            return
        standings = [e.standing for e in self._entries.values() if not e.ended.done()]
        for ticket in to_send(standings):
            entry = self._entries[ticket]
            entry.sent = True
            entry.base = entry.job.steps * len(entry.images)
            link.worker.send(Submit(ticket, entry.job, entry.wanted))
            if self._audience.watches(entry.job.job_id):
                link.worker.send(Watch(ticket, wanted=True))

    def _tell_worker_who_is_watched(self, job_id: JobId) -> None:
        for entry in self._entries.values():
            if self._link is not None and entry.sent and entry.job.job_id == job_id:
                wanted = self._audience.watches(job_id)
                self._link.worker.send(Watch(entry.ticket, wanted))

    def _recover(self, reason: str) -> None:
        """Sort the jobs of a worker that died, and say that there is none now."""
        _log.error("engine.worker_lost", reason=reason, row=self._crashes_in_row)
        standings = [e.standing for e in self._entries.values() if not e.ended.done()]
        aftermath = after_crash(standings, self._options.attempts)
        for ticket in aftermath.convicted:
            self._fail_crashed(ticket, "The worker process died under this job, repeatedly.")
        for ticket in aftermath.suspected:
            self._entries[ticket].crashes += 1
        for entry in self._entries.values():
            entry.sent = entry.running = False
        self._failed_starts += 1
        if self._failed_starts >= self._options.start_attempts:
            for ticket in tuple(self._entries):
                self._fail_crashed(ticket, "The worker process does not start.")
        self._safety = _first_safety(self._options.safety)
        self._models.worker_lost()
        self._tell_watchers()

    def _fail_crashed(self, ticket: int, message: str) -> None:
        self._entries[ticket].fail(JobFailedError(FailureKind.WORKER_CRASHED, message))


def _refuse_unsendable(job: ImageJob) -> None:
    """Raise JobFailedError for what no frame can carry, before it could disturb other jobs."""
    try:
        encode_frame(Submit(0, job, ()))
    except (OverflowError, TypeError, UnicodeEncodeError, ChannelError) as error:
        raise JobFailedError(
            FailureKind.INVALID,
            f"The job holds a text or a number that cannot be carried: {type(error).__name__}.",
        ) from None


def _first_safety(options: SafetyOptions) -> SafetyState:
    status: Literal["off", "loading"] = "off" if options.checker == NO_CHECKER else "loading"
    return SafetyState(options.name, options.policy, status)
