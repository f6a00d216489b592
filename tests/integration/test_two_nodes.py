"""Two nodes with different prices behind one gateway."""

import asyncio
import uuid
from collections.abc import Iterator

import pytest

from network.units import fee, parse_price, pixels_of
from scripts.local_network.network import LocalNetwork, NetworkFactory, NodePlan
from tests.integration.asking import LONG, QUICK, ask, images, session, until_stepping
from tests.integration.journals import (
    assert_the_books_balance,
    gateway_requests,
    node_jobs,
    wait_for_every_end,
)

pytestmark = pytest.mark.slow

CHEAP, DEAR = "1000000", "2500000.5"


@pytest.fixture
def two_nodes(network_of: NetworkFactory) -> Iterator[LocalNetwork]:
    """The cheaper first; each works at one job at a time and queues none."""
    alone = {"queue.max_waiting": 0}
    network = network_of(
        NodePlan(CHEAP, capacity=1, settings=alone), NodePlan(DEAR, capacity=1, settings=alone)
    )
    yield network
    network.stop()


async def test_the_cheaper_takes_the_work(two_nodes: LocalNetwork) -> None:
    cheap, _ = two_nodes.nodes
    async with session() as http:
        for _ in range(4):
            assert (await ask(http, two_nodes.gateway)).status == 200
    requests = gateway_requests(two_nodes.gateway)
    assert [[a.orchestrator for a in request.attempts] for request in requests] == [
        [cheap.url]
    ] * 4
    due = fee(pixels_of(QUICK["width"], QUICK["height"], 1), parse_price(CHEAP))
    assert [request.fee for request in requests] == [due] * 4
    assert_the_books_balance(two_nodes)


async def test_the_dearer_takes_what_the_cheaper_cannot(two_nodes: LocalNetwork) -> None:
    cheap, dear = two_nodes.nodes
    busy_with = uuid.uuid4().hex
    async with session() as http, asyncio.TaskGroup() as group:
        long = group.create_task(ask(http, two_nodes.gateway, LONG, request_id=busy_with))
        await until_stepping(http, two_nodes.gateway, busy_with)
        assert (await ask(http, two_nodes.gateway)).status == 200
        assert not long.done()
        long.cancel()
    short = gateway_requests(two_nodes.gateway)[-1]
    assert short.attempts[-1].orchestrator == dear.url
    assert short.fee == fee(pixels_of(QUICK["width"], QUICK["height"], 1), parse_price(DEAR))
    assert node_jobs(dear)[-1].charged == short.fee
    await asyncio.to_thread(wait_for_every_end, two_nodes)
    assert [job.charged for job in node_jobs(cheap)] == [0]
    assert_the_books_balance(two_nodes)


async def test_a_node_killed_in_mid_job_loses_it_to_the_other(two_nodes: LocalNetwork) -> None:
    cheap, dear = two_nodes.nodes
    wish = {**LONG, "num_inference_steps": 30, "seed": 99}
    request_id = uuid.uuid4().hex
    async with session() as http:
        async with asyncio.TaskGroup() as group:
            asking = group.create_task(ask(http, two_nodes.gateway, wish, request_id=request_id))
            await until_stepping(http, two_nodes.gateway, request_id)
            cheap.program.kill()
        ((seed, png),) = await images(http, asking.result())
    assert seed == 99
    assert png.startswith(b"\x89PNG")
    (request,) = gateway_requests(two_nodes.gateway)
    assert [(a.orchestrator, a.state) for a in request.attempts] == [
        (cheap.url, "failed"),
        (dear.url, "succeeded"),
    ]
    assert request.fee == fee(pixels_of(1024, 1024, 1), parse_price(DEAR))
    cheap.start()
    (lost,) = node_jobs(cheap)
    assert (lost.state, lost.charged) == ("interrupted", 0)
    assert_the_books_balance(two_nodes)
