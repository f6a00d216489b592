"""Remembering takes as long as the image store takes, and nobody waits for it, or is let through meanwhile."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path

from typing_extensions import override

from gateway.keys import Client, KeyGrant
from gateway.payments.allowance import Allowances
from gateway.repeats.answering import Answering
from gateway.repeats.memory import Memory
from gateway.repeats.recollection import Recollection
from gateway.repeats.repeating import Repeating, Rules
from gateway.storage.disk import open_disk_store
from gateway.storage.names import ImageName, Kind
from gateway.storage.store import (
    ImageNotStoredError,
    ImageStore,
    ImageStoreSilentError,
    StoredImage,
)
from network.runtime.clock import SystemClock
from network.runtime.supervisor import supervise
from tests.gateway.routing import open_desk, request_for
from tests.gateway.stub_orchestrator import StubOrchestrator, running
from tests.gateway.waiting import until

KEY = KeyGrant("key", "a key")


@dataclass
class SlowStore(ImageStore):
    """A real store behind a gate, which may refuse what is put, or be silent when asked."""

    inner: ImageStore
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    refuses: bool = False
    is_silent: bool = False

    @property
    @override
    def total_bytes(self) -> int:
        return self.inner.total_bytes

    @property
    @override
    def count(self) -> int:
        return self.inner.count

    @override
    async def put(self, request: str, data: bytes, kind: Kind = "png") -> str:
        await self.gate.wait()
        if self.refuses:
            raise ImageNotStoredError("the disk is full")
        return await self.inner.put(request, data, kind)

    @override
    async def secure(self, paths: Sequence[str]) -> None:
        await self.inner.secure(paths)

    @override
    async def open(self, name: ImageName) -> StoredImage | None:
        if self.is_silent:
            raise ImageStoreSilentError("no answer")
        return await self.inner.open(name)

    @override
    async def sweep(self) -> int:
        return await self.inner.sweep()


@dataclass
class Stand:
    repeating: Repeating
    store: SlowStore
    stub: StubOrchestrator
    count: int = 0

    async def until_remembered(self, count: int) -> None:
        await until(lambda: self.repeating.figures()["remembered"] == count)

    async def ask(self, buyer: KeyGrant = KEY, **fields: object) -> str:
        """How the request was answered."""
        self.count += 1
        result = await self.repeating.run(f"r{self.count}", buyer, request_for(**fields))
        await result.settled
        return result.cache


@asynccontextmanager
async def standing(
    folder: Path, *, coalesce: bool = True, max_bytes: int = 10**7
) -> AsyncIterator[Stand]:
    clock = SystemClock()
    stub = StubOrchestrator()
    async with (
        running(stub),
        open_desk(folder, [stub]) as desk,
        open_disk_store(
            folder / "i", lifetime=60, max_bytes=max_bytes, max_count=10_000, clock=clock
        ) as disk,
        supervise(clock) as supervisor,
    ):
        store = SlowStore(disk)
        recollection = Recollection(Memory(most=99, lifetime=60), store, supervisor, clock)
        routing = desk.dispatcher.routing
        repeating = Repeating(
            desk.dispatcher,
            Answering(desk.journal, Allowances(), routing, clock),
            recollection,
            Rules("key", coalesce, Fraction(0)),
            secret=bytes(32),
            supervisor=supervisor,
            clock=clock,
        )
        yield Stand(repeating, store, stub)


async def test_between_the_answer_and_the_memory_nothing_is_made_twice(tmp_path: Path) -> None:
    async with standing(tmp_path) as stand:
        # Answered, though the store has none of it yet.
        assert await stand.ask() == "miss"
        assert await stand.ask() == "coalesced"
        stand.store.gate.set()
        await stand.until_remembered(1)
        assert await stand.ask() == "hit"
        assert (stand.stub.delivered, stand.repeating.figures()["runs"]) == (1, 0)


async def test_an_answer_whose_image_had_to_leave_is_made_anew(tmp_path: Path) -> None:
    async with standing(tmp_path, max_bytes=4000) as stand:
        stand.store.gate.set()
        for seed in range(20):
            assert await stand.ask(seed=seed) == "miss"
            await stand.until_remembered(seed + 1)
        assert await stand.ask(seed=19) == "hit"
        assert await stand.ask(seed=0) == "miss"
        assert stand.stub.delivered == 21


async def test_strangers_who_share_a_key_share_no_answers(tmp_path: Path) -> None:
    one, other = (
        replace(KEY, client=Client(name, 9, requests_per_minute=9, pixels_per_minute=99_999))
        for name in ("one", "other")
    )
    async with standing(tmp_path) as stand:
        stand.store.gate.set()
        assert await stand.ask(one) == "miss"
        await stand.until_remembered(1)
        assert [await stand.ask(buyer) for buyer in (one, other)] == ["hit", "miss"]


async def test_what_the_store_refuses_is_made_anew(tmp_path: Path) -> None:
    async with standing(tmp_path) as stand:
        stand.store.gate.set()
        stand.store.refuses = True
        assert await stand.ask() == "miss"
        await until(lambda: not stand.repeating.figures()["runs"])
        assert await stand.ask() == "miss"
        assert stand.repeating.figures()["remembered"] == 0


async def test_what_the_store_does_not_tell_is_made_anew(tmp_path: Path) -> None:
    async with standing(tmp_path) as stand:
        stand.store.gate.set()
        assert await stand.ask() == "miss"
        await stand.until_remembered(1)
        stand.store.is_silent = True
        assert await stand.ask() == "miss"
        assert stand.stub.delivered == 2


async def test_no_more_wait_for_a_slow_store_than_memory_has_room_for(tmp_path: Path) -> None:
    async with standing(tmp_path, coalesce=False) as stand:
        for seed in range(70):
            assert await stand.ask(seed=seed) == "miss"
        stand.store.gate.set()
        await stand.until_remembered(64)
        assert await stand.ask(seed=69) == "miss"
        assert await stand.ask(seed=63) == "hit"
