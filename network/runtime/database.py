"""The durable store of a program: SQLite by default, PostgreSQL by URL.

    async with open_database("sqlite:////var/lib/limner/node.db", "node.accounting.migrations") as db:
        await db.append([(events, {"job_id": job, "fee": fee})])
        rows = await db.read(lambda connection: connection.execute(select(events)).all())

One thread writes. Whatever was handed to it while it was busy becomes one transaction with
one sync to disk, so that thousands of appends a second are each durable when they return.

A migrations folder is what Alembic calls a script directory:

    migrations/env.py             the five lines below
    migrations/versions/0001_*.py revisions with `revision`, `down_revision`, `upgrade()`

    # env.py
    from network.runtime.database import run_migrations
    from node.accounting.tables import metadata

    run_migrations(metadata)
"""

import asyncio
import functools
import importlib.util
import os
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

import structlog
from sqlalchemy import (
    Connection,
    Engine,
    Executable,
    Insert,
    MetaData,
    Table,
    Text,
    create_engine,
    event,
)
from sqlalchemy.engine import URL, Dialect, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.pool import QueuePool
from sqlalchemy.schema import sort_tables
from sqlalchemy.types import TypeDecorator
from typing_extensions import override

from network.errors import ConfigError, DatabaseError
from network.units import Wei

Row = tuple[Table, Mapping[str, object]]
Synchronous = Literal["FULL", "NORMAL", "EXTRA", "OFF"]

_T = TypeVar("_T")
_BUSY_SECONDS: Final = 10
_READERS: Final = 2
#: Rows of one transaction; bounds how long the first of them waits for the last.
_MOST_ROWS: Final = 20_000
_OWNER_ONLY: Final = 0o600

_log = structlog.get_logger(__name__)


class WeiText(TypeDecorator[Wei]):
    """An amount as decimal text: wei do not fit into 64 bits.

    Sums and comparisons belong into Python; in SQL they would be those of text.
    """

    impl = Text
    cache_ok = True

    @override
    def process_bind_param(self, value: Wei | None, dialect: Dialect) -> str | None:
        return None if value is None else str(int(value))

    @override
    def process_result_value(self, value: str | None, dialect: Dialect) -> Wei | None:
        return None if value is None else Wei(int(value))


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


_Write = _Append | _Execute
_Outcome = tuple[_Write, tuple[int, ...] | DatabaseError]


