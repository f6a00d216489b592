"""SIGKILL of the gateway or the node at random moments: after a restart every accepted job has its end in both journals."""

import asyncio
import contextlib
import random
from collections.abc import Iterator
from typing import Literal

import aiohttp
import pytest

from scripts.local_network.network import MODEL, LocalNetwork, NetworkFactory, NodePlan
from tests.integration.asking import QUICK, ask, session
from tests.integration.journals import (
    assert_every_job_has_its_end,
    assert_nothing_is_paid_twice,
    assert_the_books_balance,
    gateway_requests,
    node_jobs,
)

pytestmark = pytest.mark.slow

KILLS = 4
REQUESTS = 6


@pytest.fixture
def network(network_of: NetworkFactory) -> Iterator[LocalNetwork]:
    network = network_of(NodePlan())
    yield network
    network.stop()


async def delivered_until_the_kill(network: LocalNetwork, victim: str, delay: float) -> int:
    """Send requests, kill the victim after `delay` seconds; how many clients got their picture."""
    wish = {**QUICK, "width": 256, "height": 256, "num_inference_steps": 8}
    async with session() as http:
        asking = [asyncio.ensure_future(ask(http, network.gateway, wish)) for _ in range(REQUESTS)]
        await asyncio.sleep(delay)
        kept = network.gateway if victim == "gateway" else network.nodes[0]
        kept.program.kill()
        if victim == "gateway":
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asyncio.gather(*asking, return_exceptions=True), 10)
        kept.start()
        ended = await asyncio.gather(*asking, return_exceptions=True)
    for one in ended:
        if isinstance(one, BaseException):
            assert isinstance(one, aiohttp.ClientError), one
        else:
            assert one.status in {200, 503}, one.body
    return sum(not isinstance(one, BaseException) and one.status == 200 for one in ended)


@pytest.mark.parametrize("victim", ["gateway", "node"])
@pytest.mark.timeout(240)
async def test_every_accepted_job_has_its_end_in_both_journals_after_kills(
    network: LocalNetwork, victim: Literal["gateway", "node"]
) -> None:
    moments = random.Random(20261123)  # noqa: S311 - moments, not secrets
    delivered = 0
    for _ in range(KILLS):
        delivered += await delivered_until_the_kill(network, victim, moments.uniform(0.02, 1.5))
        await asyncio.to_thread(network.gateway.wait_for_model, MODEL)
    async with session() as http:
        assert (await ask(http, network.gateway)).status == 200
    delivered += 1
    # Whoever is about to write an end does so within the time a stop takes.
    network.stop()
    assert_every_job_has_its_end(network)
    requests = gateway_requests(network.gateway)
    assert_nothing_is_paid_twice(requests)
    settled = [request for request in requests if request.state == "settled"]
    assert len(settled) >= delivered, "a client has a picture that is in no journal"
    charged = {job.job_id: job.charged for job in node_jobs(network.nodes[0])}
    for request in settled:
        (delivery,) = (a for a in request.attempts if a.state == "succeeded")
        assert charged[delivery.node_job_id] == request.fee
    if victim == "node":
        assert_the_books_balance(network)
