"""The usage journal is durable, adds up, and settles each request once."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from fractions import Fraction
from pathlib import Path

import pytest
from sqlalchemy import inspect

from gateway.accounting.events import Event
from gateway.accounting.journal import (
    MIGRATIONS,
    Accepted,
    Attempt,
    Journal,
    Outcome,
    Settlement,
    open_journal,
)
from gateway.accounting.tables import metadata
from network.errors import DatabaseError
from network.runtime.database import Database, open_database
from network.units import ModelId, Wei

HUGE = Wei(10**30)


@asynccontextmanager
async def journal_in(folder: Path) -> AsyncIterator[tuple[Journal, Database]]:
    url = f"sqlite:///{folder / 'g.db'}"
    async with (
        open_database(url, MIGRATIONS) as database,
        open_journal(database, folder / "journal.ahead") as journal,
    ):
        yield journal, database


def accepted(name: str, key: str = "k", model: str = "m", at: float = 100.0) -> Accepted:
    return Accepted(name, key, ModelId(model), 64, 32, 2, 5, at)


def attempt(name: str, number: int = 1, uri: str = "https://o", at: float = 100.0) -> Attempt:
    return Attempt(f"{name}-{number}", name, number, uri, Fraction(7, 3), HUGE, at)


def delivered(name: str, number: int = 1, fee: Wei = HUGE, uri: str = "https://o") -> list[Event]:
    return [
        Outcome(f"{name}-{number}", "succeeded", fee, 103.0, 3.0, "job"),
        Settlement(name, "settled", fee, 103.0, uri),
    ]


async def test_a_request_reads_back_as_it_was_written(tmp_path: Path) -> None:
    async with journal_in(tmp_path) as (journal, _):
        await journal.write(accepted("r"), attempt("r"))
        record = await journal.request("r")
        assert record is not None
        assert (record.state, record.settled_at, record.fee) == ("open", None, 0)
        await journal.record(*delivered("r"))
        record = await journal.request("r")
        assert record is not None
        assert record.accepted == accepted("r")
        assert (record.state, record.fee, record.orchestrator) == ("settled", HUGE, "https://o")
        assert record.node_job_id == "job"
        assert await journal.request("other") is None


async def test_totals_are_exact_beyond_64_bits_and_by_each_group(tmp_path: Path) -> None:
    async with journal_in(tmp_path) as (journal, _):
        for number in range(6):
            name, key, uri = f"r{number}", f"k{number % 2}", f"https://o{number % 3}"
            fee = Wei(HUGE + number)
            await journal.write(accepted(name, key), attempt(name, uri=uri))
            await journal.write(*delivered(name, fee=fee, uri=uri))
        await journal.write(accepted("open", "k0"), attempt("open"))
        await journal.write(accepted("failed", "k0"), Settlement("failed", "failed", Wei(0), 1.0))
        by_key = await journal.usage("key")
        assert [(total.group, total.requests, total.fee) for total in by_key] == [
            ("k0", 3, 3 * HUGE + 0 + 2 + 4),
            ("k1", 3, 3 * HUGE + 1 + 3 + 5),
        ]
        assert (by_key[0].images, by_key[0].pixels) == (6, 3 * 64 * 32 * 2)
        assert sum(total.fee for total in await journal.usage("model")) == 6 * HUGE + 15
        by_uri = await journal.usage("orchestrator")
        totals = await journal.orchestrator_totals()
        assert [(t.group, t.fee) for t in by_uri] == [
            (t.orchestrator, t.fee) for t in totals if t.succeeded
        ]
        assert totals[0].mean_seconds == 3.0


async def test_totals_are_of_a_span_of_time(tmp_path: Path) -> None:
    async with journal_in(tmp_path) as (journal, _):
        for at in (1.0, 2.0, 3.0):
            name = f"r{at}"
            await journal.write(accepted(name, at=at), attempt(name, at=at), *delivered(name))
        (total,) = await journal.usage("key", since=2.0, until=3.0)
        assert total.requests == 1
        assert (await journal.orchestrator_totals(since=2.0))[0].succeeded == 2


async def test_attempts_are_counted_by_how_they_ended(tmp_path: Path) -> None:
    async with journal_in(tmp_path) as (journal, _):
        await journal.write(accepted("r"), attempt("r", 1), attempt("r", 2), attempt("r", 3))
        await journal.write(
            Outcome("r-1", "busy", Wei(0), 1.0, 0.1), Outcome("r-2", "failed", Wei(0), 1.0, 0.1)
        )
        await journal.write(*delivered("r", 3))
        (total,) = await journal.orchestrator_totals()
        assert (total.succeeded, total.busy, total.failed, total.fee) == (1, 1, 1, HUGE)
        record = await journal.request("r")
        assert record is not None
        assert record.attempts == 3


async def test_the_latest_requests_come_first_and_by_key(tmp_path: Path) -> None:
    async with journal_in(tmp_path) as (journal, _):
        for number in range(5):
            await journal.write(accepted(f"r{number}", f"k{number % 2}", at=float(number)))
        latest = await journal.requests(limit=2)
        assert [record.accepted.request_id for record in latest] == ["r4", "r3"]
        mine = await journal.requests(key_id="k1")
        assert [record.accepted.request_id for record in mine] == ["r3", "r1"]


async def test_a_second_settlement_is_impossible(tmp_path: Path) -> None:
    async with journal_in(tmp_path) as (journal, _):
        await journal.write(accepted("r"), attempt("r"))
        await journal.write(*delivered("r"))
        with pytest.raises(DatabaseError):
            await journal.write(Settlement("r", "settled", HUGE, 104.0, "https://o"))
        # Written later, it is logged and changes nothing either.
        await journal.record(Settlement("r", "failed", Wei(0), 105.0))
        (total,) = await journal.usage("key")
        assert total.fee == HUGE


async def test_events_of_one_write_are_written_together_or_not_at_all(tmp_path: Path) -> None:
    async with journal_in(tmp_path) as (journal, _):
        await journal.write(accepted("r"), attempt("r"))
        await journal.write(Settlement("r", "failed", Wei(0), 1.0))
        with pytest.raises(DatabaseError):
            await journal.write(*delivered("r"))
        (total,) = await journal.orchestrator_totals() or (None,)
        assert total is None


async def test_what_is_to_be_written_later_is_written_before_the_journal_closes(
    tmp_path: Path,
) -> None:
    async with journal_in(tmp_path) as (journal, _):
        for number in range(100):
            _ = journal.record(accepted(f"r{number}"))
    async with journal_in(tmp_path) as (journal, _):
        assert len(await journal.requests(limit=1000)) == 100


async def test_what_was_open_is_closed_as_interrupted_once(tmp_path: Path) -> None:
    async with journal_in(tmp_path) as (journal, _):
        await journal.write(accepted("open"), attempt("open", 1), attempt("open", 2))
        await journal.write(Outcome("open-1", "busy", Wei(0), 1.0, 0.1))
        await journal.write(accepted("done"), attempt("done"), *delivered("done"))
        assert await journal.close_interrupted(200.0) == 1
        assert await journal.close_interrupted(201.0) == 0
        record = await journal.request("open")
        assert record is not None
        assert (record.state, record.fee, record.settled_at) == ("interrupted", 0, 200.0)
        (total,) = await journal.orchestrator_totals()
        assert (total.succeeded, total.busy, total.failed) == (1, 1, 1)


async def test_the_migrations_make_the_tables_that_the_code_names(tmp_path: Path) -> None:
    async with journal_in(tmp_path) as (_, database):
        found = await database.read(
            lambda connection: {
                name: {column["name"] for column in inspect(connection).get_columns(name)}
                for name in metadata.tables
            }
        )
    assert found == {
        name: {column.name for column in table.columns} for name, table in metadata.tables.items()
    }


WRITER = """
import asyncio, sys
from pathlib import Path
from tests.gateway.accounting.test_journal import accepted, attempt, delivered, journal_in

