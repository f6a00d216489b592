"""Lines of a busy log, written many at a time.

A write of each line lets another thread have Python meanwhile, which on the way of every request costs
several times what the line does. What is gathered when a process is killed is lost: the moments of
`GATHER_SECONDS`. Nobody's money is among it: that is in the journal.
"""

import asyncio
import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, TextIO

from typing_extensions import override

GATHER_SECONDS: Final = 0.02


class GatheringStream(io.TextIOBase):
    """Writes to `out`: at once, and within `gathering` a moment later."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = 0
        self._lines: list[str] = []
        self._sending: asyncio.TimerHandle | None = None

    @contextmanager
    def gathering(self) -> Iterator[None]:
        """For the life of the running loop, or a part of it; what was gathered is written at the end."""
        self._loop, self._thread = asyncio.get_running_loop(), threading.get_ident()
        try:
            yield
        finally:
            self._loop = None
            self._send()

    @override
    def write(self, text: str, /) -> int:
        self._lines.append(text)
        # Other threads write seldom, and may not touch the loop's timers.
        if self._loop is None or threading.get_ident() != self._thread:
            self._send()
        elif self._sending is None:
            self._sending = self._loop.call_later(GATHER_SECONDS, self._send)
        return len(text)

    @override
    def flush(self) -> None:
        """Loggers call it after each line: it would undo the gathering."""

    @override
    def isatty(self) -> bool:
        return self._out.isatty()

    def _send(self) -> None:
        # Two threads may be here: each line is in one of their lists.
        lines, self._lines = self._lines, []
        if threading.get_ident() == self._thread and self._sending is not None:
            self._sending.cancel()
            self._sending = None
        if lines:
            self._out.write("".join(lines))
            self._out.flush()
