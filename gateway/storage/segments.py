"""Which segment file takes the next image, and which are not needed any more. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, Self

import msgspec

SMALLEST_BYTES: Final = 1 << 20
LARGEST_BYTES: Final = 64 << 20
#: Of the whole store's size and of an image's lifetime, what one segment holds.
_PARTS: Final = 16


class Place(msgspec.Struct, frozen=True, order=True, gc=False):
    """Where an image's bytes begin."""

    segment: int
    offset: int


class Record(NamedTuple):
    """An image on its way into a segment; `stored_at` in unix seconds."""

    head: bytes
    data: bytes
    stored_at: float


@dataclass(frozen=True, slots=True)
class Bounds:
    """A segment takes no more images once it has so many bytes, or its first is so many seconds older."""

    size: int
    seconds: float

    @classmethod
    def within(cls, *, lifetime: float, max_bytes: int) -> Self:
        """Small parts of a store: a segment's file stays until the last of its images leaves."""
        size = min(max(max_bytes // _PARTS, SMALLEST_BYTES), LARGEST_BYTES)
        return cls(size, lifetime / _PARTS)


class Segments:
    """The books of one store's segments, which are numbered in the order of their age."""

    def __init__(self, bounds: Bounds, *, last: int, needed: Mapping[int, int]) -> None:
        """`last` is the highest number taken; `needed` has the images of each segment still there."""
        self._bounds = bounds
        self._needed = dict(needed)
        self._since = 0.0
        #: The one that takes images. After a start there is none: nothing is added to what a crash left.
        self.current: int | None = None
        self._last = last
        #: Of the current one, in bytes.
        self.size = 0

    def begin(self) -> int:
        """Number a new segment, which takes the images from now on."""
        self._last += 1
        self.current, self.size = self._last, 0
        self._needed[self._last] = 0
        return self._last

    def fitting(self, records: Sequence[Record]) -> int:
        """How many of them the current segment takes before a new one has to begin."""
        if self.current is None:
            return 0
        end, since = self.size, self._since
        for count, record in enumerate(records):
            if not end:
                since = record.stored_at
            is_late = not 0 <= record.stored_at - since <= self._bounds.seconds
            if end >= self._bounds.size or is_late:
                return count
            end += len(record.head) + len(record.data)
        return len(records)

    def add(self, record: Record) -> Place:
        """Count a record that was written to the current segment's end."""
        if self.current is None:
            raise RuntimeError("no segment takes images")
        if not self.size:
            self._since = record.stored_at
        place = Place(self.current, self.size + len(record.head))
        self.size = place.offset + len(record.data)
        self._needed[self.current] += 1
        return place

    def end(self) -> int | None:
        """The current segment takes no more images; its number if none is needed of it."""
        segment, self.current = self.current, None
        return segment if segment is not None and self._forgets(segment) else None

    def release(self, segment: int) -> bool:
        """One image fewer is needed of a segment: whether that was the last, and it may go."""
        self._needed[segment] -= 1
        if not self._forgets(segment):
            return False
        if segment == self.current:
            self.current = None
        return True

    def validate(self) -> None:
        """Raise AssertionError when the books do not add up (tests)."""
        if min(self._needed.values(), default=0) < 0 or max(self._needed, default=0) > self._last:
            raise AssertionError(f"segments are needed {self._needed}, the last is {self._last}")

    def _forgets(self, segment: int) -> bool:
        if self._needed[segment]:
            return False
        del self._needed[segment]
        return True
