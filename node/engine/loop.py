"""The worker's step loop: takes jobs in, steps their samples in turn, hands them to be finished.

One thread owns everything here. Others reach it through the inbox, and through the set of
cancelled tickets, which the channel's reader fills the moment a cancellation arrives.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from network.units import ModelId
from node.engine.canary import Canary
from node.engine.channel import Inbox
from node.engine.families.base import Family, InvalidJobError, SampleCancelledError, warnings_of
from node.engine.faults import Fault, classify
from node.engine.finisher import Delivered, Denoised, Finisher
from node.engine.liveness import step_allowance
from node.engine.planner import Runnable, plan
from node.engine.protocol import (
    Cancel,
    Failed,
    FromWorker,
    Started,
    Stepped,
    Stop,
    Submit,
    Warned,
)
from node.engine.shelf import ModelUnavailableError, Shelf
from node.engine.turn_log import TurnLog
from node.engine.work import FailureKind, ImageJob

_PROGRESS_INTERVAL = 0.05  # seconds between two progress messages of a job

Event = Submit | Cancel | Stop | Delivered


@dataclass(slots=True)
class _Work:
    """A job in the worker. `live` counts samples being stepped or finished."""

    ticket: int
    job: ImageJob
    pending: deque[int]
    prompt: Any = None
    started: bool = False
    live: int = 0
    last_turn: int = -1
    done: dict[int, int] = field(default_factory=dict)
    reported_at: float = float("-inf")


@dataclass(slots=True)
class _Active:
    """A sample among the steps."""

    work: _Work
    index: int
    family: Family
    sample: Any
    seconds: float = 0.0


def _no_preview(ticket: int, index: int, job: ImageJob, family: Family, sample: Any) -> None:
    """Show nothing."""


class DevicePoisonedError(Exception):
    """The device's state is beyond repair; only a new process helps."""


