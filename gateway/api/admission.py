"""How many requests may be under way: over all, and for each key. Pure."""

from collections.abc import Iterator
from contextlib import contextmanager

from gateway.keys import KeyGrant
from network.errors import ProblemError
from network.wire import problems

#: Seconds after which a refused client may try again; a place frees with every finished image.
_RETRY_AFTER = 2.0


class Admission:
    """Counts requests between their authentication and their answer."""

    def __init__(self, *, total: int, per_key: int) -> None:
        self._total = total
        self._per_key = per_key
        self._in_flight = 0
        self._by_key: dict[str, int] = {}

    @property
    def in_flight(self) -> int:
        return self._in_flight

    @contextmanager
    def place(self, grant: KeyGrant) -> Iterator[None]:
        """Hold a place. Raises ProblemError 429 (this key's share) or 503 (the gateway's)."""
        mine = self._by_key.get(grant.key_id, 0)
        allowed = self._per_key if grant.max_in_flight is None else grant.max_in_flight
        if mine >= allowed:
            message = f"This key already has {mine} requests under way, its limit."
            raise ProblemError(problems.rate_limited(_RETRY_AFTER, message))
        if self._in_flight >= self._total:
            message = "The gateway has as many requests under way as it takes."
            raise ProblemError(problems.no_capacity(_RETRY_AFTER, message))
        self._in_flight += 1
        self._by_key[grant.key_id] = mine + 1
        try:
            yield
        finally:
            self._leave(grant.key_id)

    def _leave(self, key_id: str) -> None:
        self._in_flight -= 1
        left = self._by_key[key_id] - 1
        if left:
            self._by_key[key_id] = left
        else:
            del self._by_key[key_id]
