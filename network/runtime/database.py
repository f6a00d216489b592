"""The durable store of a program: SQLite by default, PostgreSQL by URL.

    async with open_database("sqlite:////var/lib/limner/node.db", "node.accounting.migrations") as db:
        await db.append([(events, {"job_id": job, "fee": fee})])
        rows = await db.read(lambda connection: connection.execute(select(events)).all())

One thread writes. Whatever was handed to it while it was busy becomes one transaction with
one sync to disk, so that thousands of appends a second are each durable when they return.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

from sqlalchemy import Connection, Engine, Executable, Text, create_engine, event
from sqlalchemy.engine import URL, Dialect, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.pool import QueuePool
from sqlalchemy.types import TypeDecorator
from typing_extensions import override

from network.errors import ConfigError, DatabaseError
from network.runtime.inserting import Row
from network.runtime.migrations import upgrade
from network.runtime.writer import Writer, first_line
from network.units import Wei

Synchronous = Literal["FULL", "NORMAL", "EXTRA", "OFF"]

_T = TypeVar("_T")
_BUSY_SECONDS: Final = 10
_READERS: Final = 2
_OWNER_ONLY: Final = 0o600
#: Of 4 KiB. When SQLite's log has grown to this, one commit takes some milliseconds longer to bring
#: it into the database.
_LOG_PAGES: Final = 1000


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


class Database:
    """Made by `open_database`."""

    def __init__(self, writing: Engine, reading: Engine) -> None:
        self._writing = writing
        self._reading = reading
        self._writer = Writer(writing)
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="database-reader")
        self._loop = asyncio.get_running_loop()

    @property
    def is_closed(self) -> bool:
        return self._writer.is_closed

    def submit(self, rows: Sequence[Row]) -> asyncio.Future[None]:
        """Insert `rows`, all or none; the future is done when they are on disk.

        Whatever was handed over takes effect in that order. Cancelling the future does not take
        the rows back; it fails with DatabaseError if they were refused. Raises DatabaseError
        when the database is closed.
        """
        return self._writer.append(rows)

    async def append(self, rows: Sequence[Row]) -> None:
        """As `submit`, and wait. Raises DatabaseError if the rows were refused."""
        if rows:
            await self._writer.append(rows)

    async def execute(self, statements: Sequence[Executable]) -> tuple[int, ...]:
        """Run `statements` in order, all or none, durable on return; their row counts.

        For updates, deletes and conditional inserts; reads go to `read`.
        """
        return await self._writer.execute(statements) if statements else ()

    async def read(self, query: Callable[[Connection], _T]) -> _T:
        """`query` on a thread of its own, in a read-only transaction.

        It sees everything that was appended before; the connection must not leave it.
        """
        if self._writer.is_closed:
            raise DatabaseError("the database is closed")
        return await self._loop.run_in_executor(self._readers, self._read, query)

    async def close(self) -> None:
        """Write what was queued, then let go; appends from now on are refused."""
        self._writer.close()
        await asyncio.to_thread(self._join)

    def _join(self) -> None:
        self._writer.join()
        self._readers.shutdown()
        self._reading.dispose()
        self._writing.dispose()

    def _read(self, query: Callable[[Connection], _T]) -> _T:
        try:
            with self._reading.connect() as connection:
                return query(connection)
        except SQLAlchemyError as error:
            raise DatabaseError(f"cannot read: {first_line(error)}") from error


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
    engines = await asyncio.to_thread(_opened, url, migrations, synchronous)
    opened = Database(*engines)
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
        raise DatabaseError(f"cannot open {_shown(parsed)}: {first_line(error)}") from error
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
    pragmas = [f"synchronous={synchronous}", f"wal_autocheckpoint={_LOG_PAGES}"]
    writing = _sqlite(url, 1, pragmas, "BEGIN IMMEDIATE")
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
        # By the driver: SQLAlchemy would take longer than SQLite does for the whole transaction.
        connection.connection.cursor().execute(begin).close()

    event.listen(engine, "connect", on_connect)
    event.listen(engine, "begin", on_begin)
    return engine


def _shown(url: URL) -> str:
    return url.render_as_string(hide_password=True)
