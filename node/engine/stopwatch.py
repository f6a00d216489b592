"""Times steps where they run. On a GPU that is not where they are called.

A CUDA step returns when its kernels are queued. Waiting for them after each step would leave the
device idle in between; events in the same stream are read one step later instead.
"""

from collections.abc import Callable
from typing import Any, Protocol


class Lap(Protocol):
    """A stretch of the device's work, from when the lap was made to `stop`."""

    def stop(self) -> None:
        """End it, behind what was called until now."""

    def over(self) -> bool:
        """Tell whether the device has come to its end."""

    def seconds(self) -> float:
        """Return how long it took; waits until it is over."""

    def effort(self) -> float:
        """Return seconds to compare steps by, without what other programs took of the device."""


#: Begins a lap behind what was called until now.
Stopwatch = Callable[[], Lap]


class HostLap:
    """For devices whose calls return when the work is done.

    The effort is this thread's processor time: of work that several threads share it has its
    part, in the same proportion for large steps and small ones.
    """

    def __init__(self, monotonic: Callable[[], float], processor: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._processor = processor
        self._began, self._used_before = monotonic(), processor()
        self._ended, self._used = self._began, self._used_before

    def stop(self) -> None:
        self._ended, self._used = self._monotonic(), self._processor()

    def over(self) -> bool:
        return True

    def seconds(self) -> float:
        return self._ended - self._began

    def effort(self) -> float:
        return self._used - self._used_before


class EventLap:
    """For CUDA: `make_event` returns a new `torch.cuda.Event` with timing on."""

    def __init__(self, make_event: Callable[[], Any], stream: Any) -> None:
        """`stream` is the one that takes what is called until `stop`."""
        self._stream = stream
        self._began, self._ended = make_event(), make_event()
        self._began.record(stream)

    def stop(self) -> None:
        self._ended.record(self._stream)

    def over(self) -> bool:
        return bool(self._ended.query())

    def seconds(self) -> float:
        self._ended.synchronize()
        return float(self._began.elapsed_time(self._ended)) / 1000

    def effort(self) -> float:
        return self.seconds()
