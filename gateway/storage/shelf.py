"""Which images are held, until when, and which must go. Pure: the disk does what it says."""

from collections import OrderedDict
from collections.abc import Iterable

import msgspec

from gateway.storage.names import ImageName


class Held(msgspec.Struct, frozen=True, gc=False):
    """One image on the shelf: its size in bytes and when (unix seconds) it was put there."""

    size: int
    stored_at: float


class Shelf:
    """An index of images, oldest first, within a lifetime (seconds), a total size (bytes) and a count.

    However small images are, each takes some memory here and in its store.
    """

    def __init__(self, *, lifetime: float, max_bytes: int, max_count: int) -> None:
        self._lifetime = lifetime
        self._max_bytes = max_bytes
        self._max_count = max_count
        self._held: OrderedDict[ImageName, Held] = OrderedDict()
        self._bytes = 0

    @property
    def total_bytes(self) -> int:
        return self._bytes

    def __len__(self) -> int:
        return len(self._held)

    def __contains__(self, name: ImageName) -> bool:
        return name in self._held

    def restore(self, found: Iterable[tuple[ImageName, Held]]) -> None:
        """Take over what an earlier run left, in the order of its age."""
        for name, held in sorted(found, key=lambda pair: pair[1].stored_at):
            self._add(name, held)

    def put(self, name: ImageName, size: int, now: float) -> tuple[ImageName, ...]:
        """Add an image and return those that must leave for it, oldest first."""
        self._add(name, Held(size, now))
        return self.trim()

    def trim(self) -> tuple[ImageName, ...]:
        """Drop and return what is too much, oldest first."""
        leaving: list[ImageName] = []
        # The newest stays even when it alone exceeds the cap: its client was told where it is.
        while self._is_too_much() and len(self._held) > 1:
            oldest = next(iter(self._held))
            self._drop(oldest)
            leaving.append(oldest)
        return tuple(leaving)

    def find(self, name: ImageName, now: float) -> Held | None:
        """The image if it is still to be served at `now`."""
        held = self._held.get(name)
        if held is None or now >= held.stored_at + self._lifetime:
            return None
        return held

    def expire(self, now: float) -> tuple[ImageName, ...]:
        """Drop and return everything whose lifetime is over."""
        leaving: list[ImageName] = []
        while self._held:
            oldest, held = next(iter(self._held.items()))
            if now < held.stored_at + self._lifetime:
                break
            self._drop(oldest)
            leaving.append(oldest)
        return tuple(leaving)

    def forget(self, name: ImageName) -> None:
        """Drop an image whose file turned out to be gone."""
        if name in self._held:
            self._drop(name)

    def validate(self) -> None:
        """Raise AssertionError when the books do not add up (tests)."""
        total = sum(held.size for held in self._held.values())
        if total != self._bytes:
            raise AssertionError(f"shelf counts {self._bytes} bytes but holds {total}")

    def _is_too_much(self) -> bool:
        return self._bytes > self._max_bytes or len(self._held) > self._max_count

    def _add(self, name: ImageName, held: Held) -> None:
        self.forget(name)
        self._held[name] = held
        self._bytes += held.size

    def _drop(self, name: ImageName) -> None:
        self._bytes -= self._held.pop(name).size
