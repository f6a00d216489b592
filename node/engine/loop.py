"""The worker's step loop: takes jobs in, steps their samples in turn, hands them to be finished.

One thread owns everything here. Others reach it through the inbox, and through the set of
cancelled tickets, which the channel's reader fills the moment a cancellation arrives.
"""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from network.units import ModelId
from node.engine.canary import Canary
from node.engine.channel import Inbox
from node.engine.families.base import Family, InvalidJobError, SampleCancelledError, warnings_of
from node.engine.faults import Fault, classify
from node.engine.finisher import Delivered, Denoised, Finisher
from node.engine.loader import Loaded
from node.engine.prompt_cache import PromptCache, prompt_key
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
from node.engine.turns import Active, Turn, Turns, Work
from node.engine.work import FailureKind, ImageJob

_PROGRESS_INTERVAL = 0.05  # seconds between two progress messages of a job
_SAVE_INTERVAL = 60.0  # seconds between two notes of what was measured, while there is no rest
_THREAD = "steps"

Event = Submit | Cancel | Stop | Delivered | Loaded


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
        turns: Turns,
        prompts: PromptCache,
        max_active_samples: int,
        longest_step: float,
        monotonic: Callable[[], float],
        relieve: Callable[[], None],
        preview: Callable[[int, int, ImageJob, Family, Any], None] = _no_preview,
        tidy_after: float = 1.0,
    ) -> None:
        """`preview` gets ticket, image index, job, family and sample after each step.

        After `tidy_after` seconds without a job memory is given back, and what was measured is
        saved: the next job would pay for it if that came at once.
        """
        self._inbox = inbox
        self._cancelled = cancelled
        self._send = send
        self._shelf = shelf
        self._finisher = finisher
        self._canary = canary
        self._turns = turns
        self._prompts = prompts
        self._max_active = max_active_samples
        self._longest_step = longest_step
        self._monotonic = monotonic
        self._relieve = relieve
        self._preview = preview
        self._tidy_after = tidy_after
        self._works: dict[int, Work] = {}
        self._active: dict[int, Active] = {}
        self._finishing = 0
        self._samples_begun = 0
        self._saved_at = monotonic()

    def run(self) -> None:
        """Have the warm models loaded, and work until a Stop arrives."""
        self._shelf.load_warm()
        while self._take_events():
            self._drop_cancelled()
            self._admit()
            self._take_turn()

    def _wait(self) -> Sequence[Event]:
        """Wait for something to do, and tidy up if it is long in coming."""
        self._canary.rest(_THREAD)
        events = self._inbox.take(wait=True, seconds=self._tidy_after)
        if events:
            return events
        with self._canary.at(_THREAD, "tidying up", self._longest_step, kind="read"):
            if not self._finishing:
                self._relieve()
            self._save()
        return self._inbox.take(wait=True)

    def _save(self) -> None:
        self._turns.save()
        self._saved_at = self._monotonic()

    def _take_events(self) -> bool:
        if not self._active and not self._next_pending():
            events = self._wait()
        else:
            events = self._inbox.take(wait=False)
            if self._monotonic() - self._saved_at > _SAVE_INTERVAL:
                self._save()
        self._canary.note(_THREAD, "between two steps", self._longest_step)
        for event in events:
            match event:
                case Stop():
                    return False
                case Submit():
                    pending = deque(event.wanted)
                    work = Work(event.ticket, event.job, pending, len(pending))
                    self._works[event.ticket] = work
                case Cancel():
                    self._cancelled.add(event.ticket)
                    if event.ticket not in self._works:
                        self._cancelled.discard(event.ticket)
                case Delivered():
                    self._settle(event)
                case Loaded():
                    self._shelf.take(event)
        return True

    def _settle(self, delivered: Delivered) -> None:
        self._finishing -= 1
        work = self._works[delivered.ticket]
        work.live -= 1
        if delivered.error is not None:
            self._fail(work, classify(delivered.error, work.job))
        if not work.live and not work.pending:
            self._forget(work)

    def _forget(self, work: Work) -> None:
        self._works.pop(work.ticket, None)
        self._cancelled.discard(work.ticket)

    def _drop_cancelled(self) -> None:
        if not self._cancelled:
            return
        for work in [work for ticket, work in self._works.items() if ticket in self._cancelled]:
            self._drop(work)

    def _drop(self, work: Work) -> None:
        """Give up a job's samples; those being finished drop out by themselves."""
        work.pending.clear()
        self._ask_again()
        for number in [n for n, active in self._active.items() if active.work is work]:
            del self._active[number]
            work.live -= 1
        if not work.live:
            self._forget(work)

    def _fail(self, work: Work, fault: Fault) -> None:
        """Tell that a job failed, unless that was told or it was cancelled meanwhile."""
        if work.ticket not in self._cancelled:
            self._send(Failed(work.ticket, fault.kind, fault.message))
            self._cancelled.add(work.ticket)
        self._drop(work)
        if fault.poisoned:
            raise DevicePoisonedError(fault.message)
        if fault.kind is FailureKind.OUT_OF_MEMORY:
            self._free_memory()

    def _free_memory(self) -> None:
        self._prompts.clear()
        self._relieve()

    def _next_pending(self) -> Work | None:
        """Return the oldest job that waits for nothing but room, if all of its images have it.

        A job's images start together. One that asks for more than there is room for in all has
        the worker for itself.
        """
        works = self._works.values()
        work = next((work for work in works if work.pending and not work.held_up), None)
        taken = len(self._active) + self._finishing
        if work is None or (taken and taken + len(work.pending) > self._max_active):
            return None
        return work

    def _ask_again(self) -> None:
        """Let every job ask for its model: one may have come, or its room been freed."""
        for work in self._works.values():
            work.held_up = False

    def _admit(self) -> None:
        """Let jobs in, for about as long as a step takes: encoding must not hold up the steps."""
        began = self._monotonic()
        self._ask_again()
        self._shelf.begin_round({w.job.model_id for w in self._works.values() if w.live})
        while (work := self._next_pending()) is not None:
            if work.ticket in self._cancelled:
                self._drop(work)
                continue
            try:
                self._begin(work)
            except ModelUnavailableError as error:
                self._fail(work, Fault(FailureKind.INTERNAL, str(error)))
            except Exception as error:  # noqa: BLE001  torch raises anything
                self._fail(work, classify(error, work.job))
            if self._active and self._monotonic() - began > self._turns.last_seconds:
                return

    def _begin(self, work: Work) -> None:
        job = work.job
        family = self._shelf.ask(job.model_id)
        if family is None:
            work.held_up = True
            return
        if not work.started:
            # From here on the job may be what kills this process; the engine keeps that in mind.
            self._send(Started(work.ticket))
            work.started = True
        prompt = self._encoded(family, job)
        if warnings := warnings_of(prompt):
            self._send(Warned(work.ticket, warnings))
        while work.pending:
            index = work.pending[0]
            sample = family.start(job, prompt, job.seeds[index])
            work.pending.popleft()
            work.live += 1
            number = self._samples_begun
            self._samples_begun += 1
            alone = family.alone or job.deterministic
            self._active[number] = Active(number, work, index, family, sample, alone)

    def _encoded(self, family: Family, job: ImageJob) -> Any:
        """Encode a job's prompts, or find them encoded. Raises InvalidJobError either way."""
        key = prompt_key(family, job)
        prompt = None if key is None else self._prompts.get(key)
        if prompt is None:
            self._use_loras(family, job)
            pace = f"encode {job.model_id}, {len(job.lora_set)} loras"
            with self._canary.at(_THREAD, "encoding a prompt", self._longest_step, pace=pace):
                prompt = family.encode(job)
            if key is not None:
                self._prompts.put(key, prompt)
        return prompt

    def _take_turn(self) -> None:
        turn = self._turns.begin(self._active)
        if turn is None:
            return
        self._step(turn)
        # Here a GPU's work is waited for, as part of the step.
        self._turns.end(turn)
        if not turn.failed:
            self._canary.done(_THREAD)
        self._canary.note(_THREAD, "between two steps", self._longest_step)
        for active in turn.members:
            if active.number not in self._active:
                continue  # its job failed or was cancelled in this step
            self._note_progress(active)
            if active.sample.finished:
                self._hand_over(active)

    def _step(self, turn: Turn) -> None:
        """Advance a group."""
        lead = turn.members[0]
        whole = lead.family.alone

        def begin(what: str) -> None:
            pace = f"{what} {turn.kind}"
            self._canary.note(_THREAD, "denoising", self._longest_step, pace=pace)

        def checkpoint(done: int) -> bool:
            # Called by a pipeline that runs whole, which encodes before and decodes after.
            self._canary.done(_THREAD)
            begin("step" if done < lead.work.job.steps else "end")
            self._note_progress(lead)
            return lead.work.ticket not in self._cancelled

        try:
            self._use_loras(lead.family, lead.work.job)
            begin("begin" if whole else "step")
            lead.family.step([active.sample for active in turn.members], checkpoint)
        except SampleCancelledError:
            turn.failed = True
            self._drop(lead.work)
        except Exception as error:  # noqa: BLE001  torch raises anything
            turn.failed = True
            self._take_failure(turn, error)

    def _use_loras(self, family: Family, job: ImageJob) -> None:
        if family.loras is not None:
            # What the gate could not prepare is read and fitted here.
            with self._canary.at(_THREAD, "fitting LoRAs", self._longest_step, kind="read"):
                family.loras.activate(job.lora_set)
        elif job.lora_set:
            names = ", ".join(name for name, _ in job.lora_set)
            raise InvalidJobError(f"This model takes no LoRAs; asked for: {names}.")

    def _take_failure(self, turn: Turn, error: Exception) -> None:
        """Fail the job of a sample that stepped alone; let a group's members step apart.

        What a group has too little memory for may fit in smaller ones, and what is one member's
        fault must not be the others'. A step that fails leaves its samples as they were.
        """
        fault = classify(error, turn.members[0].work.job)
        if len(turn.members) == 1 or fault.poisoned:
            for active in turn.members:
                self._fail(active.work, classify(error, active.work.job))
        elif fault.kind is FailureKind.OUT_OF_MEMORY:
            self._turns.out_of_memory(turn)
            self._free_memory()
        else:
            for active in turn.members:
                active.alone = True

    def _note_progress(self, active: Active) -> None:
        work = active.work
        self._preview(work.ticket, active.index, work.job, active.family, active.sample)
        work.done[active.index] = active.sample.done
        now = self._monotonic()
        done = work.done_steps
        if done >= work.all_steps or now - work.reported_at >= _PROGRESS_INTERVAL:
            work.reported_at = now
            self._send(Stepped(work.ticket, done))

    def _hand_over(self, active: Active) -> None:
        del self._active[active.number]
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
                active.kind,
            )
        )
        self._shelf.note_pace(
            ModelId(job.model_id), active.seconds / (job.width * job.height * job.steps)
        )
