"""Gateways of go-livepeer at our node: what they are told, and that they think no worse of it than they must."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from network.capabilities import DEFAULT_CAPABILITIES, TEXT_TO_IMAGE
from network.payments.pricing import tickets_needed
from network.runtime.clock import SystemClock
from network.units import ModelId
from node.app import RunningNode
from node.engine.work import FailureKind, JobFailedError
from node.payments.quoting import LIFETIME_BLOCKS
from tests.livepeer.go_gateway import (
    DEFAULT_MODEL,
    TOKEN_SECONDS,
    GatewayError,
    GoGateway,
    gateway,
)
from tests.livepeer.go_purse import params_of
from tests.node.fakes import MODEL, FakeEngine
from tests.node.nodes import GATEWAY_KEY, NODE_KEY, PRICE, eventually, running_node
from tests.node.payments.paid_nodes import MemoryChain, funded_chain, paid_node

SMALL: Final[dict[str, Any]] = {
    "prompt": "a boat",
    "model_id": MODEL,
    "width": 64,
    "height": 64,
    "num_inference_steps": 2,
    "seed": 7,
}
#: Of one image of 64 x 64 at 5/2 wei.
COST: Final = 10240
TLS: Final = "https://127.0.0.1:0"


class Clock:
    """A gateway's; tests put it forward."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return SystemClock().now() + self.ahead


@asynccontextmanager
async def paying(
    node: RunningNode, chain: MemoryChain, clock: Clock | None = None
) -> AsyncIterator[GoGateway]:
    """A funded gateway that sees what `chain` says now."""
    async with gateway(
        node.url,
        signer=GATEWAY_KEY,
        head=await chain.head(),
        funds=await chain.sender_info(GATEWAY_KEY.address),
        now=clock or Clock(),
    ) as made:
        yield made


async def refused(go: GoGateway, **fields: Any) -> GatewayError:
    with pytest.raises(GatewayError) as caught:
        await go.text_to_image(**{**SMALL, **fields})
    return caught.value


async def earned(node: RunningNode) -> int:
    """Wei, by the node's own books."""
    async with httpx.AsyncClient() as client:
        status = (await client.get(f"{node.admin_url}/status")).json()
    return int(status["earned_since_start"])


# Off-chain


async def test_off_chain_it_gets_its_images_and_keeps_them(tmp_path: Path) -> None:
    """No signature, an empty payment; our data URLs become files of its own."""
    async with (
        running_node(tmp_path, listen=TLS) as node,
        gateway(node.url, now=Clock()) as go,
    ):
        delivery = await go.text_to_image(**SMALL, num_images_per_prompt=2)
        assert [image["seed"] for image in delivery.images] == [7, 8]
        assert [image["nsfw"] for image in delivery.images] == [False, False]
        assert len(set(delivery.files.values())) == 2
        for image in delivery.images:
            assert image["url"].startswith("/stream/")
            assert delivery.files[image["url"]].startswith(b"\x89PNG")
        # It offers h2 first, and takes what it is given.
        assert delivery.http_version == "HTTP/1.1"
        assert not go.suspended


