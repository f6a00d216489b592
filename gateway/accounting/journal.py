"""The gateway's usage journal: what was accepted, who was asked, what it cost.

Events are appended and nothing is ever changed. A request is open from its acceptance to its settlement;
an attempt's outcome and its request's settlement are written together, so that what was settled and what
was delivered always add up to the same wei.
"""

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

import structlog
from sqlalchemy import Connection

from gateway.accounting import queries
from gateway.accounting.events import (
    Accepted,
    Attempt,
    AttemptState,
    DailySpending,
    Event,
    Grouping,
    OrchestratorTotal,
    Outcome,
    Receipt,
    RequestRecord,
    RequestState,
    Settlement,
    TicketBatch,
    UsageTotal,
)
from gateway.accounting.interrupted import lost, open_attempts
from gateway.accounting.payments import PaymentState, payment_state
from gateway.accounting.records import decode_rows, encode_rows, missing, row_of
from gateway.accounting.write_ahead import WriteAheadLog, open_write_ahead_log
from network.errors import DatabaseError
from network.runtime.database import Database
from network.runtime.inserting import Row

__all__ = [
    "MIGRATIONS",
    "Accepted",
    "Attempt",
    "AttemptState",
    "Grouping",
    "Journal",
    "OrchestratorTotal",
    "Outcome",
    "Receipt",
    "RequestRecord",
    "RequestState",
    "Settlement",
    "TicketBatch",
    "UsageTotal",
    "open_journal",
]

#: The package with the alembic environment of the gateway's database.
MIGRATIONS: Final = "gateway.accounting.migrations"
#: How long the database may be behind the write-ahead log: one transaction for all of that time.
#: The log has room for what comes in the while at many times the rate of any gateway.
_BEHIND_SECONDS: Final = 0.05

_T = TypeVar("_T")

_log = structlog.get_logger(__name__)


