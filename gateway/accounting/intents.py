"""What is about to be done, kept where the end of this process does not reach.

A database takes two changes of threads and a transaction to say that something is written down. An
intent takes a copy of some hundred bytes: the file is mapped into memory, and the kernel keeps what was
put there when the process is killed. It holds what its database does not have yet, which is little
and for milliseconds.
"""

import fcntl
import mmap
import os
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from struct import Struct
from typing import Final

from network.errors import ConfigError

_SIZE: Final = 1 << 20
_OWNER_ONLY: Final = 0o600
#: Length and CRC-32 of the record that follows; a length of 0 ends the file.
_HEAD: Final = Struct("<II")
_END: Final = bytes(_HEAD.size)


class Intents:
    """Made by `open_intents`. Records are kept one after the other, and all forgotten together."""

    def __init__(self, memory: mmap.mmap) -> None:
        self._memory = memory
        self._tail = 0
        self._kept = 0

    def left(self) -> tuple[bytes, ...]:
        """What an earlier process left, in its order. To be read before anything is kept."""
        return tuple(_records(self._memory))

    def keep(self, record: bytes) -> bool:
        """Whether the record was kept; there may be no room, and then nothing has happened."""
        start = self._tail + _HEAD.size
        end = start + len(record)
        if not record or end + _HEAD.size > len(self._memory):
            return False
        # The head comes last: a process killed in between leaves no record rather than half of one.
        self._memory[start : end + _HEAD.size] = record + _END
        _HEAD.pack_into(self._memory, self._tail, len(record), zlib.crc32(record))
        self._tail = end
        self._kept += 1
        return True

    def forget(self) -> None:
        """One of the records kept is in its database, whichever it was."""
        self._kept -= 1
        if not self._kept:
            self.clear()

    def clear(self) -> None:
        """Forget everything, what an earlier process left included."""
        self._memory[: _HEAD.size] = _END
        self._tail = self._kept = 0


@contextmanager
def open_intents(file: Path) -> Iterator[Intents]:
    """The intents in `file`, which is made if missing; blocks. Raises ConfigError."""
    try:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT, _OWNER_ONLY)
    except OSError as error:
        raise ConfigError("data_dir", f"cannot use {file}: {error.strerror}") from error
    with ExitStack() as stack:
        stack.callback(os.close, descriptor)
        try:
            # Two programs over one file would forget each other's intents.
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(descriptor, _SIZE)
            memory = mmap.mmap(descriptor, _SIZE)
        except BlockingIOError:
            raise ConfigError("data_dir", f"another gateway runs on {file.parent}") from None
        except OSError as error:
            raise ConfigError("data_dir", f"cannot use {file}: {error.strerror}") from error
        with memory:
            yield Intents(memory)


def _records(memory: mmap.mmap) -> Iterator[bytes]:
    position = 0
    while position + _HEAD.size <= len(memory):
        length, checksum = _HEAD.unpack_from(memory, position)
        start = position + _HEAD.size
        record = memory[start : start + length]
        if not length or len(record) != length or zlib.crc32(record) != checksum:
            return
        yield record
        position = start + length
