"""Random bytes for names and ids, drawn from the operating system many at a time.

Each call of it lets another thread have Python in between, which on the way of every request costs
far more than the bytes.
"""

import os
import threading
from base64 import urlsafe_b64encode
from typing import Final

_DRAWN_BYTES: Final = 4096


class RandomBytes:
    """Bytes that nobody can guess, each given out once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._drawn, self._used = b"", 0
        # A child process must not give out what its parent does.
        os.register_at_fork(after_in_child=self._forget)

    def take(self, size: int) -> bytes:
        """`size` bytes, at most 4096."""
        with self._lock:
            if self._used + size > len(self._drawn):
                self._drawn, self._used = os.urandom(_DRAWN_BYTES), 0
            start = self._used
            self._used += size
            return self._drawn[start : self._used]

    def hex(self, size: int) -> str:
        """`size` bytes as twice as many hexadecimal digits."""
        return self.take(size).hex()

    def urlsafe(self, size: int) -> str:
        """`size` bytes as letters, digits, "-" and "_"."""
        return urlsafe_b64encode(self.take(size)).rstrip(b"=").decode()

    def _forget(self) -> None:
        self._lock = threading.Lock()  # another thread may have held it when the child was made
        self._drawn, self._used = b"", 0
