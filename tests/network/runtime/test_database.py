"""Appends are durable when they return, and a bad one harms only itself."""

import asyncio
import sqlite3
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy import Connection, func, select

from network.errors import ConfigError, DatabaseError
from network.runtime.database import Database, open_database
from network.runtime.migrations import upgrade
from network.units import Wei
from tests.network.runtime.tables import events, jobs

ROOT = Path(__file__).resolve().parents[3]
MIGRATIONS = "tests.network.runtime.migrations"
MORE_THAN_64_BITS = Wei(10**30 + 1)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "data" / "test.db"


@pytest.fixture
async def database(file: Path) -> AsyncIterator[Database]:
    async with open_database(f"sqlite:///{file}", MIGRATIONS) as opened:
        yield opened


def job_ids(connection: Connection) -> list[str]:
    return list(connection.scalars(select(jobs.c.job_id).order_by(jobs.c.job_id)))


def mode_of(file: Path) -> int:
    return stat.S_IMODE(file.stat().st_mode)


def make_older(file: Path) -> None:
    """A database as the first revision left it, with a row in it."""
    file.parent.mkdir()
    engine = sa.create_engine(f"sqlite:///{file}")
    upgrade(engine, MIGRATIONS, "0001")
    with engine.begin() as connection:
        connection.exec_driver_sql("INSERT INTO jobs (job_id, fee) VALUES ('old', '7')")
    engine.dispose()


def make_nonsense(file: Path) -> None:
    file.parent.mkdir()
    file.write_bytes(b"not a database at all" * 100)


def count(connection: Connection) -> int:
    return connection.scalar(select(func.count()).select_from(jobs)) or 0


async def test_a_row_is_readable_once_its_append_returns(database: Database) -> None:
    await database.append([(jobs, {"job_id": "a", "fee": MORE_THAN_64_BITS})])
    row = await database.read(lambda connection: connection.execute(select(jobs)).one())
    assert tuple(row) == ("a", MORE_THAN_64_BITS, "open")


async def test_an_amount_may_be_absent(database: Database) -> None:
    await database.append([(jobs, {"job_id": "a", "fee": None}), (jobs, {"job_id": "b"})])
    fees = await database.read(lambda connection: connection.scalars(select(jobs.c.fee)).all())
    assert fees == [None, None]


async def test_rows_stay_after_reopening(file: Path) -> None:
    for name in ("a", "b"):
        async with open_database(f"sqlite:///{file}", MIGRATIONS) as database:
            await database.append([(jobs, {"job_id": name})])
    async with open_database(f"sqlite:///{file}", MIGRATIONS) as database:
        assert await database.read(job_ids) == ["a", "b"]


async def test_an_append_is_written_whole_or_not_at_all(database: Database) -> None:
    with pytest.raises(DatabaseError, match="UNIQUE"):
        await database.append([(jobs, {"job_id": "a"}), (jobs, {"job_id": "a"})])
    assert await database.read(job_ids) == []


async def test_one_bad_append_does_not_harm_the_others(database: Database) -> None:
    await database.append([(jobs, {"job_id": "taken"})])
    names = [f"job-{number:03}" for number in range(50)]
    names[20] = names[40] = "taken"
    results = await asyncio.gather(
        *(database.append([(jobs, {"job_id": name})]) for name in names), return_exceptions=True
    )
    failed = [place for place, result in enumerate(results) if result is not None]
    assert failed == [20, 40]
    assert all(isinstance(results[place], DatabaseError) for place in failed)
    assert await database.read(job_ids) == sorted(set(names))


async def test_a_row_of_the_wrong_type_is_refused_and_the_next_is_written(
    database: Database,
) -> None:
    bad, good = await asyncio.gather(
        database.append([(jobs, {"job_id": "a", "fee": "many"})]),
        database.append([(jobs, {"job_id": "b"})]),
        return_exceptions=True,
    )
    assert isinstance(bad, DatabaseError)
    assert good is None
    assert await database.read(job_ids) == ["b"]


