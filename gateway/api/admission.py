"""How many requests may be under way: over all, and for each key. Pure."""

from collections.abc import Iterator
from contextlib import contextmanager

from gateway.keys import KeyGrant, called
from network.errors import Problem, ProblemError
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
        """Hold a place. Raises ProblemError 429 (this key's or address's share) or 503 (the gateway's)."""
        mine = self._by_key.get(grant.key_id, 0)
        allowed = self._per_key if grant.max_in_flight is None else grant.max_in_flight
        if mine >= allowed:
            raise ProblemError(_too_many(called(grant.key_id), mine))
        client, held = grant.client, 0
        if client is not None:
            held = self._by_key.get(grant.owner, 0)
            if held >= client.max_in_flight:
                raise ProblemError(_too_many("Your address", held))
        if self._in_flight >= self._total:
            message = "The gateway has as many requests under way as it takes."
            raise ProblemError(problems.no_capacity(_RETRY_AFTER, message))
        self._in_flight += 1
        self._by_key[grant.key_id] = mine + 1
        if client is not None:
            self._by_key[grant.owner] = held + 1
        try:
            yield
        finally:
            self._in_flight -= 1
            self._leave(grant.key_id)
            if client is not None:
                self._leave(grant.owner)

    def _leave(self, holder: str) -> None:
        left = self._by_key[holder] - 1
        if left:
            self._by_key[holder] = left
        else:
            del self._by_key[holder]


def check_steps(grant: KeyGrant, steps: int) -> None:
    """Raise ProblemError 403 for more steps than the grant allows a request."""
    if grant.max_steps is not None and steps > grant.max_steps:
        who = called(grant.key_id)
        message = f"{who} may ask for {grant.max_steps} steps; this request has {steps}."
        raise ProblemError(problems.forbidden(message))


def _too_many(who: str, held: int) -> Problem:
    message = f"{who} already has {held} requests under way, its limit."
    return problems.rate_limited(_RETRY_AFTER, message)
