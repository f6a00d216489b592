"""Time as an argument: what decides by time takes a Clock."""

import time
from typing import Protocol


class Clock(Protocol):
    """Tells the time in two ways; both in seconds."""

    def now(self) -> float:
        """Unix time; may jump."""

    def monotonic(self) -> float:
        """Never goes back; only differences mean something."""


class SystemClock:
    """The clock of this machine."""

    def now(self) -> float:
        return time.time()  # noqa: TID251  the one place

    def monotonic(self) -> float:
        return time.monotonic()
