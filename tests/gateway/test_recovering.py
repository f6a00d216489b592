"""A gateway that was killed over a job that tickets paid for: what the node delivered is paid once."""

import asyncio
import shutil
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

from gateway.accounting.events import Event, Fulfilment
from gateway.dispatch import Delivered
from network.units import Wei
from tests.gateway.routing import SIGNER, Desk, Key, open_desk, request_for, until
from tests.link.test_paid import FEE, bought, sold
from tests.network.chain.fake_chain import FakeChain
from tests.node.fakes import MODEL, FakeEngine
from tests.node.nodes import NODE_KEY, Buyer, eventually
from tests.node.payments.paid_nodes import MemoryChain, paid_node

SEED = 4711
REQUEST = request_for(model_id=MODEL).model_copy(update={"seed": None})


def chain_for_both() -> MemoryChain:
    chain = MemoryChain()
    chain.gas_price = Wei(1)
    chain.fund(SIGNER.address, Wei(10**18), Wei(10**18))
    chain.add_orchestrator(NODE_KEY.address)
    chain.next_round()
    return chain


async def never(_: Delivered) -> Event:
    """Where the process is killed: the images are there, and nothing is written down."""
    await asyncio.Event().wait()
    raise AssertionError


async def kept(_: Delivered) -> Event:
    return Fulfilment("r", "done", 200, "{}", "{}", 1.0)


def killed(folder: Path) -> Path:
    """The books as the kill leaves them, with the promise that the request was for."""
    copy = folder.with_name("after")
    shutil.copytree(folder, copy)
    promise = ("p", "k", "n", "r", "e", "d", "key", None, "b", None, 1.0, SEED)
    with closing(sqlite3.connect(copy / "gateway.db")) as books, books:
        books.execute(
            "INSERT INTO promises (promise_id, key_id, name, request_id, endpoint, digest,"
            " idempotency_key, body, base_url, webhook, created_at, seed)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            promise,
        )
    return copy


@asynccontextmanager
async def desk_in(folder: Path, uri: str, chain: FakeChain) -> AsyncIterator[Desk]:
    await asyncio.to_thread(folder.mkdir, exist_ok=True)
    async with open_desk(folder, [uri], chain=chain, resumable_since=0.0) as desk:
        await until(lambda: desk.directory.prospects(MODEL))
        yield desk


async def has_no_doubts(desk: Desk) -> None:
    assert desk.paying is not None
    paying = desk.paying
    await until(lambda: not paying.figures()["payments_in_doubt"])
    await desk.journal.drain()


async def test_what_was_delivered_is_had_again_and_paid_once(tmp_path: Path) -> None:
    chain, engine = chain_for_both(), FakeEngine()
    async with paid_node(tmp_path / "node", chain, engine) as node:
        async with desk_in(tmp_path / "before", node.url, chain) as desk:
            run = desk.dispatcher.run("r", Key(), REQUEST, never, seed=SEED)
            making = asyncio.ensure_future(run)
            await until(lambda: len(engine.jobs) == 1 and not engine.active)
            await asyncio.sleep(0.2)  # the answer is there
            copy = await asyncio.to_thread(killed, tmp_path / "before")
            making.cancel()
            await asyncio.gather(making, return_exceptions=True)
        async with desk_in(copy, node.url, chain) as desk:
            attempts = await desk.journal.resumable()
            assert [one.request_id for one in attempts] == ["r"]
            found = await desk.dispatcher.recover("r", Key(), REQUEST, kept, attempts, seed=SEED)
            assert found is not None
            await found.settled
            assert [picture.seed for picture in found.images] == [SEED]
            assert (found.fee, found.attempts) == (FEE, 1)
            await has_no_doubts(desk)
            record = await desk.journal.request("r")
            assert record is not None
            assert (record.state, record.fee, record.charged) == ("settled", FEE, FEE)
            assert record.credited == record.paid > 0
            assert await desk.journal.resumable() == ()
    assert len(engine.jobs) == 1
    assert await asyncio.to_thread(bought, copy) == await asyncio.to_thread(
        sold, tmp_path / "node"
    )


async def test_tickets_of_a_job_that_the_kill_cancelled_pay_for_the_next(tmp_path: Path) -> None:
    chain, engine = chain_for_both(), FakeEngine(step_seconds=0.2)
    async with paid_node(tmp_path / "node", chain, engine) as node, Buyer(node) as buyer:
        async with desk_in(tmp_path / "before", node.url, chain) as desk:
            run = desk.dispatcher.run("r", Key(), REQUEST, never, seed=SEED)
            making = asyncio.ensure_future(run)
            await until(lambda: engine.active)
            copy = await asyncio.to_thread(killed, tmp_path / "before")
            making.cancel()
            await asyncio.gather(making, return_exceptions=True)

            async def is_over() -> bool:
                return bool((await buyer.get("/status", admin=True)).json["held"] == "0")

            await eventually(is_over)
        engine.step_seconds = 0.0
        async with desk_in(copy, node.url, chain) as desk:
            attempts = await desk.journal.resumable()
            found = await desk.dispatcher.recover("r", Key(), REQUEST, kept, attempts, seed=SEED)
            assert found is None
            record = await desk.journal.request("r")
            assert record is not None
            assert (record.state, record.fee, record.charged) == ("interrupted", 0, 0)
            again = await desk.dispatcher.run("r2", Key(), REQUEST, seed=SEED)
            await again.settled
            assert [picture.seed for picture in again.images] == [SEED]
            second = await desk.journal.request("r2")
            assert second is not None
            # What the first brought is there already.
            assert second.paid < FEE
            await has_no_doubts(desk)
    books = await asyncio.to_thread(sold, tmp_path / "node")
    assert sorted(charged for _, charged in books.values()) == [0, FEE]
    assert sum(credit for credit, _ in books.values()) == record.credited + second.credited
