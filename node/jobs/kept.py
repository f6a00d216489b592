"""Answers that were delivered, for a while: a gateway that asks again for one gets it again. Pure.

Kept in memory only, within bounds of size and time; whoever is pushed out is refused as before.
"""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Generic, TypeVar

from network.units import Address

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Claim:
    """Who asked for what under which id. An answer is for an equal claim, and for no other."""

    attempt_id: str
    payer: Address
    #: SHA-256 of the request's body.
    digest: bytes


@dataclass(frozen=True, slots=True)
class _Kept(Generic[_T]):
    answer: _T
    size: int
    until: float


class KeptAnswers(Generic[_T]):
    """The newest answers, no more than `max_bytes` of them and none for longer than `lifetime` seconds.

    All times are of one monotonic clock.
    """

    def __init__(self, max_bytes: int, lifetime: float) -> None:
        self._max_bytes = max_bytes
        self._lifetime = lifetime
        #: The oldest first.
        self._kept: OrderedDict[Claim, _Kept[_T]] = OrderedDict()
        self._size = 0

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def size(self) -> int:
        """Bytes of all that are kept."""
        return self._size

    def keep(self, claim: Claim, answer: _T, size: int, now: float) -> None:
        """Keep an answer of `size` bytes; the oldest make room for it. One that has none is not kept."""
        self.sweep(now)
        self._drop(claim)
        if size > self._max_bytes or not self._lifetime:
            return
        while self._size + size > self._max_bytes:
            self._drop(next(iter(self._kept)))
        self._kept[claim] = _Kept(answer, size, now + self._lifetime)
        self._size += size

    def find(self, claim: Claim, now: float) -> _T | None:
        """Return what was delivered for an equal claim; being asked for keeps it no longer."""
        self.sweep(now)
        kept = self._kept.get(claim)
        return None if kept is None else kept.answer

    def sweep(self, now: float) -> None:
        """Forget those whose time is over."""
        while self._kept:
            claim = next(iter(self._kept))
            if self._kept[claim].until > now:
                return
            self._drop(claim)

    def _drop(self, claim: Claim) -> None:
        kept = self._kept.pop(claim, None)
        if kept is not None:
            self._size -= kept.size
