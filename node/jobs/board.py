"""Who may start, who waits and who is refused, by model. Pure: events in, instructions out.

Every model has a number of slots and a queue, first come, first served. A job is on the board
from `Submitted` until it is refused or reported as `Ended`; both happen exactly once.
"""

import heapq
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import assert_never

from network.units import JobId, ModelId


class Reason(StrEnum):
    """Why a job got no place."""

    UNKNOWN_MODEL = "unknown_model"
    MODEL_FAILED = "model_failed"
    QUEUE_FULL = "queue_full"
    WAIT_TOO_LONG = "wait_too_long"
    WAITED_IN_VAIN = "waited_in_vain"
    OUT_OF_MEMORY = "size_does_not_fit_into_memory"
    CLOSING = "closing"


@dataclass(frozen=True, slots=True)
class Submitted:
    """A job asks for a place; `expected_seconds` is the work it brings, 0 when unknown."""

    job_id: JobId
    model_id: ModelId
    expected_seconds: float
    now: float


@dataclass(frozen=True, slots=True)
class WaitExpired:
    """A job has waited until the time its `Wait` named."""

    job_id: JobId


@dataclass(frozen=True, slots=True)
class Ended:
    """A job is done, failed, or was cancelled, running or waiting."""

    job_id: JobId
    now: float


@dataclass(frozen=True, slots=True)
class SlotsChanged:
    """The engine can run so many jobs of a model at once from now on.

    Zero slots and `usable`: loading or restarting, worth waiting for. Not `usable`: the model
    failed, and whoever waits for it is sent elsewhere.
    """

    model_id: ModelId
    slots: int
    usable: bool
    now: float


@dataclass(frozen=True, slots=True)
class Closing:
    """The node stops: nobody starts any more."""


Event = Submitted | WaitExpired | Ended | SlotsChanged | Closing


@dataclass(frozen=True, slots=True)
class Start:
    """The job has its slot until `Ended`."""

    job_id: JobId


@dataclass(frozen=True, slots=True)
class Wait:
    """The job stands at `position` (1 is next); report `WaitExpired` at `until`."""

    job_id: JobId
    position: int
    estimate_seconds: float
    until: float


@dataclass(frozen=True, slots=True)
class Refuse:
    """The job is off the board."""

    job_id: JobId
    reason: Reason


Instruction = Start | Wait | Refuse


@dataclass(frozen=True, slots=True)
class Policy:
    """How long a queue may get, in jobs per model and in seconds."""

    max_waiting: int = 16
    max_wait_seconds: float = 20.0


@dataclass(frozen=True, slots=True)
class ModelLoad:
    """How busy a model is."""

    slots: int
    running: int
    waiting: int

    @property
    def free(self) -> int:
        """Slots nobody holds or stands in line for."""
        return max(0, self.slots - self.running - self.waiting)


@dataclass(slots=True)
class _Model:
    slots: int
    usable: bool = True
    #: job -> when its work should be over
    running: dict[JobId, float] = field(default_factory=dict)
    #: job -> its expected seconds; the order is the order of arrival
    waiting: dict[JobId, float] = field(default_factory=dict)

    def estimate(self, now: float) -> float:
        """Return the seconds until a job that joined the queue now would start.

        With no slot at all nothing is known, and the wait's own bound has to do.
        """
        if self.slots == 0:
            return 0.0
        ends = sorted(max(0.0, end - now) for end in self.running.values())[-self.slots :]
        ends = [0.0] * (self.slots - len(ends)) + ends
        for seconds in self.waiting.values():
            heapq.heapreplace(ends, ends[0] + seconds)
        return ends[0]


