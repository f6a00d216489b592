"""Learns from real steps how many samples should share one. Pure: no torch, no clock.

A shared step must give more images a second than a smaller one, which is measured, by device,
model and shape, and not assumed: large images and CPUs often gain nothing. Sizes are tried from
small to large whenever enough samples wait, and measured again from time to time, for what else
runs on the machine changes.
"""

from collections import deque
from collections.abc import Mapping, Sequence

#: The sizes that are tried as a cap.
RUNGS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)

_KEPT = 16  # newest durations kept of each size; the shortest counts: disturbances only add
_ENOUGH = 5  # durations that make a judgement
_GAIN = 1.03  # times the images a second of the best smaller size, or growing is not worth it
#: A shared step may take so many times a solo one at most. Bounds what a job loses to its company.
_STRETCH = 2.5
_MISSES = 2  # sizes without gain after which larger ones are not tried
_REMEASURE = 32  # choices from one measurement of a size that is not in use to the next


class BatchCap:
    """The measured cap of one kind of step on one device."""

    def __init__(
        self,
        most: int,
        seconds: Mapping[int, Sequence[float]] | None = None,
        limit: int | None = None,
    ) -> None:
        """`seconds` (by size) and `limit` are what an earlier one has learned."""
        self._most = max(1, most)
        self._seconds = {
            size: deque(known, maxlen=_KEPT)
            for size, known in (seconds or {}).items()
            if size >= 1 and known and min(known) > 0
        }
        self._limit = limit
        self._warm: set[int] = set()
        self._choices = 0
        self._measured_at: dict[int, int] = {}
        self._remeasured_at = 0

    @property
    def seconds(self) -> dict[int, tuple[float, ...]]:
        """The newest durations of a step, by size."""
        return {size: tuple(known) for size, known in self._seconds.items()}

    @property
    def limit(self) -> int | None:
        """The size that never fits into memory, None if all did."""
        return self._limit

    @property
    def best(self) -> int:
        """The largest size worth its company, as far as is known."""
        return self._climb()[0]

    def solo_seconds(self) -> float | None:
        """Return how long a step of one sample takes; None until measured."""
        return self._typical(1)

    def choose(self, waiting: int) -> int:
        """Return how many of the `waiting` samples should step together now, 1 to `waiting`."""
        room = min(waiting, self._ceiling())
        if room <= 1:
            return 1
        self._choices += 1
        best, untried = self._climb()
        if untried is not None and untried <= room:
            return untried
        stale = self._stale(room)
        if stale is not None:
            self._remeasured_at = self._choices
            return stale
        size = min(room, best)
        while size > 1 and self._is_slow(size):
            size -= 1
        return size

    def observe(self, size: int, seconds: float) -> None:
        """Take in a step of `size` samples. The first of each size only warms the device up."""
        if seconds <= 0:
            return
        self._measured_at[size] = self._choices
        if size not in self._warm:
            self._warm.add(size)
            return
        self._seconds.setdefault(size, deque(maxlen=_KEPT)).append(seconds)

    def out_of_memory(self, size: int) -> None:
        """Learn that `size` samples do not fit: from now on it is half of that at most."""
        if size <= 1:
            return
        fits = size // 2
        self._limit = fits + 1 if self._limit is None else min(self._limit, fits + 1)

    def _ceiling(self) -> int:
        return self._most if self._limit is None else max(1, min(self._most, self._limit - 1))

    def _typical(self, size: int) -> float | None:
        known = self._seconds.get(size)
        return min(known) if known is not None and len(known) >= _ENOUGH else None

    def _climb(self) -> tuple[int, int | None]:
        """Return the best size, and the next one to try: None when larger ones gain nothing."""
        solo = self._typical(1)
        if solo is None:
            return 1, 1
        best, images_a_second, misses = 1, 1 / solo, 0
        for rung in RUNGS[1:]:
            if rung > self._ceiling():
                break
            seconds = self._typical(rung)
            if seconds is None:
                return best, rung
            if seconds > _STRETCH * solo:
                break
            if rung / seconds >= _GAIN * images_a_second:
                best, images_a_second, misses = rung, rung / seconds, 0
                continue
            misses += 1
            if misses == _MISSES:
                break
        return best, None

    def _stale(self, room: int) -> int | None:
        """Return the tried size to measure again now, if it is time for one."""
        if self._choices - self._remeasured_at < _REMEASURE:
            return None
        tried = [size for size in self._seconds if size in RUNGS and size <= room]
        return min(tried, key=lambda size: self._measured_at.get(size, 0), default=None)

    def _is_slow(self, size: int) -> bool:
        alone, together = self._typical(1), self._typical(size)
        return alone is not None and together is not None and together > size * alone
