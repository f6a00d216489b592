"""The write-ahead log outlives the process, and forgets what its database has."""

import asyncio
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.accounting import write_ahead as module
from gateway.accounting.events import DailySpending, Settlement
from gateway.accounting.records import encode_rows, row_of
from gateway.accounting.write_ahead import WriteAheadLog, open_write_ahead_log
from network.dollars import AttoUsd
from network.errors import ConfigError, DatabaseError
from network.units import Wei
from tests.gateway.accounting.test_journal import accepted, attempt, delivered, journal_in

KEEPER = """
import asyncio, os, signal, sys
from pathlib import Path
from gateway.accounting.write_ahead import open_write_ahead_log

async def main() -> None:
    async with open_write_ahead_log(Path(sys.argv[1]), is_synced=True) as log:
        for number in range(3):
            assert log.keep(b"record %d" % number)
        os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""

#: Dies when everything was promised, and nothing can have reached the locked database.
PROMISER = """
import asyncio, os, signal, sqlite3, sys
from pathlib import Path
from tests.gateway.accounting.test_journal import accepted, attempt, delivered, journal_in

async def main(folder: Path) -> None:
    async with journal_in(folder) as (journal, _):
        blocker = sqlite3.connect(folder / "g.db", isolation_level=None)
        blocker.execute("BEGIN IMMEDIATE")
        await journal.intend(accepted("open"), attempt("open"))
        await journal.intend(accepted("done"), attempt("done"))
        await journal.record(*delivered("done"))
        os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main(Path(sys.argv[1])))
