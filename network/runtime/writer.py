"""The one thread that writes to a database.

Whatever was handed to it while it was busy becomes one transaction with one sync to disk.
"""

import asyncio
import queue
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, TypeAlias

import structlog
from sqlalchemy import Connection, Engine, Executable

from network.errors import DatabaseError
from network.runtime.inserting import Inserter, Row

#: Rows of one transaction; bounds how long the first of them waits for the last.
_MOST_ROWS: Final = 20_000

_log = structlog.get_logger(__name__)


@dataclass(slots=True, eq=False)
class _Append:
    rows: Sequence[Row]
    done: asyncio.Future[None]

    @property
    def size(self) -> int:
        return len(self.rows)


@dataclass(slots=True, eq=False)
class _Execute:
    statements: Sequence[Executable]
    done: asyncio.Future[tuple[int, ...]]

    @property
    def size(self) -> int:
        return len(self.statements)


_Write: TypeAlias = _Append | _Execute
_Outcome: TypeAlias = tuple[_Write, tuple[int, ...] | DatabaseError]


class Writer:
    """Used from one event loop; what is handed over takes effect in that order."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._inserter = Inserter(engine.dialect)
        #: Kept between transactions, given back when one fails.
        self._connection: Connection | None = None
        self._queue: queue.SimpleQueue[_Write | None] = queue.SimpleQueue()
        self._closed = False
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run, name="database-writer")
        self._thread.start()

    @property
    def is_closed(self) -> bool:
        return self._closed

    def append(self, rows: Sequence[Row]) -> asyncio.Future[None]:
        """Insert `rows`, all or none; done when they are on disk. Raises DatabaseError if closed.

        Cancelling the future takes nothing back.
        """
        done: asyncio.Future[None] = self._loop.create_future()
        self._submit(_Append(rows, done))
        return done

    def execute(self, statements: Sequence[Executable]) -> asyncio.Future[tuple[int, ...]]:
        """Run `statements` in order, all or none; their row counts. As `append`."""
        done: asyncio.Future[tuple[int, ...]] = self._loop.create_future()
        self._submit(_Execute(statements, done))
        return done

    def close(self) -> None:
        """Write what was handed over and refuse the rest; returns at once, see `join`."""
        if not self._closed:
            self._closed = True
            self._queue.put(None)

    def join(self) -> None:
        """Block until everything is written and the connection given back."""
        self._thread.join()

    def _submit(self, write: _Write) -> None:
        if self._closed:
            raise DatabaseError("the database is closed")
        self._queue.put(write)

    def _run(self) -> None:
        is_last = False
        while not is_last:
            batch, is_last = self._next_batch()
            if batch:
                outcomes = self._write(batch)
                # The loop may be gone when a program is torn down without closing us.
                with suppress(RuntimeError):
                    self._loop.call_soon_threadsafe(_resolve, outcomes)
        self._let_go()

    def _next_batch(self) -> tuple[list[_Write], bool]:
        """What has gathered, up to a bound, and whether nothing follows it."""
        batch: list[_Write] = []
        rows = 0
        write = self._queue.get()
        with suppress(queue.Empty):
            while write is not None:
                batch.append(write)
                rows += write.size
                if rows >= _MOST_ROWS:
                    return batch, False
                write = self._queue.get_nowait()
            return batch, True
        return batch, False

    def _write(self, batch: list[_Write]) -> list[_Outcome]:
        """One transaction for all; if a statement fails, one for each: only the bad is lost."""
        began = False
        try:
            connection = self._connection = self._connection or self._engine.connect()
            with connection.begin():
                began = True
                return self._apply(connection, batch)
        except Exception as error:  # noqa: BLE001  a binding may raise anything
            self._let_go()
            # What kept the transaction from beginning (a lock, a lost server) concerns all:
            # trying each in turn would wait as many times.
            if began and len(batch) > 1:
                return [outcome for write in batch for outcome in self._write([write])]
            reason = first_line(error)
            _log.warning("database write refused", reason=reason, writes=len(batch))
            return [(write, DatabaseError(f"cannot write: {reason}")) for write in batch]

    def _let_go(self) -> None:
        """The pool looks whether a connection still works before it hands it out again."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _apply(self, connection: Connection, batch: list[_Write]) -> list[_Outcome]:
        outcomes: list[_Outcome] = []
        rows: list[Row] = []
        for write in batch:
            if isinstance(write, _Append):
                rows.extend(write.rows)
                outcomes.append((write, ()))
            else:
                # Statements may depend on the rows before them.
                self._inserter.insert(connection, rows)
                rows = []
                counts = tuple(connection.execute(s).rowcount for s in write.statements)
                outcomes.append((write, counts))
        self._inserter.insert(connection, rows)
        return outcomes


def _resolve(outcomes: list[_Outcome]) -> None:
    for write, outcome in outcomes:
        if write.done.done():  # the caller was cancelled
            continue
        if isinstance(outcome, DatabaseError):
            write.done.set_exception(outcome)
        elif isinstance(write, _Append):
            write.done.set_result(None)
        else:
            write.done.set_result(outcome)


def first_line(error: BaseException) -> str:
    """The reason without the statement, whose parameters may be private."""
    reason = getattr(error, "orig", None) or error
    return (str(reason) or type(reason).__name__).splitlines()[0][:200]
