"""Segment files in their folder. Everything here blocks; one thread at a time writes."""

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

from gateway.storage.names import ImageName, parse_path
from gateway.storage.records import LONGEST_HEAD, MAGIC, head_of, parse_head
from gateway.storage.segments import Place, Record, Segments
from gateway.storage.shelf import Held
from gateway.storage.store import CHUNK_BYTES

_FILE: Final = re.compile(r"([1-9][0-9]{0,14})\.segment")
_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND
# A link or a pipe by the name of a segment is neither followed nor waited for.
_OLD: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
#: Records of one write: each is two of the 1024 buffers that systems take.
_MOST_RECORDS: Final = 512
#: What is read to find heads: many of small images at once, little of a large one.
_WINDOW_BYTES: Final = 8192

_synced: Final = getattr(os, "fdatasync", os.fsync)  # macOS has only the one


class Image(NamedTuple):
    """One to be written; `stored_at` in unix seconds."""

    name: ImageName
    data: bytes
    stored_at: float


@dataclass(slots=True)
class Found:
    """What an earlier run left: its images, its segments, and the highest number that is taken."""

    images: list[tuple[ImageName, Held, Place]] = field(default_factory=list)
    segments: set[int] = field(default_factory=set)
    last: int = 0


class SegmentFiles:
    """Appends images to segments, and removes segments that no image is needed of."""

    def __init__(self, root: Path, segments: Segments) -> None:
        self._root = root
        self._segments = segments
        self._descriptor: int | None = None
        #: How much of a segment outlives a power cut, in bytes; None once a sync of it has failed.
        self._safe: dict[int, int | None] = {}

    def append(self, images: Sequence[Image]) -> list[Place | OSError]:
        """What became of each, in order: where it is, or why it is nowhere."""
        records = [
            Record(head_of(one.name, one.stored_at, len(one.data)), one.data, one.stored_at)
            for one in images
        ]
        outcomes: list[Place | OSError] = []
        try:
            self._check()
            self._append(records, outcomes)
        except OSError as error:
            outcomes += [error] * (len(records) - len(outcomes))
        return outcomes

    def release(self, segments: Iterable[int]) -> None:
        """One image has left for each number."""
        self.remove(number for number in segments if self._segments.release(number))
        if self._segments.current is None:
            self._close()

    def sync(self, places: Iterable[Place]) -> None:
        """Return when the images that begin there outlive a power cut. Raises OSError.

        One sync serves everybody whose image was written before it.
        """
        for place in places:
            segment = place.segment
            if segment not in self._safe:
                _sync_folder(self._root)
                self._safe[segment] = 0
            safe = self._safe[segment]
            if safe is None:
                raise OSError(f"segment {segment} could not be brought to the disk")
            if safe <= place.offset:
                self._sync(segment)

    def close(self) -> None:
        """No images follow."""
        unneeded = self._segments.end()
        self._close()
        if unneeded is not None:
            self.remove((unneeded,))

    def remove(self, segments: Iterable[int]) -> None:
        """Unlink segments; whoever reads one reads on."""
        for segment in segments:
            self._safe.pop(segment, None)
            with suppress(OSError):
                file_of(self._root, segment).unlink()

    def _append(self, records: Sequence[Record], outcomes: list[Place | OSError]) -> None:
        most = _MOST_RECORDS
        while len(outcomes) < len(records):
            run = records[len(outcomes) : len(outcomes) + most]
            run = run[: self._segments.fitting(run)]
            if self._descriptor is None or not run:
                self._begin()
                continue
            try:
                self._write(self._descriptor, run)
            except OSError as error:
                if len(run) == 1:
                    outcomes.append(error)
                most = 1  # a disk that is full may have room for some of them
                continue
            outcomes += map(self._segments.add, run)

    def _write(self, descriptor: int, run: Sequence[Record]) -> None:
        try:
            write_whole(
                descriptor, [part for record in run for part in (record.head, record.data)]
            )
        except OSError:
            try:
                os.ftruncate(descriptor, self._segments.size)
            except OSError:
                self.close()  # nothing is found behind a part of a record
            raise

    def _check(self) -> None:
        """Begin anew where somebody took the current segment away, or wrote to it."""
        if self._descriptor is not None:
            status = os.fstat(self._descriptor)
            if not status.st_nlink or status.st_size != self._segments.size:
                self.close()

    def _begin(self) -> None:
        self.close()
        while self._descriptor is None:
            file = file_of(self._root, self._segments.begin())
            try:
                with suppress(FileExistsError):  # somebody else's; the next number then
                    self._descriptor = _made(file)
            finally:
                if self._descriptor is None:
                    _ = self._segments.end()

    def _close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _sync(self, segment: int) -> None:
        descriptor = os.open(file_of(self._root, segment), _OLD)
        try:
            size = os.fstat(descriptor).st_size
            _synced(descriptor)
        except OSError:
            # Systems forget what they could not write: a second try would succeed and mean nothing.
            self._safe[segment] = None
            if segment == self._segments.current:
                self.close()
            raise
        finally:
            os.close(descriptor)
        self._safe[segment] = size


