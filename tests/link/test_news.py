"""What a node pushes is known to its gateway at once, and never counts a job of the gateway twice."""

import asyncio
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from gateway.orchestrators.inquiry import Inquiry
from gateway.orchestrators.offer import ModelOffer, Offer
from gateway.orchestrators.peer import Peer
from network.capabilities import Capabilities
from network.link.news import ModelNews, News
from network.prices import NoRateError
from network.units import Address, ModelId
from node.discovery.advertiser import ModelOffer as NodeOffer
from node.link.herald import Herald
from scripts.local_network.network import free_port
from tests.gateway.test_app import serving
from tests.gateway.waiting import until, until_async
from tests.link.linked import linked_node, state_of, taking_links, until_offered, world
from tests.node.fakes import MODEL, FakeEngine

#: A gateway that asks so seldom that whatever it knows was pushed.
SELDOM = {"routing": {"refresh_seconds": 600, "max_wait_seconds": 5}}
ME, OTHER = Address(b"\x01" * 20), Address(b"\x02" * 20)


def slow() -> FakeEngine:
    engine = FakeEngine()
    engine.step_seconds = 0.02
    return engine


async def test_a_model_that_is_lost_and_comes_back_is_known_at_once(tmp_path: Path) -> None:
    async with world(tmp_path, gateway=SELDOM) as linked:
        (engine,) = linked.engines
        state = engine.states[MODEL]
        await until_offered(linked.stage, free=2)
        engine.change(replace(state, status="loading"))
        await until_offered(linked.stage, free=0)
        assert (await state_of(linked.stage))["models"][0]["warm"] is False
        engine.change(state)
        await until_offered(linked.stage, free=2)
        assert (await state_of(linked.stage))["models"][0]["warm"] is True


async def test_a_model_that_cools_down_is_known_at_once(tmp_path: Path) -> None:
    """It has as many places as before: only the engine tells of it."""
    async with world(tmp_path, gateway=SELDOM) as linked:
        (engine,) = linked.engines
        engine.change(replace(engine.states[MODEL], status="cold"))

        async def is_cold() -> bool:
            (model,) = (await state_of(linked.stage))["models"]
            return model["warm"] is False and model["free"] == 2

        await until_async(is_cold)


async def test_a_request_that_waits_gets_a_place_as_soon_as_there_is_one(tmp_path: Path) -> None:
    """Nobody asks the node meanwhile: its push is what lets the request in."""
    async with world(tmp_path, engine=slow, gateway=SELDOM) as linked:
        (engine,) = linked.engines
        state = engine.states[MODEL]
        engine.change(replace(state, status="loading"))
        await until_offered(linked.stage, free=0)
        asking = asyncio.ensure_future(linked.stage.post())

        async def waits() -> bool:
            return bool((await linked.stage.status())["waiting"] == 1)

        await until_async(waits)
        engine.change(state)
        assert (await asking).status == 200


async def test_a_node_that_can_be_called_pushes_all_the_same(tmp_path: Path) -> None:
    """Its jobs go directly; the link is for news only."""
    engine = FakeEngine()
    port = free_port()
    direct = f"http://127.0.0.1:{port}"
    settings = taking_links(tmp_path / "gateway", orchestrators=[{"uri": direct}], **SELDOM)
    async with serving(settings) as stage:
        url = stage.gateway.link_url
        gateways = [{"url": url, "address": stage.gateway.address, "jobs": False}]
        async with linked_node(
            tmp_path / "node", url, engine, gateways=gateways, listen=direct
        ) as node:

            async def offered(free: int) -> bool:
                found = {o["uri"]: o for o in (await stage.status())["orchestrators"]}[node.url]
                return bool(found["models"]) and found["models"][0]["free"] == free

            # Unreachable when the gateway asked; its link makes it ask again.
            await until_async(lambda: offered(2))
            engine.change(replace(engine.states[MODEL], status="loading"))
            await until_async(lambda: offered(0))
            engine.change(replace(engine.states[MODEL], status="ready"))
            await until_async(lambda: offered(2))
            answer = await stage.post()
            assert answer.status == 200
            assert answer.headers["X-Limner-Orchestrator"] == node.url
            assert (await state_of(stage))["state"] == "unreachable"
            assert "news only" in (await state_of(stage))["problem"]


