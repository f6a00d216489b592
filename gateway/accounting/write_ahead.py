"""The journal's write-ahead log: what its database does not have yet.

To say that something is written down, a database takes two changes of threads and a transaction, on
the way of every request. Here it takes one copy into a file for what must outlive this process, and
one sync of that file for what must outlive a power cut. The database follows, many requests to one
transaction, and what it has is forgotten here: the file stays small.
"""

import asyncio
import fcntl
import os
import zlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from struct import Struct
from typing import Final

import structlog

from gateway.accounting.syncing import Syncer, syncer_for
from network.errors import ConfigError

#: Bytes. Reached only when the database has not kept up for about a thousand requests.
_LARGEST: Final = 1 << 20
_OWNER_ONLY: Final = 0o600
#: Length and CRC-32 of the record that follows; a length of 0 ends the log.
_HEAD: Final = Struct("<II")
_END: Final = bytes(_HEAD.size)

_log = structlog.get_logger(__name__)


class WriteAheadLog:
    """Made by `open_write_ahead_log`. Records stand one after the other and are forgotten together."""

    def __init__(self, descriptor: int, syncer: Syncer | None) -> None:
        """`syncer` None leaves the sync to the system."""
        self._descriptor = descriptor
        self._syncer = syncer
        self._tail = 0
        self._kept = 0
        self._loop = asyncio.get_running_loop()
        #: Those whom the sync under way is for, None without one, and those who came after its beginning.
        self._syncing: list[asyncio.Future[None]] | None = None
        self._waiting: list[asyncio.Future[None]] = []

    def left(self) -> tuple[bytes, ...]:
        """What an earlier process left, in its order. To be read before anything is kept."""
        return tuple(_records(os.pread(self._descriptor, _LARGEST, 0)))

    def keep(self, record: bytes) -> bool:
        """Whether the record was kept and outlives this process; there may be no room for it.

        Goes no further than the page cache, so it does not wait for the disk.
        """
        content = _HEAD.pack(len(record), zlib.crc32(record)) + record + _END
        if not record or self._tail + len(content) > _LARGEST:
            return False
        try:
            written = os.pwrite(self._descriptor, content, self._tail)
        except OSError as error:
            _log.error("write_ahead_log_failed", error=str(error))
            return False
        if written < len(content):
            return False
        self._tail += len(content) - len(_END)
        self._kept += 1
        return True

    def sync(self) -> asyncio.Future[None]:
        """Done when everything kept so far outlives a power cut; it does not fail."""
        done: asyncio.Future[None] = self._loop.create_future()
        if self._syncer is None:
            done.set_result(None)
            return done
        self._waiting.append(done)
        if self._syncing is None:
            self._begin(self._syncer)
        return done

    def forget(self) -> None:
        """One of the records kept is on the database's disk, whichever it was."""
        self._kept -= 1
        if not self._kept:
            self.clear()

    def clear(self) -> None:
        """Forget everything, what an earlier process left included."""
        os.pwrite(self._descriptor, _END, 0)
        self._tail = self._kept = 0

    async def close(self) -> None:
        """Return when all have what they waited for."""
        try:
            await self.sync()
        finally:
            if self._syncer is not None:
                self._syncer.close()

    def _begin(self, syncer: Syncer) -> None:
        self._syncing, self._waiting = self._waiting, []
        syncer.begin(self._synced)

    def _synced(self, error: OSError | None) -> None:
        if error is not None:
            # The answers they wait for are owed all the same.
            _log.error("write_ahead_log_not_synced", error=str(error))
        asked, self._syncing = self._syncing or [], None
        # The disk is kept busy before those who waited go on.
        if self._waiting and self._syncer is not None:
            self._begin(self._syncer)
        for done in asked:
            if not done.done():  # a caller may have been cancelled
                done.set_result(None)


@asynccontextmanager
async def open_write_ahead_log(file: Path, *, is_synced: bool) -> AsyncIterator[WriteAheadLog]:
    """The log in `file`, which is made if missing. Raises ConfigError.

    Without `is_synced` a power cut may take back what its database does not have.
    """
    descriptor = await asyncio.to_thread(_opened, file)
    try:
        log = WriteAheadLog(descriptor, await syncer_for(descriptor) if is_synced else None)
        try:
            yield log
        finally:
            await log.close()
    finally:
        os.close(descriptor)


def _opened(file: Path) -> int:
    try:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT, _OWNER_ONLY)
    except OSError as error:
        raise ConfigError("data_dir", f"cannot use {file}: {error.strerror}") from error
    try:
        # Two programs over one file would forget each other's records.
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Blocks that were written before need no news of the file system in a sync.
        size = os.fstat(descriptor).st_size
        os.pwrite(descriptor, bytes(_LARGEST - size), size)
        os.fsync(descriptor)
    except OSError as error:
        os.close(descriptor)
        if isinstance(error, BlockingIOError):
            raise ConfigError("data_dir", f"another gateway runs on {file.parent}") from None
        raise ConfigError("data_dir", f"cannot use {file}: {error.strerror}") from error
    return descriptor


def _records(content: bytes) -> Iterator[bytes]:
    position = 0
    while position + _HEAD.size <= len(content):
        length, checksum = _HEAD.unpack_from(content, position)
        start = position + _HEAD.size
        record = content[start : start + length]
        if not length or len(record) != length or zlib.crc32(record) != checksum:
            return
        yield record
        position = start + length