async def test_a_refusal_does_not_tell_what_the_row_held(database: Database) -> None:
    await database.append([(jobs, {"job_id": "a"})])
    with pytest.raises(DatabaseError) as raised:
        await database.append([(jobs, {"job_id": "a", "fee": Wei(123454321)})])
    assert "123454321" not in str(raised.value)


async def test_referring_rows_may_come_in_one_append_in_any_order(database: Database) -> None:
    row = (events, {"job_id": "a", "what": "made"})
    await database.append([row, (jobs, {"job_id": "a"}), row])
    total = await database.read(lambda c: c.scalar(select(func.count()).select_from(events)))
    assert total == 2


async def test_rows_of_one_table_are_numbered_in_the_order_of_their_appends(
    database: Database,
) -> None:
    await database.append([(jobs, {"job_id": "a"})])
    rows = [
        {"job_id": "a", "what": str(n)} | ({"number": n} if n % 3 == 1 else {})
        for n in range(1, 40)
    ]
    await asyncio.gather(*(database.append([(events, row)]) for row in rows))
    told = await database.read(
        lambda c: c.scalars(select(events.c.what).order_by(events.c.number)).all()
    )
    assert told == [str(n) for n in range(1, 40)]


async def test_a_row_that_refers_to_nothing_is_refused(database: Database) -> None:
    with pytest.raises(DatabaseError, match="FOREIGN KEY"):
        await database.append([(events, {"job_id": "none", "what": "made"})])


async def test_writes_take_effect_in_the_order_of_their_calls(database: Database) -> None:
    close = jobs.update().where(jobs.c.state == "open").values(state="closed")
    _, counts, _ = await asyncio.gather(
        database.append([(jobs, {"job_id": "a"}), (jobs, {"job_id": "b"})]),
        database.execute([close, close]),
        database.append([(jobs, {"job_id": "c"})]),
    )
    assert counts == (2, 0)
    states = await database.read(lambda c: c.execute(select(jobs.c.job_id, jobs.c.state)).all())
    assert dict(map(tuple, states)) == {"a": "closed", "b": "closed", "c": "open"}


async def test_statements_are_run_all_or_none(database: Database) -> None:
    await database.append([(jobs, {"job_id": "a"})])
    insert = jobs.insert().values(job_id="a")
    with pytest.raises(DatabaseError):
        await database.execute([jobs.delete(), insert, insert])
    assert await database.read(job_ids) == ["a"]


async def test_nothing_to_write_is_written_at_once(database: Database) -> None:
    await database.append([])
    assert await database.execute([]) == ()


async def test_a_reader_cannot_write(database: Database) -> None:
    with pytest.raises(DatabaseError, match="readonly"):
        await database.read(lambda connection: connection.execute(jobs.delete()))


