"""The watch serves what it read lately, and says so when that is too old."""

import asyncio

import pytest
from structlog.testing import capture_logs
from typing_extensions import override

from network.chain.model import ChainUnavailableError, Head, SenderInfo, WrongChainError
from network.chain.watch import ChainWatch
from network.runtime.supervisor import supervise
from network.units import Address, Wei
from tests.network.chain.fake_chain import FakeChain
from tests.network.chain.test_rpc import TestClock

SENDER = Address(b"s" * 20)
RECIPIENT = Address(b"r" * 20)
DOWN = ChainUnavailableError("no RPC endpoint helps")


class CountingChain(FakeChain):
    """Tells how often it was asked for a sender, and may keep callers waiting."""

    def __init__(self, clock: TestClock) -> None:
        super().__init__(clock)
        self.asked = 0
        self.gate = asyncio.Event()
        self.gate.set()

    @override
    async def sender_info(self, sender: Address) -> SenderInfo:
        self.asked += 1
        await self.gate.wait()
        return await super().sender_info(sender)


@pytest.fixture
def clock() -> TestClock:
    return TestClock()


@pytest.fixture
def chain(clock: TestClock) -> CountingChain:
    made = CountingChain(clock)
    made.fund(SENDER, Wei(70), Wei(30))
    return made


@pytest.fixture
def watch(chain: CountingChain, clock: TestClock) -> ChainWatch:
    return ChainWatch(chain, clock, poll_seconds=0.01, stale_seconds=300)


async def test_nothing_is_known_before_the_first_look(watch: ChainWatch) -> None:
    with pytest.raises(ChainUnavailableError, match="not read yet"):
        _ = watch.head
    with pytest.raises(ChainUnavailableError):
        await watch.sender_info(SENDER)


async def test_an_old_head_is_served_for_a_while_and_then_not_case_31(
    watch: ChainWatch, chain: CountingChain, clock: TestClock
) -> None:
    head = await watch.refresh()
    chain.problem = DOWN
    clock.time += 299
    with pytest.raises(ChainUnavailableError):
        await watch.refresh()
    assert watch.head is head
    clock.time += 2
    with pytest.raises(ChainUnavailableError, match=r"301 s ago.*no RPC endpoint helps"):
        _ = watch.head
    chain.problem = None
    await watch.refresh()
    assert watch.head.read_at == clock.time


async def test_another_chain_is_no_outage_to_bridge(
    watch: ChainWatch, chain: CountingChain
) -> None:
    await watch.refresh()
    chain.problem = WrongChainError("chain 8")
    with pytest.raises(WrongChainError):
        await watch.refresh()
    with pytest.raises(ChainUnavailableError, match="chain 8"):
        _ = watch.head


async def test_a_sender_is_asked_for_once_a_head(watch: ChainWatch, chain: CountingChain) -> None:
    await watch.refresh()
    chain.gate.clear()
    together = asyncio.gather(*(watch.sender_info(SENDER) for _ in range(20)))
    await asyncio.sleep(0)
    chain.gate.set()
    infos = await together
    assert chain.asked == 1
    assert {info.deposit for info in infos} == {70}

    chain.fund(SENDER, Wei(5), Wei(0))
    assert (await watch.sender_info(SENDER)).deposit == 70
    await watch.refresh()
    assert (await watch.sender_info(SENDER)).deposit == 75
    assert chain.asked == 2
    watch.forget(SENDER)
    await watch.sender_info(SENDER)
    assert chain.asked == 3


async def test_when_the_asker_goes_away_the_next_one_asks(
    watch: ChainWatch, chain: CountingChain
) -> None:
    await watch.refresh()
    chain.gate.clear()
    first = asyncio.ensure_future(watch.sender_info(SENDER))
    second = asyncio.ensure_future(watch.sender_info(SENDER))
    await asyncio.sleep(0)
    first.cancel()
    chain.gate.set()
    assert (await second).deposit == 70


async def test_what_is_known_of_a_sender_serves_through_an_outage_case_15(
    watch: ChainWatch, chain: CountingChain, clock: TestClock
) -> None:
    await watch.refresh()
    await watch.sender_info(SENDER)
    await watch.refresh()
    chain.problem = DOWN
    assert (await watch.sender_info(SENDER)).deposit == 70
    assert (await watch.sender_info(SENDER)).deposit == 70
    assert chain.asked == 2
    with pytest.raises(ChainUnavailableError):
        await watch.sender_info(Address(b"x" * 20))
    # The head goes on, but this sender cannot be read: its funds get too old by themselves.
    clock.time += 301
    chain.problem = None
    await watch.refresh()
    chain.problem = DOWN
    with pytest.raises(ChainUnavailableError):
        await watch.sender_info(SENDER)


async def test_claims_are_asked_for_the_recipient_of_tickets_case_29(
    watch: ChainWatch, chain: CountingChain
) -> None:
    chain.funds[SENDER].claimed[chain.current_round, RECIPIENT] = 12
    await watch.refresh()
    assert await watch.claimed_reserve(SENDER, RECIPIENT) == 12
    assert await watch.claimed_reserve(SENDER, Address(b"n" * 20)) == 0


async def test_activity_is_read_by_account(watch: ChainWatch, chain: CountingChain) -> None:
    chain.add_orchestrator(RECIPIENT)
    chain.next_round()
    await watch.refresh()
    assert await watch.is_active(RECIPIENT)
    assert not await watch.is_active(SENDER)


async def test_strangers_cannot_fill_the_memory(
    watch: ChainWatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("network.chain.watch._MOST_CACHED", 10)
    await watch.refresh()
    for number in range(50):
        await watch.sender_info(Address(number.to_bytes(20, "big")))
    assert len(watch._entries) == 10


async def test_subscribers_hear_every_head_whatever_one_of_them_does(watch: ChainWatch) -> None:
    heard: list[Head] = []

    def fails(_: Head) -> None:
        raise ValueError("a subscriber's own fault")

    watch.subscribe(fails)
    unsubscribe = watch.subscribe(heard.append)
    with capture_logs() as logs:
        first = await watch.refresh()
        unsubscribe()
        await watch.refresh()
    assert heard == [first]
    assert "a subscriber of the chain failed" in [entry["event"] for entry in logs]


async def test_the_watch_looks_again_and_again_and_logs_an_outage_once_case_15(
    watch: ChainWatch, chain: CountingChain
) -> None:
    heads: asyncio.Queue[Head] = asyncio.Queue()
    watch.subscribe(heads.put_nowait)
    with capture_logs() as logs:
        async with supervise() as supervisor:
            supervisor.start("chain", watch.run)
            await heads.get()
            chain.problem = DOWN
            await asyncio.sleep(0.1)
            chain.problem = None
            while not heads.empty():
                heads.get_nowait()
            await heads.get()
    events = [entry["event"] for entry in logs]
    assert events.count("cannot read the chain") == 1
    assert events.count("the chain is read again") == 1
