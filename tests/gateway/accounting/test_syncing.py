"""Whoever syncs a file, the disk has it before it is told of."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from typing_extensions import override

from gateway.accounting import syncing, write_ahead
from gateway.accounting.syncing import (
    KernelSyncer,
    Syncer,
    ThreadSyncer,
    kernel_context,
    syncer_for,
)
from gateway.accounting.write_ahead import open_write_ahead_log


@pytest.fixture
def descriptor(tmp_path: Path) -> Iterator[int]:
    opened = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    yield opened
    os.close(opened)


@pytest.fixture(params=[KernelSyncer, ThreadSyncer])
async def syncer(request: pytest.FixtureRequest, descriptor: int) -> AsyncIterator[Syncer]:
    opened: Syncer
    if request.param is ThreadSyncer:
        opened = ThreadSyncer(descriptor)
    else:
        try:
            opened = KernelSyncer(descriptor, kernel_context(descriptor))
        except OSError as error:
            pytest.skip(f"not on this system: {error}")
    yield opened
    opened.close()


async def outcome(syncer: Syncer) -> OSError | None:
    told: asyncio.Future[OSError | None] = asyncio.get_running_loop().create_future()
    syncer.begin(told.set_result)
    async with asyncio.timeout(30):
        return await told


async def test_it_tells_when_it_is_done(syncer: Syncer, descriptor: int) -> None:
    for number in range(20):
        os.pwrite(descriptor, b"x", number)
        assert await outcome(syncer) is None


async def test_it_tells_what_went_wrong(syncer: Syncer, descriptor: int) -> None:
    reading, writing = os.pipe()
    try:
        os.dup2(reading, descriptor)  # a pipe has no disk
        assert isinstance(await outcome(syncer), OSError)
    finally:
        os.close(reading)
        os.close(writing)


async def test_where_the_kernel_does_not_a_thread_does(
    descriptor: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(syncing, "linux_aio", None)
    syncer = await syncer_for(descriptor)
    assert isinstance(syncer, ThreadSyncer)
    assert await outcome(syncer) is None
    syncer.close()


class HandSyncer(Syncer):
    """Done when the test says so."""

    def __init__(self) -> None:
        self.begun: list[Callable[[OSError | None], None]] = []

    @override
    def begin(self, done: Callable[[OSError | None], None]) -> None:
        self.begun.append(done)

    @override
    def close(self) -> None:
        self.begun.clear()


async def test_who_asks_during_a_sync_is_told_after_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hand = HandSyncer()

    async def hand_over(_: int) -> Syncer:
        return hand

    monkeypatch.setattr(write_ahead, "syncer_for", hand_over)
    async with open_write_ahead_log(tmp_path / "log", is_synced=True) as log:
        first = log.sync()
        second, third = log.sync(), log.sync()
        third.cancel()
        assert len(hand.begun) == 1
        hand.begun[0](None)
        assert (first.done(), second.done(), len(hand.begun)) == (True, False, 2)
        fourth = log.sync()
        hand.begun[1](OSError("the disk is gone"))
        assert second.done(), "an answer is owed whatever the disk says"
        assert not fourth.done()
        closing = asyncio.ensure_future(log.close())
        await asyncio.sleep(0)
        assert not closing.done()
        hand.begun[2](None)
        hand.begun[3](None)
        await closing
        assert fourth.done()
        monkeypatch.setattr(log, "_syncer", None)  # it is closed already
