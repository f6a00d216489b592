"""Images on a local disk: held in memory until written, so that no answer waits for the disk."""

import asyncio
import os
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import structlog

from gateway.storage.names import ImageName, Kind, draw_name, parse_path
from gateway.storage.segment_files import Image, SegmentFiles, look_through, open_image
from gateway.storage.segments import Bounds, Place, Segments
from gateway.storage.shelf import Held, Shelf
from gateway.storage.store import (
    CHUNK_BYTES,
    MAX_UNWRITTEN_BYTES,
    ImageNotStoredError,
    ImageStoreSilentError,
    StoredImage,
    nothing_to_close,
    slices,
)
from network.runtime.clock import Clock

_log = structlog.get_logger(__name__)

#: How long images gather before the writer is woken for them all.
FLUSH_SECONDS = 0.02


class DiskImageStore:
    """Keeps images in `<root>/<number>.segment` for a lifetime, within a total size and a count.

    Images are appended to the newest segment, many at once: a file for each would cost many times what
    its bytes do. A segment goes when the last of its images has left, so the disk holds a segment or
    two more than the store does.

    `put` returns before the disk is asked: until then the image is served from memory. When the
    disk falls behind or fails, `put` waits for it, so memory stays bounded and a full disk shows.
    """

    def __init__(
        self,
        root: Path,
        shelf: Shelf,
        clock: Clock,
        files: SegmentFiles,
        places: dict[ImageName, Place | None],
    ) -> None:
        self._root = root
        self._shelf = shelf
        self._clock = clock
        # One writer: segments have one end, and a removal can never overtake a writing.
        self._files = files
        self._writer = ThreadPoolExecutor(1, "image-writer")
        self._reader = ThreadPoolExecutor(2, "image-reader")
        #: Of the images the writer is done with; None where the disk refused one, and memory has it.
        self._places = places
        self._unwritten: dict[ImageName, bytes] = {}
        self._unwritten_bytes = 0
        self._unsent: list[Image] = []
        #: The segments of images that left, of each as often as images did.
        self._released: list[int] = []
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
        now = self._clock.now()
        self._unwritten[name] = png
        self._unwritten_bytes += len(png)
        self._unsent.append(Image(name, png, now))
        for gone in self._shelf.put(name, len(png), now):
            self._leave(gone)
        if self._fails or self._unwritten_bytes > MAX_UNWRITTEN_BYTES:
            await self._wait_for_disk(name)
        elif self._flushing is None:
            self._flush_soon()
        return name.path

    async def secure(self, paths: Sequence[str]) -> None:
        """Return when images that were put outlive a power cut. Raises ImageNotStoredError."""
        await asyncio.shield(self._flush())
        names = [parse_path(path) for path in paths]
        places = [self._places.get(name) for name in names if name is not None]
        there = [place for place in places if place is not None]
        if len(there) < len(places):
            raise ImageNotStoredError("the disk did not take it")
        try:
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(self._writer, self._files.sync, there)
        except OSError as error:
            raise ImageNotStoredError(str(error)) from error

    def _flush_soon(self) -> None:
        self._flushing = asyncio.get_running_loop().call_later(FLUSH_SECONDS, self._flush)

    def _flush(self) -> asyncio.Future[list[Place | OSError]]:
        """Hand everything that gathered to the writer: waking it once costs less than often."""
        if self._flushing is not None:
            self._flushing.cancel()
            self._flushing = None
        unsent, self._unsent = self._unsent, []
        released, self._released = self._released, []
        writing = asyncio.get_running_loop().run_in_executor(
            self._writer, _append_and_release, self._files, unsent, released
        )
        writing.add_done_callback(partial(self._written, unsent))
        return writing

    async def _wait_for_disk(self, name: ImageName) -> None:
        # Shielded: the write goes on for the others in it even if this client leaves.
        outcomes = await asyncio.shield(self._flush())
        error = outcomes[-1]
        if isinstance(error, OSError):
            self._forget(name)
            raise ImageNotStoredError(str(error)) from error

    def _written(
        self, images: list[Image], writing: asyncio.Future[list[Place | OSError]]
    ) -> None:
        if writing.cancelled():
            return
        for image, outcome in zip(images, writing.result(), strict=True):
            if isinstance(outcome, Place):
                self._fails = False
                self._release(image.name)
                self._places[image.name] = outcome
            else:
                if not self._fails:
                    _log.error("image_not_written", directory=str(self._root), error=str(outcome))
                self._fails = True
                self._places[image.name] = None
            if image.name not in self._shelf:  # it left while it was on its way
                self._leave(image.name)
        # Addresses of unwritten images were given out, so memory serves them: until their lifetime
        # ends, or until the images only memory holds come to more than the bound.
        while self._fails and self._unwritten_bytes > MAX_UNWRITTEN_BYTES:
            self._forget(next(iter(self._unwritten)))
        if self._released and self._flushing is None:
            self._flush_soon()

    def _forget(self, name: ImageName) -> None:
        self._shelf.forget(name)
        self._leave(name)
        self._release(name)

    def _leave(self, name: ImageName) -> None:
        """What is off the shelf needs its place no more; `_written` sees to those on their way."""
        if name in self._places:
            place = self._places.pop(name)
            if place is None:
                self._release(name)
            else:
                self._released.append(place.segment)

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
        place = self._places.get(name)
        found = None if place is None else await self._opened(place, held.size)
        if place is None or found is None:
            self._forget(name)
            return None
        if isinstance(found, bytes):
            return StoredImage(held.size, partial(slices, found), nothing_to_close)
        chunks = partial(_chunks, self._reader, found, place.offset)
        return StoredImage(held.size, chunks, partial(os.close, found))

    async def _opened(self, place: Place, size: int) -> bytes | int | None:
        loop = asyncio.get_running_loop()
        opening = loop.run_in_executor(self._reader, open_image, self._root, place, size)
        try:
            return await asyncio.shield(opening)
        except OSError as error:  # too many open files, perhaps: it is there still
            raise ImageStoreSilentError(str(error)) from error
        except asyncio.CancelledError:
            opening.add_done_callback(_close_unused)
            raise

    async def sweep(self) -> int:
        """Remove what is past its lifetime; returns how many images left."""
        leaving = self._shelf.expire(self._clock.now())
        for name in leaving:
            self._leave(name)
        if self._released:
            await asyncio.shield(self._flush())
        return len(leaving)

    async def close(self) -> None:
        """Write what is still in memory, then stop the threads."""
        await self._flush()
        if self._flushing is not None:  # images left while they were on their way
            await self._flush()
        await asyncio.get_running_loop().run_in_executor(self._writer, self._files.close)
        await asyncio.to_thread(self._writer.shutdown)
        self._reader.shutdown(wait=False)