class StepLoop:
    """Steps samples until told to stop. Raises DevicePoisonedError out of `run`."""

    def __init__(
        self,
        *,
        inbox: Inbox[Event],
        cancelled: set[int],
        send: Callable[[FromWorker], None],
        shelf: Shelf,
        finisher: Finisher,
        canary: Canary,
        max_active_samples: int,
        longest_step: float,
        monotonic: Callable[[], float],
        relieve: Callable[[], None],
        preview: Callable[[int, int, ImageJob, Family, Any], None] = _no_preview,
        turns: TurnLog | None = None,
    ) -> None:
        """`preview` gets ticket, image index, job, family and sample after each step."""
        self._inbox = inbox
        self._cancelled = cancelled
        self._send = send
        self._shelf = shelf
        self._finisher = finisher
        self._canary = canary
        self._max_active = max_active_samples
        self._longest_step = longest_step
        self._monotonic = monotonic
        self._relieve = relieve
        self._preview = preview
        self._turn_log = turns or TurnLog()
        self._works: dict[int, _Work] = {}
        self._active: dict[int, _Active] = {}
        self._finishing = 0
        self._turn = 0
        self._samples_begun = 0

    def run(self) -> None:
        """Load the warm models, then work until a Stop arrives."""
        for model_id in self._shelf.cold_warm_models():
            try:
                self._shelf.get(model_id)
            except ModelUnavailableError:
                continue  # its state says why, and so will every job that asks for it
        while self._take_events():
            self._drop_cancelled()
            self._admit()
            self._take_turn()

    def _take_events(self) -> bool:
        wait = not self._active and not self._next_pending()
        if wait and not self._finishing:
            self._relieve()
        for event in self._inbox.take(wait=wait):
            match event:
                case Stop():
                    return False
                case Submit():
                    work = _Work(event.ticket, event.job, deque(event.wanted))
                    self._works[event.ticket] = work
                case Cancel():
                    self._cancelled.add(event.ticket)
                    if event.ticket not in self._works:
                        self._cancelled.discard(event.ticket)
                case Delivered():
                    self._settle(event)
        return True

    def _settle(self, delivered: Delivered) -> None:
        self._finishing -= 1
        work = self._works[delivered.ticket]
        work.live -= 1
        if delivered.error is not None:
            self._fail(work, classify(delivered.error, work.job))
        if not work.live and not work.pending:
            self._forget(work)

    def _forget(self, work: _Work) -> None:
        self._works.pop(work.ticket, None)
        self._cancelled.discard(work.ticket)

    def _drop_cancelled(self) -> None:
        if not self._cancelled:
            return
        for work in [work for ticket, work in self._works.items() if ticket in self._cancelled]:
            self._drop(work)

    def _drop(self, work: _Work) -> None:
        """Give up a job's samples; those being finished drop out by themselves."""
        work.pending.clear()
        for number in [n for n, active in self._active.items() if active.work is work]:
            del self._active[number]
            work.live -= 1
        if not work.live:
            self._forget(work)

    def _fail(self, work: _Work, fault: Fault) -> None:
        """Tell that a job failed, unless that was told or it was cancelled meanwhile."""
        if work.ticket not in self._cancelled:
            self._send(Failed(work.ticket, fault.kind, fault.message))
            self._cancelled.add(work.ticket)
        self._drop(work)
        if fault.poisoned:
            raise DevicePoisonedError(fault.message)
        if fault.kind is FailureKind.OUT_OF_MEMORY:
            self._relieve()

    def _next_pending(self) -> _Work | None:
        if len(self._active) + self._finishing >= self._max_active:
            return None
        return next((work for work in self._works.values() if work.pending), None)

    def _admit(self) -> None:
        while (work := self._next_pending()) is not None:
            if work.ticket in self._cancelled:
                self._drop(work)
                continue
            try:
                self._begin_sample(work)
            except ModelUnavailableError as error:
                self._fail(work, Fault(FailureKind.INTERNAL, str(error)))
            except Exception as error:  # noqa: BLE001  torch raises anything
                self._fail(work, classify(error, work.job))

    def _begin_sample(self, work: _Work) -> None:
        job = work.job
        in_use = {active.work.job.model_id for active in self._active.values()}
        family = self._shelf.get(job.model_id, in_use)
        if not work.started:
            # From here on the job may be what kills this process; the engine keeps that in mind.
            self._send(Started(work.ticket))
            work.started = True
        self._canary.note("steps", "preparing an image", self._longest_step)
        try:
            if work.prompt is None:
                _use_loras(family, job)
                work.prompt = family.encode(job)
                if warnings := warnings_of(work.prompt):
                    self._send(Warned(work.ticket, warnings))
            index = work.pending[0]
            sample = family.start(job, work.prompt, job.seeds[index])
        finally:
            self._canary.rest("steps")
        work.pending.popleft()
        work.live += 1
        self._active[self._samples_begun] = _Active(work, index, family, sample)
        self._samples_begun += 1

    def _take_turn(self) -> None:
        group = plan([self._runnable(n, active) for n, active in self._active.items()])
        if group is None:
            return
        members = [self._active[number] for number in group.samples]
        self._turn += 1
        seconds = self._step(members)
        self._turn_log.note(len(members), seconds)
        for number, active in zip(group.samples, members, strict=True):
            active.work.last_turn = self._turn
            active.seconds += seconds / len(members)
            if number not in self._active:
                continue  # its job failed or was cancelled in this step
            self._note_progress(active)
            if active.sample.finished:
                self._hand_over(number, active)

    def _runnable(self, number: int, active: _Active) -> Runnable:
        return Runnable(
            sample=number,
            job=active.work.ticket,
            key=(active.work.job.model_id, active.work.job.lora_set, active.sample.key),
            alone=active.family.alone,
            last_turn=active.work.last_turn,
        )

    def _step(self, members: list[_Active]) -> float:
        """Advance a group; returns the seconds it took. A failure fails all of the group's jobs."""
        lead = members[0]
        began = self._monotonic()
        allowed = self._allowance(members)
        self._canary.note("steps", "denoising", allowed)

        def checkpoint(done: int) -> bool:
            del done
            self._canary.note("steps", "denoising", allowed)
            self._note_progress(lead)
            return lead.work.ticket not in self._cancelled

        try:
            _use_loras(lead.family, lead.work.job)
            lead.family.step([active.sample for active in members], checkpoint)
        except SampleCancelledError:
            self._drop(lead.work)
        except Exception as error:  # noqa: BLE001  torch raises anything
            for active in members:
                self._fail(active.work, classify(error, active.work.job))
        finally:
            self._canary.rest("steps")
        return self._monotonic() - began

    def _allowance(self, members: list[_Active]) -> float:
        job = members[0].work.job
        pace = self._shelf.pace(job.model_id)
        # A pipeline that runs whole goes from callback to callback, encoding and decoding between.
        if pace is None or members[0].family.alone:
            return self._longest_step
        return step_allowance(pace * job.width * job.height * len(members), self._longest_step)

    def _note_progress(self, active: _Active) -> None:
        work = active.work
        self._preview(work.ticket, active.index, work.job, active.family, active.sample)
        work.done[active.index] = active.sample.done
        now = self._monotonic()
        done = sum(work.done.values())
        all_done = done >= work.job.steps * len(work.job.seeds)
        if all_done or now - work.reported_at >= _PROGRESS_INTERVAL:
            work.reported_at = now
            self._send(Stepped(work.ticket, done))

    def _hand_over(self, number: int, active: _Active) -> None:
        del self._active[number]
        job = active.work.job
        self._finishing += 1
        self._finisher.put(
            Denoised(
                active.work.ticket,
                active.index,
                active.family,
                active.sample,
                job.safety_check,
                active.seconds,
            )
        )
        self._shelf.note_pace(
            ModelId(job.model_id), active.seconds / (job.width * job.height * job.steps)
        )


def _use_loras(family: Family, job: ImageJob) -> None:
    if family.loras is not None:
        family.loras.activate(job.lora_set)
    elif job.lora_set:
        names = ", ".join(name for name, _ in job.lora_set)
        raise InvalidJobError(f"This model takes no LoRAs; asked for: {names}.")