def file_of(root: Path, segment: int) -> Path:
    """Where a segment is."""
    return root / f"{segment}.segment"


def open_image(root: Path, place: Place, size: int) -> bytes | int | None:
    """The image where it is small, else a descriptor of its segment; None where it is not there.

    Raises OSError.
    """
    try:
        descriptor = os.open(file_of(root, place.segment), _OLD)
    except FileNotFoundError:
        return None
    if size <= CHUNK_BYTES:
        try:
            data = os.pread(descriptor, size, place.offset)
        finally:
            os.close(descriptor)
        return data if len(data) == size else None
    if os.fstat(descriptor).st_size < place.offset + size:
        os.close(descriptor)
        return None
    return descriptor


def write_whole(descriptor: int, parts: Sequence[bytes]) -> None:
    """Append all of it, or raise OSError after a part."""
    written = os.writev(descriptor, parts)
    if written < sum(
        map(len, parts)
    ):  # a disk that fills up says so when it is asked for the rest
        rest = memoryview(b"".join(parts))[written:]
        while rest:
            rest = rest[os.write(descriptor, rest) :]


def look_through(root: Path, *, most: int) -> Found:
    """What is in `root`, which is made (mode 0700) if it is missing; other files are left alone.

    Once `most` images are found, those in older segments are not looked for.
    """
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = Found()
    files: dict[int, Path] = {}
    with os.scandir(root) as entries:
        for entry in entries:
            match = _FILE.fullmatch(entry.name)
            if match is not None:
                found.last = max(found.last, int(match[1]))
                if entry.is_file(follow_symlinks=False):
                    files[int(match[1])] = Path(entry.path)
            elif len(entry.name) == 1 and entry.is_dir(follow_symlinks=False):
                _clear(Path(entry.path))
    for segment in sorted(files, reverse=True):
        _look_into(files[segment], segment, found, is_full=len(found.images) >= most)
    return found


def _look_into(file: Path, segment: int, found: Found, *, is_full: bool) -> None:
    with suppress(OSError):
        descriptor = os.open(file, _OLD)
        try:
            if MAGIC.startswith(os.pread(descriptor, len(MAGIC), 0)):
                found.segments.add(segment)
                if not is_full:
                    found.images = [*_images(descriptor, segment), *found.images]
        finally:
            os.close(descriptor)


def _images(descriptor: int, segment: int) -> Iterator[tuple[ImageName, Held, Place]]:
    """Whole records from the file's beginning: what a crash cut off is the last."""
    end = os.fstat(descriptor).st_size
    position = begin = 0
    window = b""
    while True:
        if position + LONGEST_HEAD > begin + len(window):
            window, begin = os.pread(descriptor, _WINDOW_BYTES, position), position
        head = parse_head(window, position - begin)
        if head is None or position + head.length + head.size > end:
            return
        place = Place(segment, position + head.length)
        yield head.name, Held(head.size, head.stored_at), place
        position = place.offset + head.size


def _clear(folder: Path) -> None:
    """Remove images that an earlier version kept in files of their own."""
    with suppress(OSError):
        for file in folder.iterdir():
            request, _, rest = file.name.partition(".")
            if parse_path(f"/stream/{request}/{rest}") is not None:
                file.unlink()
        folder.rmdir()


def _made(file: Path) -> int:
    try:
        return os.open(file, _NEW, 0o600)
    except FileNotFoundError:  # the folder was taken away
        file.parent.mkdir(mode=0o700)
        return os.open(file, _NEW, 0o600)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
