"""Answers that were given, and where their images are. Pure: the image store has the bytes."""

from collections import OrderedDict
from dataclasses import dataclass

from gateway.storage.names import ImageName
from network.units import Wei
from network.wire.safety import Safety


@dataclass(frozen=True, slots=True)
class RememberedImage:
    """One image as it came, under a name that nobody was told."""

    name: ImageName
    size: int
    seed: int
    safety: Safety


@dataclass(frozen=True, slots=True)
class Remembered:
    """An answer that may be given again."""

    #: Of the request that was run for it, as the journal has it.
    request_id: str
    images: tuple[RememberedImage, ...]
    #: What was paid for it.
    fee: Wei
    orchestrator: str
    warnings: str
    #: Unix seconds, before the first of its images was stored.
    stored_at: float


class Memory:
    """So many answers as have room, each for the lifetime (seconds) of its images."""

    def __init__(self, *, most: int, lifetime: float) -> None:
        self._most = most
        self._lifetime = lifetime
        #: What was asked for least lately is first.
        self._kept: OrderedDict[bytes, Remembered] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def find(self, digest: bytes, now: float) -> Remembered | None:
        """The answer that is still good at `now` (unix seconds)."""
        found = self._kept.get(digest)
        if found is None:
            return None
        if not 0 <= now - found.stored_at < self._lifetime:
            del self._kept[digest]
            return None
        self._kept.move_to_end(digest)
        return found

    def put(self, digest: bytes, answer: Remembered) -> None:
        """Remember it in place of what was, and forget the least used where there is no room."""
        self._kept[digest] = answer
        self._kept.move_to_end(digest)
        while len(self._kept) > self._most:
            self._kept.popitem(last=False)

    def forget_of(self, orchestrator: str) -> None:
        """What came from this URI is not to be given again."""
        found = [name for name, one in self._kept.items() if one.orchestrator == orchestrator]
        for digest in found:
            del self._kept[digest]

    def forget(self, digest: bytes, answer: Remembered) -> None:
        """An image of it is gone. What took its place meanwhile stays."""
        if self._kept.get(digest) is answer:
            del self._kept[digest]