@asynccontextmanager
async def open_disk_store(
    root: Path, *, lifetime: float, max_bytes: int, max_count: int, clock: Clock
) -> AsyncIterator[DiskImageStore]:
    """A store over `root` (made if missing, mode 0700) that still serves an earlier run's images."""
    shelf = Shelf(lifetime=lifetime, max_bytes=max_bytes, max_count=max_count)
    bounds = Bounds.within(lifetime=lifetime, max_bytes=max_bytes)
    files, places = await asyncio.to_thread(_restore, root, shelf, bounds, max_count, clock.now())
    store = DiskImageStore(root, shelf, clock, files, places)
    try:
        yield store
    finally:
        await store.close()


def _restore(
    root: Path, shelf: Shelf, bounds: Bounds, max_count: int, now: float
) -> tuple[SegmentFiles, dict[ImageName, Place | None]]:
    """Put what an earlier run left on the shelf, and remove the segments that are not needed for it."""
    found = look_through(root, most=max_count)
    # No image stays longer because the clock was ahead when it was stored.
    shelf.restore(
        (name, Held(held.size, min(held.stored_at, now))) for name, held, _ in found.images
    )
    shelf.expire(now)
    shelf.trim()
    there = {name: place for name, _, place in found.images if name in shelf}
    needed = Counter(place.segment for place in there.values())
    files = SegmentFiles(root, Segments(bounds, last=found.last, needed=needed))
    files.remove(found.segments - needed.keys())
    return files, {**there}


def _append_and_release(
    files: SegmentFiles, images: list[Image], released: list[int]
) -> list[Place | OSError]:
    """What became of each image, in order."""
    outcomes = files.append(images)
    files.release(released)
    return outcomes


def _close_unused(opening: asyncio.Future[bytes | int | None]) -> None:
    """Nobody waits for it any more."""
    if not opening.cancelled() and opening.exception() is None:
        found = opening.result()
        if isinstance(found, int):
            os.close(found)


async def _chunks(
    reader: ThreadPoolExecutor, descriptor: int, begin: int, start: int, stop: int
) -> AsyncIterator[bytes]:
    """Bytes `start` to `stop` of the image that begins at `begin`."""
    loop = asyncio.get_running_loop()
    while start < stop:
        most = min(CHUNK_BYTES, stop - start)
        chunk = await loop.run_in_executor(reader, os.pread, descriptor, most, begin + start)
        if not chunk:
            raise ConnectionError(f"a stored image ended {stop - start} bytes early")
        start += len(chunk)
        yield chunk