async def test_in_clear_text_too(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node, gateway(node.url, now=Clock()) as go:
        assert (await go.text_to_image(**SMALL)).uri == node.url


async def test_what_it_leaves_out_is_512_by_512_and_one_image(tmp_path: Path) -> None:
    engine = FakeEngine()
    async with running_node(tmp_path, engine) as node, gateway(node.url, now=Clock()) as go:
        await go.text_to_image(prompt="a boat", model_id=MODEL, num_inference_steps=1)
        (job,) = engine.jobs
        assert (job.width, job.height, len(job.seeds)) == (512, 512, 1)


async def test_the_poll_of_the_network_reads_prices_and_hardware(tmp_path: Path) -> None:
    """Without capabilities: the base price, a price for each model, what it runs on."""
    async with running_node(tmp_path) as node, gateway(node.url, now=Clock()) as go:
        info = (await go.poll())[node.url]
        assert (info.transcoder, info.address) == (node.url, NODE_KEY.address)
        (price,) = info.prices
        assert (price.capability, price.constraint, price.price) == (TEXT_TO_IMAGE, MODEL, PRICE)
        assert [one.model_id for one in info.hardware] == [MODEL] * len(info.hardware)
        assert info.capabilities.bits == DEFAULT_CAPABILITIES | {TEXT_TO_IMAGE}
        assert info.price is not None
        (session,) = await go.discover(MODEL)
        assert (session.info.price, session.info.prices, session.info.hardware) == (PRICE, (), ())


async def test_a_model_that_is_not_here_finds_nobody_and_costs_nothing(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node, gateway(node.url, now=Clock()) as go:
        error = await refused(go, model_id="another/model")
        assert (error.status, go.sent, go.suspended) == (503, [], {})


async def test_a_missing_model_id_is_the_clients_mistake_and_no_dropped_connection(
    tmp_path: Path,
) -> None:
    """It forwards the body without one. Where go-livepeer panics, ours says so."""
    models = [{"id": DEFAULT_MODEL, "path": tmp_path / "model", "price": "5/2"}]
    async with (
        running_node(tmp_path, FakeEngine(ModelId(DEFAULT_MODEL)), models=models) as node,
        gateway(node.url, now=Clock()) as go,
    ):
        error = await refused(go, model_id=None)
        assert (error.status, error.text) == (400, "model_id is missing")


async def test_a_full_node_is_passed_over_and_not_suspended(tmp_path: Path) -> None:
    engine = FakeEngine(step_seconds=0.05)
    (tmp_path / "other").mkdir()
    async with (
        running_node(tmp_path, engine, queue={"max_waiting": 0}) as node,
        running_node(tmp_path / "other") as other,
        gateway(node.url, other.url, now=Clock()) as go,
    ):
        found = await asyncio.gather(*(go.text_to_image(**SMALL) for _ in range(8)))
        assert {delivery.uri for delivery in found} == {node.url, other.url}
        busy = [sent for sent in go.sent if sent.status == 503]
        assert all("insufficient capacity" in sent.text for sent in busy)
        assert not go.suspended


@pytest.mark.parametrize(
    ("kind", "is_suspended"),
    [
        (FailureKind.OUT_OF_MEMORY, False),
        (FailureKind.WORKER_CRASHED, True),
        (FailureKind.INTERNAL, True),
    ],
)
async def test_it_suspends_a_node_whose_worker_broke_and_none_that_was_only_full(
    tmp_path: Path, kind: FailureKind, *, is_suspended: bool
) -> None:
    engine = FakeEngine()
    engine.failures.append(JobFailedError(kind, "odd"))
    async with running_node(tmp_path, engine) as node, gateway(node.url, now=Clock()) as go:
        assert (await refused(go)).status == 503
        assert bool(go.suspended) == is_suspended


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"width": 65}, "width"),
        ({"num_images_per_prompt": 1000}, "num_images_per_prompt"),
        ({"prompt": " "}, "Prompt must be provided"),
        ({"loras": "nonsense"}, "loras"),
    ],
)
async def test_the_clients_mistakes_come_back_to_the_client(
    tmp_path: Path, fields: dict[str, Any], words: str
) -> None:
    async with running_node(tmp_path) as node, gateway(node.url, now=Clock()) as go:
        error = await refused(go, **fields)
        assert error.status == 400
        assert words in error.text
        assert len(go.sent) == 1, "nobody else is asked"


async def test_its_session_outlives_a_restart_of_ours(tmp_path: Path) -> None:
    """go-livepeer's do not: their secret is of one process."""
    async with running_node(tmp_path) as node, gateway(node.url, now=Clock()) as go:
        (session,) = await go.discover(MODEL)
    async with running_node(tmp_path) as again, gateway(again.url, now=Clock()) as go:
        moved = replace(session.info, transcoder=again.url)
        session.uri, session.info = again.url, moved
        go.sessions.append(session)
        await go.text_to_image(**SMALL)
        assert (go.refreshes, [sent.status for sent in go.sent]) == (0, [200])


# Paid


async def test_it_pays_to_the_wei_and_both_count_alike(tmp_path: Path) -> None:
    """The quote is exact, so that nothing is added to it for redeeming, and nothing is cut off."""
    chain = funded_chain()
    async with paid_node(tmp_path, chain) as node, paying(node, chain) as go:
        (session,) = await go.discover(MODEL)
        assert session.info.price == PRICE
        for number in range(1, 6):
            await go.text_to_image(**SMALL)
            assert await earned(node) == number * COST
        assert not go.suspended
        assert session.balance >= 0
        paid = sum(sent.tickets for sent in go.sent)
        assert paid == tickets_needed(
            Fraction(0), 5 * COST, params_of(session.info).expected_value
        )


async def test_many_requests_share_one_session_and_no_nonce_is_used_twice(tmp_path: Path) -> None:
    chain = funded_chain()
    async with paid_node(tmp_path, chain) as node, paying(node, chain) as go:
        await go.discover(MODEL)
        await asyncio.gather(*(go.text_to_image(**SMALL) for _ in range(20)))
        assert {sent.status for sent in go.sent} == {200}
        assert len({sent.session_id for sent in go.sent}) == 1
        assert await earned(node) == 20 * COST