"""


@pytest.fixture
async def log(tmp_path: Path) -> AsyncIterator[WriteAheadLog]:
    async with open_write_ahead_log(tmp_path / "log", is_synced=True) as opened:
        yield opened


def run(program: str, argument: Path) -> int:
    return subprocess.run([sys.executable, "-c", program, argument], check=False).returncode


async def test_a_killed_process_leaves_its_records(tmp_path: Path) -> None:
    killed = await asyncio.to_thread(run, KEEPER, tmp_path / "log")
    assert killed == -signal.SIGKILL
    async with open_write_ahead_log(tmp_path / "log", is_synced=True) as log:
        assert log.left() == (b"record 0", b"record 1", b"record 2")
        log.clear()
        assert log.left() == ()


async def test_a_process_killed_before_its_database_had_them_loses_no_events(
    tmp_path: Path,
) -> None:
    assert await asyncio.to_thread(run, PROMISER, tmp_path) == -signal.SIGKILL
    with closing(sqlite3.connect(tmp_path / "g.db")) as connection:
        assert connection.execute("SELECT count(*) FROM requests").fetchone() == (0,)
    async with journal_in(tmp_path) as (journal, _):
        assert await journal.close_interrupted(200.0) == 1
        records = {r.accepted.request_id: r for r in await journal.requests()}
        assert (records["open"].accepted, records["open"].state) == (
            accepted("open"),
            "interrupted",
        )
        assert (records["done"].state, records["done"].fee) == ("settled", 10**30)
        assert [record.attempts for record in records.values()] == [1, 1]
        assert await journal.close_interrupted(201.0) == 0


async def test_what_the_database_has_is_forgotten(tmp_path: Path) -> None:
    async with journal_in(tmp_path) as (journal, _):
        await journal.intend(accepted("r"), attempt("r"))
        await journal.record(*delivered("r"))
        assert len(journal._ahead.left()) == 2
        await journal.drain()
        assert not journal._ahead.left()


async def test_the_database_follows_by_itself(tmp_path: Path) -> None:
    async with journal_in(tmp_path) as (journal, database):
        await journal.intend(accepted("r"), attempt("r"))
        async with asyncio.timeout(10):
            while journal._ahead.left():  # noqa: ASYNC110  its end is no event
                await asyncio.sleep(0.005)
        assert await database.read(lambda c: c.exec_driver_sql("SELECT 1 FROM requests").all())


async def test_what_was_recorded_is_read_at_once(tmp_path: Path) -> None:
    async with journal_in(tmp_path) as (journal, _):
        await journal.intend(accepted("r"), attempt("r"))
        record = await journal.request("r")
        assert record is not None
        assert record.state == "open"


async def test_what_the_database_has_already_is_not_written_twice(tmp_path: Path) -> None:
    """As when a process dies between the commit and its news."""
    rows = [row_of(accepted("r")), row_of(attempt("r"))]
    async with journal_in(tmp_path) as (journal, _):
        await journal.write(accepted("r"))
        assert journal._ahead.keep(encode_rows(rows))
        assert await journal.close_interrupted(200.0) == 1
        record = await journal.request("r")
        assert record is not None
        assert record.attempts == 1


async def test_what_a_request_counts_for_in_dollars_is_in_its_record(tmp_path: Path) -> None:
    """Beyond 64 bits; and a record of a version that knew no dollars is read all the same."""
    usd = AttoUsd(10**20 + 1)
    new = encode_rows([row_of(Settlement("r", "settled", Wei(7), 150.0, usd=usd))])
    unknown = encode_rows([row_of(Settlement("s", "settled", Wei(8), 150.0))])
    old = unknown.replace(b',"usd":null', b"")
    assert old != unknown
    async with journal_in(tmp_path) as (journal, _):
        await journal.write(accepted("r"), accepted("s"))
        assert journal._ahead.keep(new)
        assert journal._ahead.keep(old)
        assert await journal.close_interrupted(200.0) == 0
        assert [(one.fee, one.usd) for one in await journal.usage("key")] == [(15, usd)]
        assert await journal.spending(0.0) == (DailySpending("k", 0.0, Wei(15), usd),)
        record = await journal.request("s")
        assert record is not None
        assert (record.fee, record.usd) == (8, None)


async def test_a_database_that_refuses_is_waited_for(tmp_path: Path) -> None:
    async with journal_in(tmp_path) as (journal, _):
        await journal.write(accepted("r"))
        await journal.intend(accepted("r"))  # refused behind its back
        await journal.drain()
        with pytest.raises(DatabaseError):
            await journal.intend(accepted("r"))
        await journal.intend(accepted("s"))
        assert await journal.request("s") is not None


async def test_without_room_the_database_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_LARGEST", 16)
    async with journal_in(tmp_path) as (journal, database):
        await journal.intend(accepted("r"), attempt("r"))
        await journal.record(*delivered("r"))
        assert not journal._behind
        count = "SELECT count(*) FROM settlements"
        assert await database.read(lambda c: c.exec_driver_sql(count).scalar()) == 1


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=30), st.integers(1, 30))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_records_come_back_in_order_until_all_are_forgotten(
    log: WriteAheadLog, records: list[bytes], forgotten: int
) -> None:
    log.clear()
    for record in records:
        assert log.keep(record)
    assert log.left() == tuple(records)
    for _ in records[:forgotten]:
        log.forget()
    assert log.left() == (() if forgotten >= len(records) else tuple(records))
    assert log.keep(b"next")
    assert log.left()[-1] == b"next"


async def test_without_room_nothing_is_kept(
    log: WriteAheadLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_LARGEST", 64)
    assert log.keep(b"x" * 40)
    assert not log.keep(b"y" * 20)
    assert log.left() == (b"x" * 40,)
    log.forget()
    assert log.keep(b"y" * 20)


@pytest.mark.parametrize("at", [0, 4, 8, 12])
async def test_what_is_broken_is_not_read(tmp_path: Path, at: int) -> None:
    file = tmp_path / "log"
    async with open_write_ahead_log(file, is_synced=True) as log:
        log.keep(b"record")
    content = bytearray(file.read_bytes())
    content[at] ^= 0xFF
    file.write_bytes(content)
    async with open_write_ahead_log(file, is_synced=True) as log:
        assert log.left() == ()


async def test_two_gateways_do_not_share_a_file(tmp_path: Path, log: WriteAheadLog) -> None:
    del log
    with pytest.raises(ConfigError, match="another gateway"):
        async with open_write_ahead_log(tmp_path / "log", is_synced=True):
            pass


async def test_the_file_is_for_its_owner_only(tmp_path: Path, log: WriteAheadLog) -> None:
    del log
    assert (tmp_path / "log").stat().st_mode & 0o777 == 0o600


async def test_a_sync_is_done_for_all_who_asked(log: WriteAheadLog) -> None:
    cancelled = log.sync()
    cancelled.cancel()
    log.keep(b"record")
    async with asyncio.timeout(10):
        await asyncio.gather(*(log.sync() for _ in range(50)))
