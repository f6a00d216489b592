"""Jobs and samples in the worker's loop, and whose turn it is: plans and what steps cost, joined.

Owned by the step loop's thread.
"""

from collections import deque
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any

from network.units import ModelId
from node.engine.batch_book import BatchBook
from node.engine.families.base import Family
from node.engine.planner import Group, Planner, Runnable
from node.engine.stopwatch import Lap, Stopwatch
from node.engine.work import ImageJob, LoraSet

#: Model, LoRAs, and what the family asks to be equal.
Key = tuple[ModelId, LoraSet, Hashable]
#: Seconds per pixel and step of a model of which nothing was measured yet.
_GUESSED_PACE = 1e-6


@dataclass(slots=True)
class Work:
    """A job in the worker. `live` counts samples being stepped or finished, `done` their steps."""

    ticket: int
    job: ImageJob
    pending: deque[int]
    wanted: int
    started: bool = False
    held_up: bool = False  # its model is not there yet, or has no room yet
    live: int = 0
    done: dict[int, int] = field(default_factory=dict)
    reported_at: float = float("-inf")

    @property
    def all_steps(self) -> int:
        """The denoise steps of all images that are wanted."""
        return self.job.steps * self.wanted

    @property
    def done_steps(self) -> int:
        return sum(self.done.values())


@dataclass(slots=True)
class Active:
    """A sample among the steps. `alone`: it shares no forward pass."""

    number: int
    work: Work
    index: int
    family: Family
    sample: Any
    alone: bool
    seconds: float = 0.0

    @property
    def key(self) -> Key:
        """What samples that share a forward pass have in common."""
        job = self.work.job
        return (job.model_id, job.lora_set, self.sample.key)

    @property
    def kind(self) -> str:
        """Name what its steps and its decoding cost the same as, alike in every process."""
        return _kind(self.key)


@dataclass(slots=True)
class Turn:
    """Samples that step together, and how long that takes them."""

    group: Group
    members: list[Active]
    lap: Lap
    failed: bool = False

    @property
    def kind(self) -> str:
        """Name what costs the same, alike in every process."""
        return f"{self.members[0].kind} x{len(self.members)}"


def _no_note(size: int, seconds: float) -> None:
    """Tell nobody."""


class Turns:
    """Plans turns by what the earlier ones took. A turn begun is ended before the next."""

    def __init__(
        self,
        book: BatchBook,
        stopwatch: Stopwatch,
        pace: Callable[[ModelId], float | None],
        note: Callable[[int, float], None] = _no_note,
    ) -> None:
        """`pace` gives seconds per pixel and step of a model, None until measured.

        `note` gets how many samples shared a step, and its seconds, after each that succeeded.
        """
        self._book = book
        self._stopwatch = stopwatch
        self._pace = pace
        self._note = note
        self._planner = Planner(lambda key, waiting: book.cap(_kind(key)).choose(waiting))
        self._open: deque[Turn] = deque()
        self._last_seconds = float("inf")

    @property
    def last_seconds(self) -> float:
        """How long the last turn took; for ever before the first one."""
        return self._last_seconds

    def begin(self, active: Mapping[int, Active]) -> Turn | None:
        """Start the next turn; None when nothing wants a step."""
        group = self._planner.plan([self._runnable(one) for one in active.values()])
        if group is None:
            return None
        members = [active[number] for number in group.samples]
        return Turn(group, members, self._stopwatch())

    def end(self, turn: Turn) -> None:
        """Finish a turn. A `failed` one costs its time, and teaches nothing about step times."""
        turn.lap.stop()
        self._open.append(turn)
        # The device may be one turn behind, which keeps it busy, and no more: cancelling and
        # joining at step boundaries is worth little where many steps are queued already. A
        # finished sample's time is known when it is handed over.
        self._settle(all_but=0 if any(one.sample.finished for one in turn.members) else 1)

    def out_of_memory(self, turn: Turn) -> None:
        """Learn that so many samples do not fit into the device's memory together."""
        self._book.cap(_kind(turn.members[0].key)).out_of_memory(len(turn.members))

    def save(self) -> None:
        """Keep what was learned for the next start."""
        self._book.save()

    def _settle(self, all_but: int) -> None:
        while self._open and (len(self._open) > all_but or self._open[0].lap.over()):
            turn = self._open.popleft()
            seconds = turn.lap.seconds()
            self._last_seconds = seconds
            self._planner.charge(turn.group, seconds)
            for member in turn.members:
                member.seconds += seconds / len(turn.members)
            if turn.failed:
                continue
            self._note(len(turn.members), seconds)
            if not turn.members[0].family.alone:
                self._book.cap(_kind(turn.members[0].key)).observe(
                    len(turn.members), turn.lap.effort()
                )

    def _runnable(self, one: Active) -> Runnable:
        work = one.work
        left = (work.all_steps - work.done_steps) * self._step_seconds(one)
        return Runnable(one.number, work.ticket, one.key, one.alone, left)

    def _step_seconds(self, one: Active) -> float:
        """Return what a step of this sample takes alone, as far as is known."""
        solo = None if one.family.alone else self._book.cap(_kind(one.key)).solo_seconds()
        if solo is not None:
            return solo
        job = one.work.job
        return (self._pace(job.model_id) or _GUESSED_PACE) * job.width * job.height


def _kind(key: Hashable) -> str:
    """Name a kind of step alike in every process. It costs the same with any LoRAs of a number."""
    if not isinstance(key, tuple):
        raise TypeError(f"{key!r} is no key of samples")
    model_id, loras, shape = key
    return f"{model_id} {shape!r}" + (f" {len(loras)} loras" if loras else "")