async def test_an_error_of_the_query_itself_comes_through(database: Database) -> None:
    with pytest.raises(ZeroDivisionError):
        await database.read(lambda _connection: 1 // 0)


async def test_a_cancelled_caller_does_not_take_its_rows_back(database: Database) -> None:
    task = asyncio.ensure_future(database.append([(jobs, {"job_id": "a"})]))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await database.append([(jobs, {"job_id": "b"})])
    assert await database.read(job_ids) == ["a", "b"]


async def test_closing_writes_what_is_queued_and_refuses_the_rest(file: Path) -> None:
    async with open_database(f"sqlite:///{file}", MIGRATIONS) as database:
        waiting = [
            asyncio.ensure_future(database.append([(jobs, {"job_id": f"{number:03}"})]))
            for number in range(300)
        ]
        await asyncio.sleep(0)
    assert await asyncio.gather(*waiting) == [None] * 300
    with pytest.raises(DatabaseError, match="closed"):
        await database.append([(jobs, {"job_id": "late"})])
    with pytest.raises(DatabaseError, match="closed"):
        await database.read(count)
    async with open_database(f"sqlite:///{file}", MIGRATIONS) as database:
        assert await database.read(count) == 300


async def test_another_process_may_write_meanwhile(database: Database, file: Path) -> None:
    # The command line writes keys while the server runs.
    await database.append([(jobs, {"job_id": "ours"})])

    def insert() -> None:
        with closing(sqlite3.connect(file)) as other, other:
            other.execute("INSERT INTO jobs (job_id) VALUES ('theirs')")

    await asyncio.to_thread(insert)
    await database.append([(jobs, {"job_id": "ours again"})])
    assert await database.read(count) == 3


async def test_many_appends_share_a_transaction(database: Database, file: Path) -> None:
    def pages() -> int:
        wal = file.with_name(file.name + "-wal")
        return wal.stat().st_size // 4096

    before = pages()
    await asyncio.gather(
        *(database.append([(jobs, {"job_id": f"{number:04}"})]) for number in range(1000))
    )
    # One transaction for each would write at least a page each.
    assert pages() - before < 300
    assert await database.read(count) == 1000


async def test_the_file_is_for_its_owner_only_and_in_wal_mode(
    database: Database, file: Path
) -> None:
    assert mode_of(file) == 0o600
    mode = await database.read(lambda c: c.exec_driver_sql("PRAGMA journal_mode").scalar())
    assert mode == "wal"


async def test_an_older_database_is_brought_up_to_date(file: Path) -> None:
    await asyncio.to_thread(make_older, file)
    async with open_database(f"sqlite:///{file}", MIGRATIONS) as database:
        row = await database.read(lambda connection: connection.execute(select(jobs)).one())
    assert tuple(row) == ("old", 7, "open")


async def test_two_programs_may_open_a_new_database_at_once(file: Path) -> None:
    async def write(name: str) -> None:
        async with open_database(f"sqlite:///{file}", MIGRATIONS) as database:
            await database.append([(jobs, {"job_id": name})])

    await asyncio.gather(*(write(name) for name in "abc"))
    async with open_database(f"sqlite:///{file}", Path(__file__).parent / "migrations") as found:
        assert await found.read(job_ids) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("nonsense", "is not a database URL"),
        ("sqlite://", "needs a file"),
        ("sqlite:///:memory:", "needs a file"),
        ("sqlite:////proc/none/x.db", "cannot write /proc/none/x.db"),
        ("oracle9://host/db", "cannot use oracle9://host/db"),
        ("oracle9://me:hidden@host/db", r"cannot use oracle9://me:\*\*\*@host/db"),
    ],
)
async def test_an_unusable_url_is_an_error_of_the_operator(url: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        async with open_database(url, MIGRATIONS):
            pass


async def test_a_missing_migrations_folder_is_named(file: Path) -> None:
    with pytest.raises(ConfigError, match=r"network\.nowhere"):
        async with open_database(f"sqlite:///{file}", "network.nowhere"):
            pass


async def test_a_file_that_is_no_database_is_named(file: Path) -> None:
    make_nonsense(file)
    with pytest.raises(DatabaseError, match=r"cannot open .*test\.db"):
        async with open_database(f"sqlite:///{file}", MIGRATIONS):
            pass


def test_every_returned_append_survives_a_kill(tmp_path: Path) -> None:
    file = tmp_path / "killed.db"
    script = Path(__file__).parent / "append_until_killed.py"
    with subprocess.Popen(
        [sys.executable, str(script), f"sqlite:///{file}"],
        stdout=subprocess.PIPE,
        env={"PYTHONPATH": str(ROOT)},
        text=True,
    ) as child:
        assert child.stdout is not None
        returned = [child.stdout.readline().strip() for _ in range(400)]
        child.kill()
        returned += [line.strip() for line in child.stdout if line.endswith("\n")]
    with closing(sqlite3.connect(file)) as connection:
        kept = {job for (job,) in connection.execute("SELECT job_id FROM jobs")}
        told = {job for (job,) in connection.execute("SELECT job_id FROM events")}
    assert set(returned) <= kept
    assert kept == told
