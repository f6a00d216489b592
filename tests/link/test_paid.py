"""Tickets over links: what a cut line leaves open is asked when the node is back, and charged once."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from gateway.config import LinkSettings
from gateway.dispatch import doubts
from network.identity import KeySigner, checksum
from network.keystore import create_keystore
from network.units import ModelId, Wei
from tests.gateway.routing import SIGNER, Desk, Key, open_desk, request_for, until
from tests.link.linked import Line, line_to
from tests.node.fakes import MODEL, FakeEngine
from tests.node.nodes import PASSPHRASE
from tests.node.payments.paid_nodes import MemoryChain, paid_node

SECRETS = [b"\x33" * 32, b"\x44" * 32]
KEYS = [KeySigner(secret) for secret in SECRETS]
#: 64 x 64 pixels at 5/2 wei.
FEE = 10240


@dataclass
class PaidWorld:
    desk: Desk
    lines: list[Line]
    engines: list[FakeEngine]


@asynccontextmanager
async def paid_world(folder: Path) -> AsyncIterator[PaidWorld]:
    """Two nodes that sell for tickets, and a gateway that buys, on one chain."""
    chain = MemoryChain()
    chain.gas_price = Wei(1)
    chain.fund(SIGNER.address, Wei(10**18), Wei(10**18))
    for key in KEYS:
        chain.add_orchestrator(key.address)
    chain.next_round()
    links = LinkSettings(
        listen="127.0.0.1:0",
        nodes=tuple(checksum(key.address) for key in KEYS),
        silence_seconds=1,
    )
    (folder / "gateway").mkdir()
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        desk = await enter(open_desk(folder / "gateway", [], chain=chain, links=links))
        made = PaidWorld(desk, [], [])
        for number in range(len(KEYS)):
            place = folder / f"node-{number}"
            (place / "model").mkdir(parents=True)
            (place / "model" / "model_index.json").write_text("{}")
            keystore = place / "data" / "keystore.json"
            await create_keystore(keystore, PASSPHRASE, SECRETS[number], scrypt_n=2)
            line = await enter(line_to(desk.link_url))
            engine = FakeEngine()
            engine.step_seconds = 0.05
            gateways = [{"url": line.url, "address": checksum(SIGNER.address)}]
            await enter(paid_node(place, chain, engine, gateways=gateways))
            made.lines.append(line)
            made.engines.append(engine)
        await until(lambda: len(buyable(desk)) == len(KEYS))
        yield made


def buyable(desk: Desk) -> list[str]:
    prospects = desk.directory.prospects(MODEL)
    return [one.uri for one in prospects if one.barred is None and one.free > 0]


def rows(books: Path, query: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(f"file:{books}?mode=ro", uri=True, timeout=20)) as connection:
        return connection.execute(query).fetchall()


def sold(folder: Path) -> dict[str, tuple[Fraction, int]]:
    """A node's books: what each attempt brought and cost."""
    books = folder / "data" / "node.sqlite"
    charged = dict(
        rows(books, "SELECT j.attempt_id, e.charged FROM jobs j JOIN ends e USING (job_id)")
    )
    return {
        attempt: (Fraction(credit), int(charged.get(attempt) or 0))
        for attempt, credit in rows(books, "SELECT attempt_id, credit FROM payments")
    }


def bought(folder: Path) -> dict[str, tuple[Fraction, int]]:
    """The gateway's books, as far as it knows what became of its payments."""
    query = (
        "SELECT b.attempt_id, r.credited, r.charged FROM ticket_batches b"
        " JOIN receipts r USING (attempt_id)"
    )
    return {
        attempt: (Fraction(credited), int(charged))
        for attempt, credited, charged in rows(folder / "gateway.db", query)
    }


@pytest.mark.parametrize("how", ["cut", "freeze"])
async def test_a_lost_link_leaves_no_wei_unexplained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr(doubts, "_LONGEST_PAUSE", 0.25)
    async with paid_world(tmp_path) as world:
        desk = world.desk
        wish = request_for(model_id=MODEL, num_inference_steps=30)
        asking = asyncio.ensure_future(desk.dispatcher.run("r1", Key(), wish))
        await until(lambda: any(engine.active for engine in world.engines))
        victim = 0 if world.engines[0].active else 1
        line = world.lines[victim]
        line.is_down = True
        if how == "cut":
            line.cut()
        else:
            line.is_frozen = True
        result = await asking
        await result.settled
        assert (result.attempts, result.fee) == (2, FEE)
        paying = desk.paying
        assert paying is not None
        assert paying.figures()["payments_in_doubt"] == 1
        line.is_down = line.is_frozen = False
        await until(lambda: not paying.figures()["payments_in_doubt"])
    ours = bought(tmp_path / "gateway")
    theirs = sold(tmp_path / "node-0") | sold(tmp_path / "node-1")
    assert ours == theirs
    assert len(ours) == 2
    assert sorted(charged for _, charged in ours.values()) == [0, FEE]


async def test_jobs_are_paid_over_the_link(tmp_path: Path) -> None:
    async with paid_world(tmp_path) as world:
        for number in range(4):
            wish = request_for(model_id=ModelId(MODEL), seed=number)
            result = await world.desk.dispatcher.run(f"r{number}", Key(), wish)
            await result.settled
            assert result.fee == FEE
    ours = bought(tmp_path / "gateway")
    assert ours == sold(tmp_path / "node-0") | sold(tmp_path / "node-1")
    assert [charged for _, charged in ours.values()] == [FEE] * 4
