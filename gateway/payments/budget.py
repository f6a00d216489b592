"""What may still be promised: requests in flight by key, and wei in flight over all.

Every operation may be repeated: it is keyed by the request, so that a retry or a late clean-up
never counts twice.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

import msgspec

from network.units import Wei


@dataclass(frozen=True, slots=True)
class Limits:
    """None stands for no limit."""

    #: Wei that all requests in flight may cost together.
    max_wei_in_flight: Wei | None = None
    #: Requests in flight of one key that names no limit of its own.
    max_requests_per_key: int | None = None


class Shortfall(Enum):
    """Why nothing could be reserved."""

    KEY_REQUESTS = "the key has as many requests in flight as it may have"
    GATEWAY_WEI = "the requests in flight promise as much as the gateway may owe"
    IN_FLIGHT = "a request of this id is in flight"


class Held(msgspec.Struct, frozen=True):
    """The amount was reserved."""

    amount: Wei


@dataclass(frozen=True, slots=True)
class NotHeld:
    """The amount was not reserved; nothing changed."""

    reason: Shortfall
    limit: int


class Budget:
    """Reservations of the requests in flight."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._held: dict[str, tuple[str, Wei]] = {}
        self._by_key: Counter[str] = Counter()
        self._total = 0

    @property
    def total(self) -> Wei:
        return Wei(self._total)

    def in_flight(self, key_id: str) -> int:
        return self._by_key[key_id]

    def open(self, request_id: str, key_id: str, key_limit: int | None) -> Held | NotHeld:
        """Count a request in, with nothing promised yet. `key_limit` overrides the default."""
        if request_id in self._held:
            return NotHeld(Shortfall.IN_FLIGHT, 1)
        limit = self._limits.max_requests_per_key if key_limit is None else key_limit
        if limit is not None and self._by_key[key_id] >= limit:
            return NotHeld(Shortfall.KEY_REQUESTS, limit)
        self._held[request_id] = (key_id, Wei(0))
        self._by_key[key_id] += 1
        return Held(Wei(0))

    def hold(self, request_id: str, amount: Wei) -> Held | NotHeld:
        """Promise `amount` for a request in flight; what it held before is replaced."""
        key_id, before = self._held[request_id]
        total = self._total - before + amount
        limit = self._limits.max_wei_in_flight
        if limit is not None and amount > before and total > limit:
            return NotHeld(Shortfall.GATEWAY_WEI, limit)
        self._held[request_id] = (key_id, amount)
        self._total = total
        return Held(amount)

    def release(self, request_id: str) -> Wei:
        """Count a request out, however it ended; answers what it held, 0 if it was out already."""
        key_id, amount = self._held.pop(request_id, (None, Wei(0)))
        if key_id is not None:
            self._total -= amount
            self._by_key[key_id] -= 1
            if not self._by_key[key_id]:
                del self._by_key[key_id]
        return amount

    def validate(self) -> None:
        """Raise AssertionError unless the sums are the sums of what is held."""
        held: Mapping[str, tuple[str, Wei]] = self._held
        totals = Counter(key_id for key_id, _ in held.values())
        if totals != self._by_key or self._total != sum(a for _, a in held.values()):
            raise AssertionError(f"budget is out of balance: {held} {self._by_key} {self._total}")
