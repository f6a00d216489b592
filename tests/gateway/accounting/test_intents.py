"""Intents outlive the process that kept them, and are forgotten when their database has them."""

import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.accounting import intents as module
from gateway.accounting.intents import open_intents
from gateway.accounting.records import encode_rows, row_of
from network.errors import ConfigError, DatabaseError
from tests.gateway.accounting.test_journal import accepted, attempt, journal_in

KEEPER = """
import os, signal, sys
from pathlib import Path
from gateway.accounting.intents import open_intents

with open_intents(Path(sys.argv[1])) as intents:
    for number in range(3):
        assert intents.keep(b"record %d" % number)
    os.kill(os.getpid(), signal.SIGKILL)
"""

INTENDER = """
import asyncio, os, signal, sqlite3, sys
from pathlib import Path
from tests.gateway.accounting.test_journal import accepted, attempt, journal_in

async def main(folder: Path) -> None:
    async with journal_in(folder) as (journal, _):
        blocker = sqlite3.connect(folder / "g.db", isolation_level=None)
        blocker.execute("BEGIN IMMEDIATE")
        await journal.intend(accepted("r"), attempt("r"))
        os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main(Path(sys.argv[1])))
"""


def run(program: str, argument: Path) -> int:
    return subprocess.run([sys.executable, "-c", program, argument], check=False).returncode


def test_a_killed_process_leaves_its_intents(tmp_path: Path) -> None:
    assert run(KEEPER, tmp_path / "intents") == -signal.SIGKILL
    with open_intents(tmp_path / "intents") as intents:
        assert intents.left() == (b"record 0", b"record 1", b"record 2")
        intents.clear()
        assert intents.left() == ()


def test_a_process_killed_before_its_database_had_them_loses_no_events(tmp_path: Path) -> None:
    """The database is locked by somebody else, so that nothing can have reached it."""
    assert run(INTENDER, tmp_path) == -signal.SIGKILL
    with closing(sqlite3.connect(tmp_path / "g.db")) as connection:
        assert connection.execute("SELECT count(*) FROM requests").fetchone() == (0,)


async def test_what_was_intended_is_closed_at_the_next_start(tmp_path: Path) -> None:
    run(INTENDER, tmp_path)
    async with journal_in(tmp_path) as (journal, _):
        assert await journal.close_interrupted(200.0) == 1
        record = await journal.request("r")
        assert record is not None
        assert (record.accepted, record.state, record.attempts) == (
            accepted("r"),
            "interrupted",
            1,
        )
        assert await journal.close_interrupted(201.0) == 0


async def test_intents_that_the_database_has_are_forgotten(tmp_path: Path) -> None:
    async with journal_in(tmp_path) as (journal, _):
        await journal.intend(accepted("r"), attempt("r"))
        assert journal._intents.left()
        await journal.drain()
        assert not journal._intents.left()
        assert await journal.request("r") is not None


async def test_what_the_database_has_already_is_not_written_twice(tmp_path: Path) -> None:
    """As when a process dies between the commit and its news."""
    rows = [row_of(accepted("r")), row_of(attempt("r"))]
    async with journal_in(tmp_path) as (journal, _):
        await journal.write(accepted("r"))
        assert journal._intents.keep(encode_rows(rows))
        assert await journal.close_interrupted(200.0) == 1
        record = await journal.request("r")
        assert record is not None
        assert record.attempts == 1


async def test_a_database_that_refuses_is_waited_for(tmp_path: Path) -> None:
    async with journal_in(tmp_path) as (journal, _):
        await journal.write(accepted("r"))
        await journal.intend(accepted("r"))  # refused in the background
        await journal.drain()
        with pytest.raises(DatabaseError):
            await journal.intend(accepted("r"))
        await journal.intend(accepted("s"))
        assert await journal.request("s") is not None


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=30), st.integers(1, 30))
def test_records_come_back_in_order_until_all_are_forgotten(
    tmp_path_factory: pytest.TempPathFactory, records: list[bytes], forgotten: int
) -> None:
    file = tmp_path_factory.mktemp("intents") / "file"
    with open_intents(file) as intents:
        for record in records:
            assert intents.keep(record)
        assert intents.left() == tuple(records)
        for _ in records[:forgotten]:
            intents.forget()
        assert intents.left() == (() if forgotten >= len(records) else tuple(records))
        assert intents.keep(b"next")
        assert intents.left()[-1] == b"next"


def test_without_room_nothing_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SIZE", 64)
    with open_intents(tmp_path / "intents") as intents:
        assert intents.keep(b"x" * 40)
        assert not intents.keep(b"y" * 20)
        assert intents.left() == (b"x" * 40,)
        intents.forget()
        assert intents.keep(b"y" * 20)


@pytest.mark.parametrize("at", [0, 4, 8, 12])
def test_what_is_broken_is_not_read(tmp_path: Path, at: int) -> None:
    file = tmp_path / "intents"
    with open_intents(file) as intents:
        intents.keep(b"record")
    content = bytearray(file.read_bytes())
    content[at] ^= 0xFF
    file.write_bytes(content)
    with open_intents(file) as intents:
        assert intents.left() == ()


def test_two_gateways_do_not_share_a_file(tmp_path: Path) -> None:
    with (
        open_intents(tmp_path / "intents"),
        pytest.raises(ConfigError, match="another gateway"),
        open_intents(tmp_path / "intents"),
    ):
        pass


def test_the_file_is_for_its_owner_only(tmp_path: Path) -> None:
    with open_intents(tmp_path / "intents"):
        assert (tmp_path / "intents").stat().st_mode & 0o777 == 0o600
