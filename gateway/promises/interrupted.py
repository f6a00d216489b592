"""Attempts at promises that an earlier process was cut off from: what they came to is not known here."""

from collections.abc import Iterable

import structlog

from gateway.accounting.events import Attempt
from gateway.accounting.interrupted import ends_of
from gateway.accounting.journal import Journal
from network.runtime.clock import Clock

_log = structlog.get_logger(__name__)


class Interrupted:
    """By the journal's id of their request, which is open until somebody takes it up, or `close`."""

    def __init__(self, attempts: Iterable[Attempt], journal: Journal, clock: Clock) -> None:
        self._journal = journal
        self._clock = clock
        self._left: dict[str, tuple[Attempt, ...]] = {}
        for attempt in attempts:
            before = self._left.get(attempt.request_id, ())
            self._left[attempt.request_id] = (*before, attempt)

    def __len__(self) -> int:
        return len(self._left)

    def __contains__(self, request_id: str) -> bool:
        return request_id in self._left

    def take(self, request_id: str) -> tuple[Attempt, ...]:
        """Take a request up, once; without attempts where nothing is known of it."""
        return self._left.pop(request_id, ())

    async def close(self) -> None:
        """Nobody asked for the rest again: it is settled for nothing. Raises DatabaseError."""
        now, left = self._clock.now(), self._left
        self._left = {}
        events = [
            event
            for request_id, attempts in left.items()
            for event in ends_of(request_id, attempts, now)
        ]
        if events:
            await self._journal.write(*events)
            _log.warning("requests_interrupted", requests=len(left))
