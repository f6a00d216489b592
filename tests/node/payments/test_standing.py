"""Nobody waits for an endpoint who was here before."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from structlog.testing import capture_logs
from typing_extensions import override

from network.chain.model import ChainUnavailableError, SenderInfo
from network.chain.watch import ChainWatch
from network.units import Address
from node.payments.standing import Standings
from tests.node.nodes import GATEWAY_KEY, NODE_KEY, eventually
from tests.node.payments.paid_nodes import ETHER, MemoryChain, funded_chain

PAYER = GATEWAY_KEY.address


class HandClock:
    """Moved by hand."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def now(self) -> float:
        return self.seconds

    def monotonic(self) -> float:
        return self.seconds


class SlowChain(MemoryChain):
    """Answers when it is let."""

    def __init__(self, clock: HandClock) -> None:
        super().__init__(clock)
        self.answers = asyncio.Event()
        self.answers.set()
        self.asked = 0

    @override
    async def sender_info(self, sender: Address) -> SenderInfo:
        self.asked += 1
        await self.answers.wait()
        return await super().sender_info(sender)


class Office:
    def __init__(self) -> None:
        self.clock = HandClock()
        self.chain = SlowChain(self.clock)
        made = funded_chain()
        self.chain.pool, self.chain.funds = made.pool, made.funds
        self.chain.next_round()
        self.watch = ChainWatch(self.chain, self.clock, stale_seconds=300)
        self.standings = Standings(self.watch, NODE_KEY.address, self.clock, max_age=300)
        self.watch.subscribe(self.standings.on_head)

    async def reserve(self) -> int:
        return (await self.standings.of(PAYER)).info.reserve_remaining


@asynccontextmanager
async def office() -> AsyncIterator[Office]:
    made = Office()
    await made.watch.refresh()
    yield made


async def test_a_payer_is_read_once_and_then_with_every_head() -> None:
    async with office() as desk:
        assert await desk.reserve() == ETHER
        desk.chain.funds[PAYER].reserve = 5
        desk.chain.answers.clear()
        assert await desk.reserve() == ETHER
        desk.chain.answers.set()
        running = asyncio.ensure_future(desk.standings.run())
        await desk.watch.refresh()

        async def is_known() -> bool:
            return await desk.reserve() == 5

        await eventually(is_known)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_an_endpoint_that_hangs_makes_nobody_wait_who_is_known() -> None:
    async with office() as desk:
        await desk.reserve()
        desk.chain.answers.clear()
        desk.clock.seconds += 60
        await desk.watch.refresh()
        assert await desk.reserve() == ETHER
        assert desk.chain.asked == 2


async def test_what_is_too_old_is_not_acted_on() -> None:
    async with office() as desk:
        await desk.reserve()
        desk.chain.answers.clear()
        desk.clock.seconds += 301
        await desk.watch.refresh()
        with pytest.raises(ChainUnavailableError, match="does not answer in time"):
            await desk.reserve()


async def test_who_was_not_here_for_long_is_not_read_anew() -> None:
    async with office() as desk:
        await desk.reserve()
        desk.clock.seconds += 601
        await desk.watch.refresh()
        await desk.standings.refresh()
        assert desk.chain.asked == 1


async def test_strangers_without_funds_do_not_keep_the_endpoints_busy() -> None:
    async with office() as desk:
        for number in range(5):
            await desk.standings.of(Address(bytes([number]) * 20))
        assert desk.chain.asked == 5
        await desk.watch.refresh()
        await desk.standings.refresh()
        assert desk.chain.asked == 5


async def test_the_operator_hears_once_that_nobody_can_pay_and_what_to_do() -> None:
    async with office() as desk:
        with capture_logs() as logged:
            await desk.standings.refresh()
            place = desk.chain.pool.pop(NODE_KEY.address)
            for _ in range(3):
                await desk.watch.refresh()
                await desk.standings.refresh()
            desk.chain.pool[NODE_KEY.address] = place
            await desk.watch.refresh()
            await desk.standings.refresh()
        events = [(entry["event"], entry.get("remedy", "")) for entry in logged]
        assert events == [
            (
                "nobody can pay this node",
                "limner-node activate; it counts from the next round on",
            ),
            ("payments are taken again", ""),
        ]


async def test_a_failing_chain_leaves_what_is_known() -> None:
    async with office() as desk:
        await desk.reserve()
        desk.chain.problem = ChainUnavailableError("down")
        await desk.standings.refresh()
        assert await desk.reserve() == ETHER
