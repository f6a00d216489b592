"""Notes what the worker's threads are at, for the heartbeat to tell. Written and read lock-free.

A thread that works notes each piece of its work before it begins with it, and rests where it waits
for more. The heartbeat looks at every thread that does not rest whether it shows signs of life.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from node.engine.liveness import Pulse, is_still
from node.engine.paces import Paces
from node.engine.protocol import Activity, ActivityKind
from node.engine.vitals import children_stir, stirring_threads, thread_pulse

#: Time between two looks that counts as stillness: the looking thread may itself be held up.
_MOST_BETWEEN_LOOKS: Final = 1.5


@dataclass(frozen=True, slots=True)
class _Note:
    name: str
    since: float
    allowed: float
    kind: ActivityKind
    pace: str | None
    limit: float | None
    thread_id: int
    used: float  # processor seconds of the thread when it began


@dataclass(frozen=True, slots=True)
class _Look:
    note: _Note
    pulse: Pulse | None
    still: float = 0.0
    helped: float = 0.0


class Canary:
    """One note a thread. `allowed` is how long the noted activity may last, in seconds."""

    def __init__(
        self,
        monotonic: Callable[[], float],
        *,
        processor: Callable[[], float] = time.thread_time,
        look: Callable[[int], Pulse | None] = thread_pulse,
        stirring: Callable[[], frozenset[int]] = stirring_threads,
        children_stir: Callable[[], bool] = children_stir,
    ) -> None:
        self._monotonic = monotonic
        self._processor = processor
        self._look = look
        self._stirring = stirring
        self._children_stir = children_stir
        self._paces = Paces()
        self._notes: dict[str, _Note] = {}
        self._looks: dict[str, _Look] = {}
        self._looked_at = monotonic()

    def measure(self, paces: Paces) -> None:
        """Learn from now on what work takes, and tell what takes far longer."""
        self._paces = paces

    def note(
        self,
        thread: str,
        activity: str,
        allowed: float,
        *,
        kind: ActivityKind = "work",
        pace: str | None = None,
    ) -> None:
        """Say what `thread`, the calling one, begins now; `pace` names work that takes the same."""
        self._notes[thread] = _Note(
            activity,
            self._monotonic(),
            allowed,
            kind,
            pace,
            None if pace is None else self._paces.limit(pace),
            threading.get_native_id(),
            self._processor(),
        )

    def rest(self, thread: str) -> None:
        """Say that `thread` waits for work, which may last for ever."""
        self._notes.pop(thread, None)

    def done(self, thread: str) -> None:
        """Say that what `thread` has noted came to its end, and learn what it took."""
        note = self._notes.get(thread)
        if note is not None and note.pace is not None:
            worked = self._processor() - note.used
            passed = self._monotonic() - note.since
            self._paces.learn(note.pace, passed if self._paces.on_gpu else worked)

    @contextmanager
    def at(
        self,
        thread: str,
        activity: str,
        allowed: float,
        *,
        kind: ActivityKind = "work",
        pace: str | None = None,
    ) -> Iterator[None]:
        """Note an activity for the length of the block; learn from it unless it fails."""
        around = self._notes.get(thread)
        self.note(thread, activity, allowed, kind=kind, pace=pace)
        try:
            yield
            self.done(thread)
        finally:
            if around is None:
                self.rest(thread)
            else:
                self.note(thread, around.name, around.allowed, kind=around.kind, pace=around.pace)

    def activities(self) -> tuple[Activity, ...]:
        """Look at all threads and return what they are at, as of now. For one thread."""
        now = self._monotonic()
        passed = min(now - self._looked_at, _MOST_BETWEEN_LOOKS)
        self._looked_at = now
        notes = dict(self._notes)
        known = frozenset(note.thread_id for note in notes.values())
        known |= {threading.get_native_id()}
        self._looks = {
            thread: self._look_at(self._looks.get(thread), note, passed, known)
            for thread, note in notes.items()
        }
        return tuple(self._activity(look, now) for look in self._looks.values())

    def _look_at(
        self, before: _Look | None, note: _Note, passed: float, known: frozenset[int]
    ) -> _Look:
        pulse = None if note.kind == "wait" else self._look(note.thread_id)
        if before is None or before.note is not note:
            return _Look(note, pulse)
        if not is_still(before.pulse, pulse) or self._children_stir():
            return _Look(note, pulse)
        # Whose the threads are that libraries started, nobody knows.
        helped = passed if self._stirring() - known else 0.0
        return _Look(note, pulse, before.still + passed, before.helped + helped)

    def _activity(self, look: _Look, now: float) -> Activity:
        note = look.note
        age = max(0.0, now - note.since)
        worked = 0.0 if look.pulse is None else max(0.0, look.pulse.used - note.used)
        return Activity(
            note.name,
            age,
            note.allowed,
            kind=note.kind,
            still=look.still,
            helped=look.helped,
            effort=age if self._paces.on_gpu else worked,
            limit=note.limit,
        )