class Database:
    """Made by `open_database`."""

    def __init__(self, writing: Engine, reading: Engine) -> None:
        self._writing = writing
        self._reading = reading
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="database-reader")
        self._queue: deque[_Write] = deque()
        self._wake = threading.Condition()
        self._closed = False
        self._loop = asyncio.get_running_loop()
        self._writer = threading.Thread(target=self._write_forever, name="database-writer")
        self._writer.start()

    async def append(self, rows: Sequence[Row]) -> None:
        """Insert `rows`, all or none; they are on disk when this returns.

        Appends and executes take effect in the order in which they were called. Cancelling
        the caller does not take the rows back. Raises DatabaseError if they were refused.
        """
        if not rows:
            return
        done: asyncio.Future[None] = self._loop.create_future()
        self._submit(_Append(rows, done))
        await done

    async def execute(self, statements: Sequence[Executable]) -> tuple[int, ...]:
        """Run `statements` in order, all or none, durable on return; their row counts.

        For updates, deletes and conditional inserts; reads go to `read`.
        """
        if not statements:
            return ()
        done: asyncio.Future[tuple[int, ...]] = self._loop.create_future()
        self._submit(_Execute(statements, done))
        return await done

    async def read(self, query: Callable[[Connection], _T]) -> _T:
        """`query` on a thread of its own, in a read-only transaction.

        It sees everything that was appended before; the connection must not leave it.
        """
        if self._closed:
            raise DatabaseError("the database is closed")
        return await self._loop.run_in_executor(self._readers, self._read, query)

    async def close(self) -> None:
        """Write what was queued, then let go; appends from now on are refused."""
        with self._wake:
            self._closed = True
            self._wake.notify()
        await asyncio.to_thread(self._join)

    def _join(self) -> None:
        self._writer.join()
        self._readers.shutdown()
        self._reading.dispose()
        self._writing.dispose()

    def _submit(self, write: _Write) -> None:
        with self._wake:
            if self._closed:
                raise DatabaseError("the database is closed")
            self._queue.append(write)
            self._wake.notify()

    def _read(self, query: Callable[[Connection], _T]) -> _T:
        try:
            with self._reading.connect() as connection:
                return query(connection)
        except SQLAlchemyError as error:
            raise DatabaseError(f"cannot read: {_first_line(error)}") from error

    def _write_forever(self) -> None:
        while batch := self._next_batch():
            outcomes = self._write(batch)
            # The loop may be gone when a program is torn down without closing us.
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(_resolve, outcomes)

    def _next_batch(self) -> list[_Write]:
        """What has gathered, up to a bound; empty when closed and drained."""
        with self._wake:
            while not self._queue and not self._closed:
                self._wake.wait()
            batch: list[_Write] = []
            rows = 0
            while self._queue and rows < _MOST_ROWS:
                batch.append(self._queue.popleft())
                rows += batch[-1].size
            return batch

    def _write(self, batch: list[_Write]) -> list[_Outcome]:
        """One transaction for all; if a statement fails, one for each: only the bad is lost."""
        began = False
        try:
            with self._writing.begin() as connection:
                began = True
                return _apply(connection, batch)
        except Exception as error:  # noqa: BLE001  a binding may raise anything
            # What kept the transaction from beginning (a lock, a lost server) concerns all:
            # trying each in turn would wait as many times.
            if began and len(batch) > 1:
                return [outcome for write in batch for outcome in self._write([write])]
            reason = _first_line(error)
            _log.warning("database write refused", reason=reason, writes=len(batch))
            return [(write, DatabaseError(f"cannot write: {reason}")) for write in batch]


def _apply(connection: Connection, batch: list[_Write]) -> list[_Outcome]:
    outcomes: list[_Outcome] = []
    rows: list[Row] = []
    for write in batch:
        if isinstance(write, _Append):
            rows.extend(write.rows)
            outcomes.append((write, ()))
        else:
            # Statements may depend on the rows before them.
            _insert(connection, rows)
            rows = []
            counts = tuple(connection.execute(s).rowcount for s in write.statements)
            outcomes.append((write, counts))
    _insert(connection, rows)
    return outcomes


def _insert(connection: Connection, rows: list[Row]) -> None:
    """One executemany for each table and set of columns, referenced tables first.

    Rows of one table keep their order, so that counting keys tell which came first.
    """
    by_table: dict[Table, list[Mapping[str, object]]] = {}
    for table, values in rows:
        by_table.setdefault(table, []).append(values)
    for table in _referenced_first(frozenset(by_table)):
        for _, alike in groupby(by_table[table], key=frozenset):
            connection.execute(_insert_into(table), [dict(values) for values in alike])


@functools.cache
def _referenced_first(tables: frozenset[Table]) -> tuple[Table, ...]:
    return tuple(sort_tables(tables))


@functools.cache
def _insert_into(table: Table) -> Insert:
    """One statement object for a table: SQLAlchemy keeps what it compiled by the object."""
    return table.insert()


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


@asynccontextmanager
async def open_database(
    url: str, migrations: str | Path, *, synchronous: Synchronous = "FULL"
) -> AsyncIterator[Database]:
    """The database at `url`, brought to the newest revision of `migrations` first.

    `url` is "sqlite:///relative.db", "sqlite:////absolute.db" or "postgresql+psycopg://...".
    `migrations` is the dotted package of a migrations folder, or its path. `synchronous` is
    SQLite's; with less than FULL a power cut may take the last appends back. Leaving the
    block writes what is queued. Raises ConfigError or DatabaseError.
    """
    database = await asyncio.to_thread(_opened, url, migrations, synchronous)
    opened = Database(*database)
    try:
        yield opened
    finally:
        await asyncio.shield(opened.close())