class Places(RuleBasedStateMachine):
    """A gateway's own count of free places against a node's, with every message on its way for a while.

    Jobs travel, end and are answered whenever they like; news arrive late, in order.
    """

    capacity = 4

    def __init__(self) -> None:
        super().__init__()
        offer = Offer(
            uri="link://x",
            transcoder="link://x",
            address=None,
            models={ModelId("m"): ModelOffer(warm=True, free=self.capacity, price=Fraction(1))},
            capabilities=Capabilities(frozenset()),
            auth_token=None,
            version="",
            refreshed_at=0.0,
            round_trip=0.0,
        )
        self.peer = Peer("link://x", Inquiry("link://x", 60.0, 8), offer)
        self.peer.places[ModelId("m")] = self.capacity
        #: Jobs by where they are.
        self.going, self.there, self.answered = 0, 0, 0
        self.others = 0
        self.news: list[News] = []
        self.push()

    def push(self) -> None:
        free = self.capacity - self.there - self.others
        self.news.append(News({"m": ModelNews(True, free, self.there)}, "same"))  # noqa: FBT003

    @rule()
    def claim(self) -> None:
        if self.peer.places[ModelId("m")] > 0:
            self.peer.places[ModelId("m")] -= 1
            self.peer.in_flight[ModelId("m")] += 1
            self.going += 1

    @rule()
    def arrive(self) -> None:
        if self.going and self.there + self.others < self.capacity:
            self.going -= 1
            self.there += 1
            self.push()

    @rule()
    def end(self) -> None:
        if self.there:
            self.there -= 1
            self.answered += 1
            self.push()

    @rule()
    def release(self) -> None:
        if self.answered:
            self.answered -= 1
            self.peer.in_flight[ModelId("m")] -= 1
            self.peer.places[ModelId("m")] += 1

    @rule(come=st.booleans())
    def others_come_and_go(self, come: bool) -> None:  # noqa: FBT001
        if come and self.there + self.others < self.capacity:
            self.others += 1
            self.push()
        elif not come and self.others:
            self.others -= 1
            self.push()

    @rule()
    def hear(self) -> None:
        if self.news:
            self.peer.told(self.news.pop(0))

    @invariant()
    def once_all_is_heard_the_count_is_exact(self) -> None:
        if not self.news:
            in_flight = self.going + self.there + self.answered
            assert self.peer.in_flight[ModelId("m")] == in_flight
            assert self.peer.places[ModelId("m")] == self.capacity - self.others - in_flight


TestPlaces = Places.TestCase


class HeardLink:
    """Takes pushes."""

    def __init__(self) -> None:
        self.pushes: list[bytes] = []

    def push(self, data: bytes) -> None:
        self.pushes.append(data)


async def test_many_changes_of_one_moment_are_one_push() -> None:
    link: Any = HeardLink()
    offers = {MODEL: NodeOffer(warm=True, free=2, in_use=0)}
    herald = Herald(
        offers=lambda: offers,
        jobs_of=lambda _account, _model: 0,
        price=lambda _model, _account: Fraction(1),
        is_closed=lambda: False,
        pause=3600,
    )
    herald.tell(lambda: [(ME, link)])
    running = asyncio.ensure_future(herald.run())
    for free in range(100):
        offers[MODEL] = NodeOffer(warm=True, free=free, in_use=0)
        herald.changed()
    await until(lambda: bool(link.pushes))
    herald.changed()
    await asyncio.sleep(0)
    running.cancel()
    assert len(link.pushes) == 1
    assert b'"limner/shapes":[true,99,0]' in link.pushes[0]


async def test_a_price_that_follows_a_rate_is_told_without_anybody_saying_so() -> None:
    link: Any = HeardLink()
    prices = [Fraction(1)]

    def price(_model: ModelId, _account: Address) -> Fraction:
        if not prices:
            raise NoRateError("no rate")
        return prices[-1]

    herald = Herald(
        offers=lambda: {MODEL: NodeOffer(warm=True, free=2, in_use=0)},
        jobs_of=lambda _account, _model: 0,
        price=price,
        is_closed=lambda: False,
        pause=0.001,
        look=0.01,
    )
    herald.tell(lambda: [(ME, link)])
    running = asyncio.ensure_future(herald.run())
    await until(lambda: len(link.pushes) == 1)
    await asyncio.sleep(0.05)
    assert len(link.pushes) == 1  # nothing is new
    prices.append(Fraction(2))
    await until(lambda: len(link.pushes) == 2)
    prices.clear()
    await until(lambda: len(link.pushes) == 3)
    running.cancel()
    assert len(set(link.pushes)) == 3


@pytest.mark.parametrize("change", ["price", "closed", "models"])
def test_only_other_terms_make_a_gateway_ask_anew(change: str) -> None:
    now: dict[str, Any] = {"price": Fraction(1), "closed": False}
    offers = {MODEL: NodeOffer(warm=True, free=2, in_use=0)}
    herald = Herald(
        offers=lambda: offers,
        jobs_of=lambda account, _model: 1 if account == ME else 0,
        price=lambda _model, _account: now["price"],
        is_closed=lambda: now["closed"],
    )
    before = herald.news(ME)
    assert herald.news(OTHER).models[MODEL].ours == 0
    assert before.models[MODEL].ours == 1
    offers[MODEL] = NodeOffer(warm=False, free=0, in_use=2)
    assert herald.news(ME).terms == before.terms
    match change:
        case "price":
            now["price"] = Fraction(2)
        case "closed":
            now["closed"] = True
        case _:
            offers[ModelId("another")] = NodeOffer(warm=False, free=0, in_use=0)
    assert herald.news(ME).terms != before.terms