class Board:
    """The places of every model. `handle` is its only way to change."""

    def __init__(self, slots: Mapping[ModelId, int], policy: Policy) -> None:
        self._models = {model_id: _Model(count) for model_id, count in slots.items()}
        self._policy = policy
        self._model_of: dict[JobId, ModelId] = {}
        self._closing = False

    def handle(self, event: Event) -> tuple[Instruction, ...]:
        """Take an event; return what is to be done about it, in order.

        Raises ValueError for a job id that is on the board already.
        """
        match event:
            case Submitted():
                return (self._submitted(event),)
            case WaitExpired(job_id):
                return self._wait_expired(job_id)
            case Ended(job_id, now):
                return self._ended(job_id, now)
            case SlotsChanged():
                return self._slots_changed(event)
            case Closing():
                return self._close()
            case _:
                assert_never(event)

    def loads(self) -> dict[ModelId, ModelLoad]:
        """Return how busy each model is."""
        return {
            model_id: ModelLoad(model.slots, len(model.running), len(model.waiting))
            for model_id, model in self._models.items()
        }

    def position(self, job_id: JobId) -> int | None:
        """Return a job's place in its queue: 0 running, 1 next; None when not on the board."""
        model_id = self._model_of.get(job_id)
        if model_id is None:
            return None
        model = self._models[model_id]
        if job_id in model.running:
            return 0
        return list(model.waiting).index(job_id) + 1

    def validate(self) -> None:
        """Check what must always hold. For tests."""
        on_board: list[JobId] = []
        for model_id, model in self._models.items():
            jobs = [*model.running, *model.waiting]
            on_board += jobs
            if any(self._model_of[job_id] != model_id for job_id in jobs):
                raise AssertionError("a job stands at another model than its own")
            if len(model.waiting) > self._policy.max_waiting:
                raise AssertionError(f"{model_id}: the queue is longer than allowed")
            if model.waiting and len(model.running) < model.slots:
                raise AssertionError(f"{model_id}: a slot is idle while jobs wait")
        if sorted(on_board) != sorted(self._model_of):
            raise AssertionError("a job is twice on the board, or lost")

    def objection(self, model_id: ModelId, now: float) -> Reason | None:
        """Return why a job of this model would get no place at this moment, or None."""
        model = self._models.get(model_id)
        if model is None:
            return Reason.UNKNOWN_MODEL
        if self._closing:
            return Reason.CLOSING
        if not model.usable:
            return Reason.MODEL_FAILED
        return None if len(model.running) < model.slots else self._queue_objection(model, now)

    def _queue_objection(self, model: _Model, now: float) -> Reason | None:
        if len(model.waiting) >= self._policy.max_waiting:
            return Reason.QUEUE_FULL
        if model.estimate(now) > self._policy.max_wait_seconds:
            return Reason.WAIT_TOO_LONG
        return None

    def _submitted(self, event: Submitted) -> Instruction:
        job_id = event.job_id
        if job_id in self._model_of:
            raise ValueError(f"job {job_id} is on the board already")
        reason = self.objection(event.model_id, event.now)
        if reason is not None:
            return Refuse(job_id, reason)
        model = self._models[event.model_id]
        self._model_of[job_id] = event.model_id
        # Nobody waits while a slot is free, so a free slot belongs to whoever comes.
        if len(model.running) < model.slots:
            model.running[job_id] = event.now + event.expected_seconds
            return Start(job_id)
        estimate = model.estimate(event.now)
        model.waiting[job_id] = event.expected_seconds
        until = event.now + self._policy.max_wait_seconds
        return Wait(job_id, len(model.waiting), estimate, until)

    def _wait_expired(self, job_id: JobId) -> tuple[Instruction, ...]:
        # The timer may fire in the moment in which the job got its slot: then it keeps it.
        model_id = self._model_of.get(job_id)
        if model_id is None or job_id not in self._models[model_id].waiting:
            return ()
        del self._models[model_id].waiting[job_id]
        del self._model_of[job_id]
        return (Refuse(job_id, Reason.WAITED_IN_VAIN),)

    def _ended(self, job_id: JobId, now: float) -> tuple[Instruction, ...]:
        model_id = self._model_of.pop(job_id, None)
        if model_id is None:
            return ()
        model = self._models[model_id]
        model.running.pop(job_id, None)
        model.waiting.pop(job_id, None)
        return self._fill(model, now)

    def _slots_changed(self, event: SlotsChanged) -> tuple[Instruction, ...]:
        model = self._models.setdefault(event.model_id, _Model(0))
        model.slots = event.slots
        model.usable = event.usable
        if event.usable:
            return self._fill(model, event.now)
        return self._dismiss(model, Reason.MODEL_FAILED)

    def _close(self) -> tuple[Instruction, ...]:
        self._closing = True
        refusals: tuple[Instruction, ...] = ()
        for model in self._models.values():
            refusals += self._dismiss(model, Reason.CLOSING)
        return refusals

    def _dismiss(self, model: _Model, reason: Reason) -> tuple[Instruction, ...]:
        refused = tuple(model.waiting)
        model.waiting.clear()
        for job_id in refused:
            del self._model_of[job_id]
        return tuple(Refuse(job_id, reason) for job_id in refused)

    def _fill(self, model: _Model, now: float) -> tuple[Instruction, ...]:
        started: list[Instruction] = []
        while model.waiting and len(model.running) < model.slots:
            job_id = next(iter(model.waiting))
            model.running[job_id] = now + model.waiting.pop(job_id)
            started.append(Start(job_id))
        return tuple(started)