async def test_a_refreshed_session_begins_with_nothing_and_what_was_left_stays_its_own(
    tmp_path: Path,
) -> None:
    """At 90 % of half an hour: new token, new quote, nonces from 1, a balance of nothing."""
    chain, clock = funded_chain(), Clock()
    async with paid_node(tmp_path, chain) as node, paying(node, chain, clock) as go:
        (session,) = await go.discover(MODEL)
        await asyncio.gather(*(go.text_to_image(**SMALL) for _ in range(4)))
        left = session.balance
        assert left > 0
        clock.ahead = TOKEN_SECONDS * 0.91
        await go.text_to_image(**SMALL)
        assert len({sent.session_id for sent in go.sent}) == 2
        assert go.sent[-1].tickets == 1, "it counts on nothing of before"
        assert not go.suspended
        # Our node kept it. Whoever pays too little of its own now is served by that.
        session.balance = Fraction(10**9)
        for _ in range(int(left // COST)):
            await go.text_to_image(**SMALL)
            assert go.sent[-1].tickets == 0
        assert await earned(node) == (5 + int(left // COST)) * COST


async def test_it_renews_quotes_before_they_expire(tmp_path: Path) -> None:
    chain = funded_chain()
    async with paid_node(tmp_path, chain) as node, paying(node, chain) as go:
        await go.discover(MODEL)
        await go.text_to_image(**SMALL)
        chain.mine(39)
        await eventually(_sees(go, chain))
        go.head = await chain.head()
        for _ in range(3):
            await go.text_to_image(**SMALL)
        assert len({sent.session_id for sent in go.sent}) == 2
        assert not go.suspended


async def test_a_quote_that_expired_unseen_is_tried_three_times_and_nobody_is_suspended(
    tmp_path: Path,
) -> None:
    """Its view of the chain lags: by `TicketParams expired` it knows that it is no fault of ours."""
    chain = funded_chain()
    async with paid_node(tmp_path, chain) as node, paying(node, chain) as go:
        await go.discover(MODEL)
        chain.mine(41)
        await eventually(_sees(go, chain))
        assert (await refused(go)).status == 503
        assert [sent.text for sent in go.sent] == ["TicketParams expired\n"] * 3
        assert not go.suspended
        go.head = await chain.head()
        await go.text_to_image(**SMALL)
        assert await earned(node) == COST


def _sees(go: GoGateway, chain: MemoryChain) -> Callable[[], Awaitable[bool]]:
    """Whether the node quotes by the chain's last block."""

    async def is_seen() -> bool:
        info = await go.ask(go.uris[0], MODEL, 5.0)
        return params_of(info).expiration_block == chain.l1_block + LIFETIME_BLOCKS

    return is_seen


async def test_a_price_that_rose_since_it_asked_is_no_fault_of_ours(tmp_path: Path) -> None:
    """Its session is older than our restart with new prices."""
    chain = funded_chain()
    async with paid_node(tmp_path, chain) as node, paying(node, chain) as go:
        (session,) = await go.discover(MODEL)
    dearer = [{"id": MODEL, "path": tmp_path / "model", "price": "5"}]
    async with paid_node(tmp_path, chain, models=dearer) as node, paying(node, chain) as go:
        session.uri, session.info = node.url, replace(session.info, transcoder=node.url)
        go.sessions.append(session)
        assert (await refused(go)).status == 503
        assert all("TicketParams expired" in sent.text for sent in go.sent)
        assert not go.suspended
        await go.discover(MODEL)
        await go.text_to_image(**SMALL)
        assert await earned(node) == 2 * COST


async def test_a_sender_without_a_reserve_is_quoted_nothing(tmp_path: Path) -> None:
    chain = funded_chain()
    async with paid_node(tmp_path, chain) as node, paying(node, chain) as go:
        chain.funds[GATEWAY_KEY.address].reserve = 0
        await eventually(_finds_nobody(go))
        assert (await refused(go)).status == 503
        assert not go.sent


def _finds_nobody(go: GoGateway) -> Callable[[], Awaitable[bool]]:
    async def is_so() -> bool:
        go.sessions.clear()
        return not await go.discover(MODEL)

    return is_so


async def test_what_fails_after_it_was_paid_is_not_charged(tmp_path: Path) -> None:
    """It counts its credit as lost; in our books it is still its own."""
    engine, chain = FakeEngine(), funded_chain()
    engine.failures.append(JobFailedError(FailureKind.OUT_OF_MEMORY, "odd"))
    async with paid_node(tmp_path, chain, engine) as node, paying(node, chain) as go:
        (session,) = await go.discover(MODEL)
        assert (await refused(go)).status == 503
        assert await earned(node) == 0
        assert go.sent[-1].tickets == 1
        session.balance = Fraction(10**6)
        await go.text_to_image(**SMALL)
        assert (go.sent[-1].tickets, await earned(node)) == (0, COST)
