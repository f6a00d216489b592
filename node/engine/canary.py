"""Notes what the worker's threads are at, for the heartbeat to tell. Written and read lock-free."""

from collections.abc import Callable
from dataclasses import dataclass

from node.engine.protocol import Activity


@dataclass(frozen=True, slots=True)
class _Note:
    name: str
    since: float
    allowed: float


class Canary:
    """One note a thread. `allowed` is how long the noted activity may last, in seconds."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._notes: dict[str, _Note] = {}

    def note(self, thread: str, activity: str, allowed: float) -> None:
        """Say what `thread` begins now."""
        self._notes[thread] = _Note(activity, self._monotonic(), allowed)

    def rest(self, thread: str) -> None:
        """Say that `thread` waits for work, which may last for ever."""
        self._notes.pop(thread, None)

    def activities(self) -> tuple[Activity, ...]:
        """Return what all threads are at, with ages as of now."""
        now = self._monotonic()
        return tuple(
            Activity(note.name, max(0.0, now - note.since), note.allowed)
            for note in tuple(self._notes.values())
        )
