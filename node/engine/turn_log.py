"""Counts how many samples share a denoise step, and the seconds of it, for the heartbeat to tell."""

import threading
from collections import Counter


class TurnLog:
    """Written by the step loop, emptied by the heartbeat."""

    def __init__(self) -> None:
        self._sizes: Counter[int] = Counter()
        self._seconds = 0.0
        self._lock = threading.Lock()

    def note(self, size: int, seconds: float) -> None:
        """Count a step that `size` samples took together."""
        with self._lock:
            self._sizes[size] += 1
            self._seconds += seconds

    def take(self) -> tuple[dict[int, int], float]:
        """Return the steps by their size and the seconds in all, since the last time."""
        with self._lock:
            taken = dict(self._sizes), self._seconds
            self._sizes.clear()
            self._seconds = 0.0
        return taken
