"""Promises on disk, and how long they stay there."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.accounting.events import Accepted, Fulfilment, Settlement
from gateway.accounting.journal import MIGRATIONS, Journal, open_journal
from gateway.promises.model import Kept, Promise
from gateway.promises.store import PromiseStore
from network.errors import DatabaseError
from network.runtime.database import open_database
from network.units import ModelId, Wei

HUGE = Wei(10**30)
DAY = 86_400.0


@asynccontextmanager
async def store_in(folder: Path) -> AsyncIterator[tuple[PromiseStore, Journal]]:
    async with (
        open_database(f"sqlite:///{folder / 'g.db'}", MIGRATIONS) as database,
        open_journal(database, folder / "journal.ahead") as journal,
    ):
        yield PromiseStore(database, journal), journal


def promise(name: str, *, body: bytes | None = None, webhook: str | None = None) -> Promise:
    return Promise(name, "k", name, f"r-{name}", "e", "d", f"i-{name}", body, "b", webhook, 100.0)


def fulfilled(name: str, at: float = 100.0) -> Fulfilment:
    return Fulfilment(f"r-{name}", "done", 200, "{}", "{}", at)


async def find(store: PromiseStore, name: str) -> Kept | None:
    return next(iter(await store.find("k", name=name)), None)


async def test_a_promise_reads_back_as_it_was_made(tmp_path: Path) -> None:
    made = promise("a", body=b"\x00{}", webhook="https://x")
    async with store_in(tmp_path) as (store, journal):
        await store.add(made)
        assert await store.find("k", name="a") == (Kept(made, None, None),)
        assert await store.find("k", name="other", idempotency_key="i-a") == (Kept(made, None),)
        assert await store.find("other", name="a", idempotency_key="i-a") == ()
        accepted = Accepted("r-a", "k", ModelId("m"), 64, 64, 1, 5, 100.0)
        settled = Settlement("r-a", "settled", HUGE, 103.0, "https://o")
        # Not awaited: what is recorded is read, durable or not.
        _ = journal.record(accepted, settled, fulfilled("a"))
        assert await store.one("a") == Kept(made, fulfilled("a"), HUGE)
        assert await store.unfinished() == ()
        assert await store.untold() == (Kept(made, fulfilled("a"), HUGE),)
        await store.forget_webhook("a")
        await store.forget_body("a")
        assert await store.one("a") == Kept(
            replace(made, body=None, webhook=None), fulfilled("a"), HUGE
        )


async def test_a_name_and_a_key_are_had_once(tmp_path: Path) -> None:
    async with store_in(tmp_path) as (store, _):
        await store.add(promise("a"))
        for twin in (
            replace(promise("b"), name="a"),
            replace(promise("b"), idempotency_key="i-a"),
        ):
            with pytest.raises(DatabaseError):
                await store.add(twin)
            await store.add(replace(twin, key_id="other", promise_id=f"other-{twin.name}"))
        await store.add(replace(promise("b"), idempotency_key="i-a"), instead_of="a")
        assert await find(store, "a") is None
        await store.release("b")
        assert await store.find("k", name="x", idempotency_key="i-a") == ()


async def test_what_failed_was_not_charged(tmp_path: Path) -> None:
    async with store_in(tmp_path) as (store, journal):
        await store.add(promise("a", body=b"{}"))
        await journal.write(Settlement("r-a", "interrupted", Wei(0), 103.0))
        (kept,) = await store.unfinished()
        assert kept.charged is None
        await store.run_again("a", "r-new")
        assert (await store.unfinished())[0].promise.request_id == "r-new"
        await store.withdraw("a")
        assert await store.unfinished() == ()


async def test_a_body_whose_answer_is_there_is_forgotten_at_the_next_start(tmp_path: Path) -> None:
    async with store_in(tmp_path) as (store, journal):
        await store.add(promise("a", body=b"secret"))
        await store.add(promise("b", body=b"needed"))
        await journal.record(fulfilled("a"))
        await journal.drain()
        await store.forget_fulfilled_bodies()
        done, left = await find(store, "a"), await find(store, "b")
        assert done is not None
        assert left is not None
        assert (done.promise.body, left.promise.body) == (None, b"needed")


async def test_sweeping_takes_what_is_old_and_owed_to_nobody(tmp_path: Path) -> None:
    async with store_in(tmp_path) as (store, journal):
        for name, webhook in (("old", None), ("untold", "https://x"), ("young", None)):
            await store.add(promise(name, webhook=webhook))
            await journal.record(fulfilled(name, 5000.0 if name == "young" else 100.0))
        await store.add(promise("abandoned"))
        await store.add(promise("waiting", body=b"{}"))
        await journal.drain()
        await store.sweep(1000.0)
        left = {
            name
            for name in ("old", "untold", "young", "abandoned", "waiting")
            if await find(store, name) is not None
        }
        assert left == {"untold", "young", "abandoned", "waiting"}
        untold = await find(store, "untold")
        assert untold is not None
        assert untold.fulfilment is not None
        await store.forget_webhook("untold")
        await store.sweep(2 * DAY)
        left = {kept.promise.name for kept in await store.unfinished()}
        assert left == {"waiting"}
        for name in ("untold", "young", "abandoned"):
            assert await find(store, name) is None