async def main() -> None:
    async with journal_in(Path(sys.argv[1])) as (journal, _):
        async def one(worker: int) -> None:
            for number in range(100_000):
                name = f"{worker}-{number}"
                await journal.write(accepted(name), attempt(name))
                print("accepted", name, flush=True)
                await journal.write(*delivered(name))
                print("settled", name, flush=True)
        await asyncio.gather(*(one(worker) for worker in range(8)))

asyncio.run(main())
"""


async def test_nothing_that_was_confirmed_is_lost_when_the_process_is_killed(
    tmp_path: Path,
) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", WRITER, str(tmp_path), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    confirmed: dict[str, set[str]] = {"accepted": set(), "settled": set()}
    async for line in process.stdout:
        state, name = line.decode().split()
        confirmed[state].add(name)
        if len(confirmed["settled"]) == 200:
            os.kill(process.pid, signal.SIGKILL)
            break
    async for line in process.stdout:
        if line.endswith(b"\n"):
            state, name = line.decode().split()
            confirmed[state].add(name)
    await process.wait()

    async with journal_in(tmp_path) as (journal, _):
        interrupted = await journal.close_interrupted(200.0)
        records = {r.accepted.request_id: r for r in await journal.requests(limit=100_000)}
        assert confirmed["accepted"] <= records.keys()
        assert all(records[name].state == "settled" for name in confirmed["settled"])
        # At most what each of the eight was doing when the process died.
        assert interrupted <= 8
        settled = sum(record.fee for record in records.values())
        delivered_fees = sum(total.fee for total in await journal.orchestrator_totals())
        assert settled == delivered_fees == sum(t.fee for t in await journal.usage("model"))
