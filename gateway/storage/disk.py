"""Images on a local disk: held in memory until written, so that no answer waits for the disk."""

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import structlog

from gateway.storage.names import ImageName, Kind, draw_name, parse_path
from gateway.storage.shelf import Held, Shelf
from gateway.storage.store import (
    CHUNK_BYTES,
    MAX_UNWRITTEN_BYTES,
    ImageNotStoredError,
    StoredImage,
    nothing_to_close,
    slices,
)
from network.runtime.clock import Clock

_log = structlog.get_logger(__name__)

#: How long images gather before the writer is woken for them all.
FLUSH_SECONDS = 0.02
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL


class DiskImageStore:
    """Keeps images as `<root>/<n>/<request>.<name>.<kind>` for a lifetime, within a total size.

    `<n>` is the first character of the name: a folder for each request would cost many times what
    its image does.

    `put` returns before the disk is asked: until then the image is served from memory. When the
    disk falls behind or fails, `put` waits for it, so memory stays bounded and a full disk shows.
    """

    def __init__(self, root: Path, shelf: Shelf, clock: Clock) -> None:
        self._root = root
        self._shelf = shelf
        self._clock = clock
        # One writer: a file's removal can never overtake its writing.
        self._writer = ThreadPoolExecutor(1, "image-writer")
        self._reader = ThreadPoolExecutor(2, "image-reader")
        self._unwritten: dict[ImageName, bytes] = {}
        self._unwritten_bytes = 0
        self._unsent: list[tuple[ImageName, bytes]] = []
        self._gone: tuple[ImageName, ...] = ()
        self._flushing: asyncio.TimerHandle | None = None
        self._fails = False

    @property
    def total_bytes(self) -> int:
        return self._shelf.total_bytes

    @property
    def count(self) -> int:
        return len(self._shelf)

    async def put(self, request: str, png: bytes, kind: Kind = "png") -> str:
        """Store one image; returns its path on the gateway. Raises ImageNotStoredError."""
        name = draw_name(request, kind)
        self._unwritten[name] = png
        self._unwritten_bytes += len(png)
        self._unsent.append((name, png))
        self._gone += self._shelf.put(name, len(png), self._clock.now())
        if self._fails or self._unwritten_bytes > MAX_UNWRITTEN_BYTES:
            await self._wait_for_disk(name)
        elif self._flushing is None:
            self._flushing = asyncio.get_running_loop().call_later(FLUSH_SECONDS, self._flush)
        return name.path

    async def secure(self, paths: Sequence[str]) -> None:
        """Return when images that were put outlive a power cut. Raises ImageNotStoredError."""
        names = [name for path in paths if (name := parse_path(path)) is not None]
        _ = self._flush()
        loop = asyncio.get_running_loop()
        try:
            # The writer's next job: the files are there then, unless the disk refused them.
            await loop.run_in_executor(self._writer, _sync, [self._file(name) for name in names])
        except OSError as error:
            raise ImageNotStoredError(str(error)) from error

    def _flush(self) -> asyncio.Future[list[OSError | None]]:
        """Hand everything that gathered to the writer: waking it once costs less than often."""
        if self._flushing is not None:
            self._flushing.cancel()
            self._flushing = None
        unsent, self._unsent = self._unsent, []
        gone, self._gone = self._gone, ()
        files = [(self._file(name), png) for name, png in unsent]
        writing = asyncio.get_running_loop().run_in_executor(
            self._writer, _write_and_remove, files, [self._file(name) for name in gone]
        )
        writing.add_done_callback(partial(self._written, [name for name, _ in unsent]))
        return writing

    async def _wait_for_disk(self, name: ImageName) -> None:
        # Shielded: the write goes on for the others in it even if this client leaves.
        outcomes = await asyncio.shield(self._flush())
        error = outcomes[-1]
        if error is not None:
            self._shelf.forget(name)
            self._release(name)
            raise ImageNotStoredError(str(error)) from error

    def _written(
        self, names: list[ImageName], writing: asyncio.Future[list[OSError | None]]
    ) -> None:
        if writing.cancelled():
            return
        for name, error in zip(names, writing.result(), strict=True):
            if error is None:
                self._fails = False
                self._release(name)
                continue
            if not self._fails:
                _log.error("image_not_written", directory=str(self._root), error=str(error))
            self._fails = True
        # Addresses of unwritten images were given out, so memory serves them: until their lifetime
        # ends, or until the images only memory holds come to more than the bound.
        while self._fails and self._unwritten_bytes > MAX_UNWRITTEN_BYTES:
            oldest = next(iter(self._unwritten))
            self._shelf.forget(oldest)
            self._release(oldest)

    def _release(self, name: ImageName) -> None:
        png = self._unwritten.pop(name, None)
        if png is not None:
            self._unwritten_bytes -= len(png)

    async def open(self, name: ImageName) -> StoredImage | None:
        """The image for one download, or None when it was never stored or is gone."""
        held = self._shelf.find(name, self._clock.now())
        if held is None:
            return None
        png = self._unwritten.get(name)
        if png is not None:
            return StoredImage(len(png), partial(slices, png), nothing_to_close)
        loop = asyncio.get_running_loop()
        try:
            descriptor, size = await loop.run_in_executor(self._reader, _open, self._file(name))
        except OSError:
            self._shelf.forget(name)
            return None
        return StoredImage(
            size,
            partial(_file_chunks, self._reader, descriptor),
            partial(os.close, descriptor),
        )

    async def sweep(self) -> int:
        """Remove what is past its lifetime; returns how many images left."""
        leaving = self._shelf.expire(self._clock.now())
        for name in leaving:
            self._release(name)
        if leaving:
            self._gone += leaving
            await asyncio.shield(self._flush())
        return len(leaving)

    async def close(self) -> None:
        """Write what is still in memory, then stop the threads."""
        await self._flush()
        await asyncio.to_thread(self._writer.shutdown)
        self._reader.shutdown(wait=False)

    def _file(self, name: ImageName) -> str:
        return _file_of(self._root, name)


