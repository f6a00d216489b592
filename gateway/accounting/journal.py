"""The gateway's usage journal: what was accepted, who was asked, what it cost.

Events are appended and nothing is ever changed. A request is open from its acceptance to its settlement;
an attempt's outcome and its request's settlement are written together, so that what was settled and what
was delivered always add up to the same wei.
"""

import asyncio
from collections.abc import AsyncIterator, Generator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

import structlog
from sqlalchemy import Connection, select

from gateway.accounting import queries
from gateway.accounting.events import (
    Accepted,
    Attempt,
    AttemptState,
    Event,
    Grouping,
    OrchestratorTotal,
    Outcome,
    RequestRecord,
    RequestState,
    Settlement,
    UsageTotal,
)
from gateway.accounting.intents import Intents, open_intents
from gateway.accounting.records import decode_rows, encode_rows, missing, row_of
from gateway.accounting.tables import attempts, outcomes, requests, settlements
from network.errors import DatabaseError
from network.runtime.database import Database
from network.runtime.inserting import Row
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

_log = structlog.get_logger(__name__)


class Writing:
    """Events on their way to the disk. Awaiting it does not raise, and cancelling takes nothing back."""

    __slots__ = ("_written",)

    def __init__(self, written: asyncio.Future[None]) -> None:
        self._written = written

    def __await__(self) -> Generator[Any, None, None]:
        with suppress(DatabaseError):  # logged by the journal
            yield from self._written.__await__()


class Journal:
    """Made by `open_journal`."""

    def __init__(self, database: Database, intents: Intents) -> None:
        self._database = database
        self._intents = intents
        self._writing: set[asyncio.Future[None]] = set()
        self._is_failing = False

    async def write(self, *events: Event) -> None:
        """Return when all events are durable; they become so together or not at all."""
        await self._database.append([row_of(event) for event in events])

    async def intend(self, *events: Event) -> None:
        """Return when the end of this process would lose none of the events.

        They are in the database, on disk, some milliseconds later, and before whatever is
        written after them. Raises DatabaseError where the database refuses them; once it has
        refused anything, this waits for it.
        """
        rows = [row_of(event) for event in events]
        waits = self._is_failing
        written = self._submit(rows, in_hurry=waits)
        if waits or not self._intents.keep(encode_rows(rows)):
            await written
        else:
            written.add_done_callback(self._forget_intent)

    def write_later(self, *events: Event) -> Writing:
        """Write beside the caller.

        What could not be written is logged, and the request is closed as interrupted at the
        next start.
        """
        if not events:
            return Writing(_done())
        try:
            return Writing(self._submit([row_of(event) for event in events]))
        except DatabaseError as error:
            _tell(error)
            return Writing(_done())

    def _submit(self, rows: list[Row], *, in_hurry: bool = True) -> asyncio.Future[None]:
        written = self._database.submit(rows, in_hurry=in_hurry)
        self._writing.add(written)
        written.add_done_callback(self._note_end)
        return written

    def _note_end(self, written: asyncio.Future[None]) -> None:
        self._writing.discard(written)
        if written.cancelled():
            return
        error = written.exception()
        self._is_failing = error is not None
        if error is not None:
            _tell(error)

    def _forget_intent(self, written: asyncio.Future[None]) -> None:
        # What the database refused stays among the intents, for the next start.
        if not written.cancelled() and written.exception() is None:
            self._intents.forget()

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
        await self._write_intents()
        lost = await self._database.read(lambda c: _lost(c, now))
        if lost:
            await self.write(*lost)
        interrupted = sum(isinstance(event, Settlement) for event in lost)
        if interrupted:
            _log.warning("requests_interrupted", requests=interrupted)
        return interrupted

    async def _write_intents(self) -> None:
        """Bring what an earlier process had meant to do into the database."""
        rows = [row for record in self._intents.left() for row in decode_rows(record)]
        await self._database.append(await self._database.read(lambda c: missing(c, rows)))
        self._intents.clear()


@asynccontextmanager
async def open_journal(database: Database, intents: Path) -> AsyncIterator[Journal]:
    """A journal over an open database, with the file `intents` for what it does not have yet.

    At exit every pending line has been written. Raises ConfigError when the file cannot be used.
    """
    async with AsyncExitStack() as stack:
        journal = Journal(database, stack.enter_context(open_intents(intents)))
        try:
            yield journal
        finally:
            await journal.drain()


def _done() -> asyncio.Future[None]:
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    future.set_result(None)
    return future


def _tell(error: BaseException) -> None:
    _log.error("journal_write_failed", error=str(error), exc_info=False)


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