def _opened(url: str, migrations: str | Path, synchronous: Synchronous) -> tuple[Engine, Engine]:
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise ConfigError("database", f"{url[:80]!r} is not a database URL") from None
    if parsed.get_backend_name() == "sqlite":
        _make_file(parsed)
    writing, reading = _engines(parsed, synchronous)
    try:
        upgrade(writing, migrations)
    except (SQLAlchemyError, OSError) as error:
        writing.dispose()
        raise DatabaseError(f"cannot open {_shown(parsed)}: {_first_line(error)}") from error
    return writing, reading


def _make_file(url: URL) -> None:
    """Journals hold who made what for how much: only the owner reads them."""
    if not url.database or url.database == ":memory:":
        raise ConfigError("database", "SQLite needs a file: sqlite:////path/to/file.db")
    path = Path(url.database)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, _OWNER_ONLY))
    except OSError as error:
        raise ConfigError("database", f"cannot write {path}: {error.strerror}") from error


def _engines(url: URL, synchronous: Synchronous) -> tuple[Engine, Engine]:
    try:
        if url.get_backend_name() != "sqlite":
            writing = create_engine(url, pool_size=1, max_overflow=0, pool_pre_ping=True)
            reading = create_engine(url, pool_size=_READERS, max_overflow=0, pool_pre_ping=True)
            return writing, reading.execution_options(postgresql_readonly=True)
    except (ImportError, SQLAlchemyError) as error:
        raise ConfigError("database", f"cannot use {_shown(url)}: {error}") from error
    writing = _sqlite(url, 1, [f"synchronous={synchronous}"], "BEGIN IMMEDIATE")
    return writing, _sqlite(url, _READERS, ["query_only=ON"], "BEGIN")


def _sqlite(url: URL, size: int, pragmas: Sequence[str], begin: str) -> Engine:
    options = {"timeout": _BUSY_SECONDS, "check_same_thread": False}
    engine = create_engine(
        url, poolclass=QueuePool, pool_size=size, max_overflow=0, connect_args=options
    )

    def on_connect(connection: Any, _record: object) -> None:
        # Our own BEGIN: the driver's would come late, and never before a DDL statement.
        connection.isolation_level = None
        for pragma in ("journal_mode=WAL", "foreign_keys=ON", *pragmas):
            connection.execute(f"PRAGMA {pragma}").close()

    def on_begin(connection: Connection) -> None:
        connection.exec_driver_sql(begin)

    event.listen(engine, "connect", on_connect)
    event.listen(engine, "begin", on_begin)
    return engine


def upgrade(engine: Engine, migrations: str | Path, revision: str = "head") -> None:
    """Bring a database to `revision` in one transaction; blocks."""
    from alembic import command  # noqa: PLC0415  only needed at start
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(_folder(migrations)).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)


def run_migrations(metadata: MetaData) -> None:
    """What the `env.py` of a migrations folder calls, and nothing else."""
    from alembic import context  # noqa: PLC0415  only needed at start

    connection: Connection | None = context.config.attributes.get("connection")
    if connection is None:
        raise ConfigError("database", "migrations run when a program opens its database")
    context.configure(
        connection=connection,
        target_metadata=metadata,
        render_as_batch=connection.dialect.name == "sqlite",
    )
    # The caller holds the transaction: two programs that start at once take turns.
    context.run_migrations()


def _folder(migrations: str | Path) -> Path:
    if isinstance(migrations, Path):
        return migrations
    try:
        found = importlib.util.find_spec(migrations)
    except ModuleNotFoundError:
        found = None
    if found is None or not found.submodule_search_locations:
        raise ConfigError("database", f"there is no migrations folder {migrations}")
    return Path(next(iter(found.submodule_search_locations)))


def _shown(url: URL) -> str:
    return url.render_as_string(hide_password=True)


def _first_line(error: BaseException) -> str:
    """The reason without the statement, whose parameters may be private."""
    reason = getattr(error, "orig", None) or error
    return (str(reason) or type(reason).__name__).splitlines()[0][:200]
