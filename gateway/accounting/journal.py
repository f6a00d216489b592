"""The gateway's usage journal: what was accepted, who was asked, what it cost.

Events are appended and nothing is ever changed. A request is open from its acceptance to its settlement;
an attempt's outcome and its request's settlement are written together, so that what was settled and what
was delivered always add up to the same wei.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import fields
from typing import Final, TypeAlias

import structlog
from sqlalchemy import Connection, Table, select

from gateway.accounting import queries
from gateway.accounting.events import (
    Accepted,
    Attempt,
    AttemptState,
    Grouping,
    OrchestratorTotal,
    Outcome,
    RequestRecord,
    RequestState,
    Settlement,
    UsageTotal,
)
from gateway.accounting.tables import attempts, outcomes, requests, settlements
from network.errors import DatabaseError
from network.runtime.database import Database
from network.units import Wei

__all__ = [
    "MIGRATIONS",
    "Accepted",
    "Attempt",
    "AttemptState",
    "Grouping",
    "Journal",
    "OrchestratorTotal",
    "Outcome",
    "RequestRecord",
    "RequestState",
    "Settlement",
    "UsageTotal",
    "open_journal",
]

#: The package with the alembic environment of the gateway's database.
MIGRATIONS: Final = "gateway.accounting.migrations"
_INTERRUPTED: Final = "the gateway stopped"

Event: TypeAlias = Accepted | Attempt | Outcome | Settlement
_TABLES: Final[Mapping[type, Table]] = {
    Accepted: requests,
    Attempt: attempts,
    Outcome: outcomes,
    Settlement: settlements,
}
_COLUMNS: Final = {kind: tuple(f.name for f in fields(kind)) for kind in _TABLES}

_log = structlog.get_logger(__name__)


class Journal:
    """Made by `open_journal`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._writing: set[asyncio.Future[None]] = set()

    async def write(self, *events: Event) -> None:
        """Return when all events are durable; they become so together or not at all."""
        await self._database.append([_row(event) for event in events])

    def write_later(self, *events: Event) -> asyncio.Future[None]:
        """Write beside the caller; the future is done when that came to its end.

        Cancelling it takes nothing back, and it never raises. What could not be written is
        logged, and the request is closed as interrupted at the next start.
        """
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        try:
            writing = self._database.submit([_row(event) for event in events])
        except DatabaseError as error:
            _tell(error)
            ended.set_result(None)
            return ended
        self._writing.add(writing)

        def end(written: asyncio.Future[None]) -> None:
            self._writing.discard(written)
            error = written.exception()
            if error is not None:
                _tell(error)
            if not ended.done():
                ended.set_result(None)

        writing.add_done_callback(end)
        return ended

    async def drain(self) -> None:
        """Return when everything to be written later is."""
        while self._writing:
            await asyncio.wait(self._writing)

    async def usage(
        self, by: Grouping, since: float = 0.0, until: float | None = None
    ) -> tuple[UsageTotal, ...]:
        """Exact totals of settled requests accepted in `since <= t < until` (unix seconds)."""
        return await self._database.read(lambda c: queries.usage(c, by, since, until))

    async def orchestrator_totals(self, since: float = 0.0) -> tuple[OrchestratorTotal, ...]:
        """Totals of the attempts started since then (unix seconds), by URI."""
        return await self._database.read(lambda c: queries.orchestrator_totals(c, since))

    async def requests(
        self, limit: int | None = 50, key_id: str | None = None
    ) -> tuple[RequestRecord, ...]:
        """The latest requests, the newest first; without a limit all of them."""
        return await self._database.read(lambda c: queries.latest(c, limit, key_id))

    async def request(self, request_id: str) -> RequestRecord | None:
        return await self._database.read(lambda c: queries.one(c, request_id))

    async def close_interrupted(self, now: float) -> int:
        """Settle what an earlier process left open, for nothing. Answers how many requests.

        For the gateway's start, before it takes requests: whatever is open then is nobody's.
        """
        lost = await self._database.read(lambda c: _lost(c, now))
        if lost:
            await self.write(*lost)
        interrupted = sum(isinstance(event, Settlement) for event in lost)
        if interrupted:
            _log.warning("requests_interrupted", requests=interrupted)
        return interrupted


@asynccontextmanager
async def open_journal(database: Database) -> AsyncIterator[Journal]:
    """A journal over an open database. At exit every pending line has been written."""
    journal = Journal(database)
    try:
        yield journal
    finally:
        await journal.drain()


def _tell(error: BaseException) -> None:
    _log.error("journal_write_failed", error=str(error), exc_info=False)


def _row(event: Event) -> tuple[Table, Mapping[str, object]]:
    kind = type(event)
    row: dict[str, object] = {name: getattr(event, name) for name in _COLUMNS[kind]}
    if isinstance(event, Attempt):
        row["price"] = f"{event.price.numerator}/{event.price.denominator}"
    return _TABLES[kind], row


def _lost(connection: Connection, now: float) -> list[Event]:
    open_requests = connection.execute(
        select(requests.c.request_id)
        .outerjoin(settlements, settlements.c.request_id == requests.c.request_id)
        .where(settlements.c.request_id.is_(None))
    ).scalars()
    events: list[Event] = [
        Settlement(request_id, "interrupted", Wei(0), now, reason=_INTERRUPTED)
        for request_id in open_requests
    ]
    open_attempts = connection.execute(
        select(attempts.c.attempt_id, attempts.c.started_at)
        .outerjoin(outcomes, outcomes.c.attempt_id == attempts.c.attempt_id)
        .where(outcomes.c.attempt_id.is_(None))
    )
    for attempt_id, started_at in open_attempts:
        seconds = max(now - started_at, 0.0)
        events.append(
            Outcome(attempt_id, "interrupted", Wei(0), now, seconds, reason=_INTERRUPTED)
        )
    return events