class Journal:
    """Made by `open_journal`."""

    def __init__(self, database: Database, ahead: WriteAheadLog) -> None:
        self._database = database
        self._ahead = ahead
        #: Rows in the write-ahead log that the database was not given yet, by record.
        self._behind: list[list[Row]] = []
        self._flushing: asyncio.TimerHandle | None = None
        self._writing: set[asyncio.Future[None]] = set()
        self._is_failing = False

    async def write(self, *events: Event) -> None:
        """Return when all events are durable; they become so together or not at all.

        Raises DatabaseError; nothing is written then.
        """
        self._flush()  # what came before is written before
        await self._database.append([row_of(event) for event in events])

    async def intend(self, *events: Event) -> None:
        """Return when the end of this process would lose none of the events.

        A power cut may take them back until something recorded later is durable. Raises
        DatabaseError if they cannot be kept.
        """
        rows = [row_of(event) for event in events]
        # A database that refuses is asked each time: not much more may be promised on its account.
        if self._is_failing or self._database.is_closed or not self._keep(rows):
            self._flush()
            await self._submit(rows)

    def record(self, *events: Event) -> Awaitable[None]:
        """Write beside the caller; await the answer for the events to be durable.

        It does not raise, and cancelling it takes nothing back. What could not be written is
        logged, and the request is closed as interrupted at the next start.
        """
        rows = [row_of(event) for event in events]
        if not rows:
            return _done()
        if self._keep(rows):
            return self._ahead.sync()
        self._flush()
        try:
            return _ended(self._submit(rows))
        except DatabaseError as error:
            _tell(error)
            return _done()

    def _keep(self, rows: list[Row]) -> bool:
        if not self._ahead.keep(encode_rows(rows)):
            return False
        self._behind.append(rows)
        if self._flushing is None:
            loop = asyncio.get_running_loop()
            self._flushing = loop.call_later(_BEHIND_SECONDS, self._flush)
        return True

    def _flush(self) -> None:
        """Give the database what only the write-ahead log has."""
        if self._flushing is not None:
            self._flushing.cancel()
            self._flushing = None
        behind, self._behind = self._behind, []
        for rows in behind:
            try:
                self._submit(rows).add_done_callback(self._forget)
            except DatabaseError as error:
                _tell(error)

    def _submit(self, rows: list[Row]) -> asyncio.Future[None]:
        written = self._database.submit(rows)
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

    def _forget(self, written: asyncio.Future[None]) -> None:
        # What the database refused stays in the write-ahead log, for the next start.
        if not written.cancelled() and written.exception() is None:
            self._ahead.forget()

    async def drain(self) -> None:
        """Return when the database has everything that it will take."""
        self._flush()
        while self._writing:
            await asyncio.wait(self._writing)

    async def usage(
        self, by: Grouping, since: float = 0.0, until: float | None = None
    ) -> tuple[UsageTotal, ...]:
        """Exact totals of settled requests accepted in `since <= t < until` (unix seconds)."""
        return await self._read(lambda c: queries.usage(c, by, since, until))

    async def spending(self, since: float) -> tuple[DailySpending, ...]:
        """What was settled since then (unix seconds), by key and day."""
        return await self._read(lambda c: queries.spending(c, since))

    async def orchestrator_totals(self, since: float = 0.0) -> tuple[OrchestratorTotal, ...]:
        """Totals of the attempts started since then (unix seconds), by URI."""
        return await self._read(lambda c: queries.orchestrator_totals(c, since))

    async def requests(
        self, limit: int | None = 50, key_id: str | None = None
    ) -> tuple[RequestRecord, ...]:
        """The latest requests, the newest first; without a limit all of them."""
        return await self._read(lambda c: queries.latest(c, limit, key_id))

    async def request(self, request_id: str) -> RequestRecord | None:
        return await self._read(lambda c: queries.one(c, request_id))

    async def payment_state(self, now: float) -> PaymentState:
        """Balances, attempts in doubt and tickets that are out, for a start (unix seconds)."""
        return await self._read(lambda c: payment_state(c, now))

    async def read(self, query: Callable[[Connection], _T]) -> _T:
        """For rows that come by this journal and are another's to read.

        `query` sees everything that was recorded before. Raises DatabaseError.
        """
        return await self._read(query)

    async def _read(self, query: Callable[[Connection], _T]) -> _T:
        """`query` sees everything that was recorded before."""
        self._flush()
        if self._writing:
            await asyncio.wait(tuple(self._writing))
        return await self._database.read(query)

    async def close_interrupted(self, now: float, *, resumable_since: float = math.inf) -> int:
        """Settle what an earlier process left open, for nothing. Answers how many requests.

        For the gateway's start, before it takes requests: whatever is open then is nobody's. Left open is
        what was promised, and sent after `resumable_since` (unix seconds): `resumable` tells of it.
        """
        await self._catch_up()
        events = await self._read(lambda c: lost(c, now, resumable_since))
        if events:
            await self.write(*events)
        interrupted = sum(isinstance(event, Settlement) for event in events)
        if interrupted:
            _log.warning("requests_interrupted", requests=interrupted)
        return interrupted

    async def resumable(self) -> tuple[Attempt, ...]:
        """The attempts that `close_interrupted` left open; before requests are taken."""
        return await self._read(open_attempts)

    async def _catch_up(self) -> None:
        """Give the database what an earlier process had in its write-ahead log only."""
        for record in self._ahead.left():
            rows = decode_rows(record)
            try:
                await self._database.append(await self._database.read(partial(missing, rows=rows)))
            except DatabaseError as error:
                _tell(error)
        self._ahead.clear()


@asynccontextmanager
async def open_journal(
    database: Database, write_ahead: Path, *, is_synced: bool = True
) -> AsyncIterator[Journal]:
    """A journal over an open database, with the file `write_ahead` for what it does not have yet.

    At exit every pending line has been written. Raises ConfigError when the file cannot be used.
    """
    async with open_write_ahead_log(write_ahead, is_synced=is_synced) as log:
        journal = Journal(database, log)
        try:
            yield journal
        finally:
            await journal.drain()


def _ended(written: asyncio.Future[None]) -> asyncio.Future[None]:
    """Done when `written` came to its end, whichever; the journal logs it."""
    ended: asyncio.Future[None] = written.get_loop().create_future()

    def end(_: asyncio.Future[None]) -> None:
        if not ended.done():
            ended.set_result(None)

    written.add_done_callback(end)
    return ended


def _done() -> asyncio.Future[None]:
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    future.set_result(None)
    return future


def _tell(error: BaseException) -> None:
    _log.error("journal_write_failed", error=str(error), exc_info=False)