@asynccontextmanager
async def open_disk_store(
    root: Path, *, lifetime: float, max_bytes: int, clock: Clock
) -> AsyncIterator[DiskImageStore]:
    """A store over `root` (made if missing, mode 0700) that still serves an earlier run's images."""
    shelf = Shelf(lifetime=lifetime, max_bytes=max_bytes)
    shelf.restore(await asyncio.to_thread(_scan, root))
    store = DiskImageStore(root, shelf, clock)
    try:
        yield store
    finally:
        await store.close()


def _file_of(root: Path, name: ImageName) -> str:
    return f"{root}/{name.name[0]}/{name.request}.{name.file}"


def _scan(root: Path) -> list[tuple[ImageName, Held]]:
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    found: list[tuple[ImageName, Held]] = []
    for file in root.glob("*/*.*"):
        request, _, rest = file.name.partition(".")
        name = parse_path(f"/stream/{request}/{rest}")
        with suppress(OSError):
            status = file.stat()
            if name is not None:
                found.append((name, Held(status.st_size, status.st_mtime)))
    return found


def _write_and_remove(files: list[tuple[str, bytes]], gone: list[str]) -> list[OSError | None]:
    """What became of each file, in order."""
    outcomes = [_attempt(file, png) for file, png in files]
    _remove(gone)
    return outcomes


def _attempt(file: str, png: bytes) -> OSError | None:
    try:
        _write(file, png)
    except OSError as error:
        return error
    return None


def _write(file: str, png: bytes) -> None:
    try:
        descriptor = os.open(file, _NEW, 0o600)
    except FileNotFoundError:  # the first image in its folder
        Path(file).parent.mkdir(mode=0o700, exist_ok=True)
        descriptor = os.open(file, _NEW, 0o600)
    try:
        view = memoryview(png)
        while view:
            view = view[os.write(descriptor, view) :]
    finally:
        os.close(descriptor)


def _sync(files: list[str]) -> None:
    """Bring files to the disk, with the directories that name them. Raises OSError."""
    folders = {os.path.dirname(file) for file in files}  # noqa: PTH120
    for path in (*files, *folders, *{os.path.dirname(folder) for folder in folders}):  # noqa: PTH120
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _remove(files: list[str]) -> None:
    for file in files:
        with suppress(OSError):
            os.unlink(file)  # noqa: PTH108 - plain strings: this runs for every image


def _open(file: str) -> tuple[int, int]:
    descriptor = os.open(file, os.O_RDONLY)
    return descriptor, os.fstat(descriptor).st_size


async def _file_chunks(
    reader: ThreadPoolExecutor, descriptor: int, start: int, stop: int
) -> AsyncIterator[bytes]:
    loop = asyncio.get_running_loop()
    while start < stop:
        most = min(CHUNK_BYTES, stop - start)
        chunk = await loop.run_in_executor(reader, os.pread, descriptor, most, start)
        if not chunk:
            raise ConnectionError(f"a stored image ended {stop - start} bytes early")
        start += len(chunk)
        yield chunk
