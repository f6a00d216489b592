"""What a killed process had sent for promises stays open, until somebody asks again or nobody does."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

from gateway.accounting.events import Accepted, Attempt, Fulfilment
from gateway.accounting.journal import MIGRATIONS, Journal, open_journal
from gateway.promises.interrupted import Interrupted
from gateway.promises.model import Promise
from gateway.promises.store import PromiseStore
from network.runtime.clock import SystemClock
from network.runtime.database import open_database
from network.units import ModelId, Wei

PROMISE = Promise("p", "k", "n", "r", "e", "d", None, None, "b", None, 100.0, 7)


@asynccontextmanager
async def books(folder: Path) -> AsyncIterator[tuple[Journal, PromiseStore]]:
    """A promise `r` was sent twice at 100 s, `done` is fulfilled, and of `plain` no answer is kept."""
    async with (
        open_database(f"sqlite:///{folder / 'gateway.db'}", MIGRATIONS) as database,
        open_journal(database, folder / "journal.ahead") as journal,
    ):
        store = PromiseStore(database, journal)
        await store.add(PROMISE)
        await store.add(replace(PROMISE, promise_id="p2", name="n2", request_id="done"))
        await journal.write(Fulfilment("done", "cancelled", 409, "{}", "{}", 101.0))
        for request_id in ("r", "done", "plain"):
            await journal.write(
                Accepted(request_id, "k", ModelId("m"), 64, 64, 1, 2, 100.0), sent(request_id, 1)
            )
        await journal.write(sent("r", 2))
        yield journal, store


def sent(request_id: str, number: int) -> Attempt:
    attempt_id = f"{request_id}-{number}"
    return Attempt(attempt_id, request_id, number, "https://o", Fraction(5, 2), Wei(10), 100.0)


async def state_of(journal: Journal, request_id: str) -> str:
    record = await journal.request(request_id)
    assert record is not None
    return record.state


async def test_only_what_was_promised_lately_and_not_fulfilled_stays_open(tmp_path: Path) -> None:
    async with books(tmp_path) as (journal, store):
        (kept,) = await store.find("k", name="n")
        assert kept.promise == PROMISE
        assert await journal.close_interrupted(200.0, resumable_since=99.0) == 2
        assert await journal.resumable() == (sent("r", 1), sent("r", 2))
        states = [await state_of(journal, one) for one in ("r", "done", "plain")]
        assert states == ["open", "interrupted", "interrupted"]
        assert await journal.close_interrupted(300.0, resumable_since=100.0) == 1
        assert await journal.resumable() == ()
        assert await state_of(journal, "r") == "interrupted"


async def test_a_request_is_taken_up_once_and_what_nobody_takes_up_is_closed(
    tmp_path: Path,
) -> None:
    async with books(tmp_path) as (journal, _):
        await journal.close_interrupted(200.0, resumable_since=99.0)
        left = await journal.resumable()
        taken, untaken = (Interrupted(left, journal, SystemClock()) for _ in "12")
        assert "r" in taken
        assert taken.take("r") == left
        assert taken.take("r") == ()
        await taken.close()
        assert await state_of(journal, "r") == "open"
        await untaken.close()
        assert await state_of(journal, "r") == "interrupted"
        assert await journal.resumable() == ()
        assert untaken.take("r") == ()
        await untaken.close()
