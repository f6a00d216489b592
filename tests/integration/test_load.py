"""More requests than places: everyone is answered, memory stays flat, whoever leaves frees their place."""

import asyncio
import time
import uuid
from collections.abc import Iterator

import psutil
import pytest

from scripts.local_network.network import LocalNetwork, NetworkFactory, NodePlan
from tests.integration.asking import LONG, QUICK, Answer, ask, images, session, until_stepping
from tests.integration.journals import (
    assert_the_books_balance,
    gateway_requests,
    node_jobs,
    wait_for_every_end,
)

pytestmark = pytest.mark.slow

MEBIBYTE = 2**20


@pytest.fixture
def two_places(network_of: NetworkFactory) -> Iterator[LocalNetwork]:
    plan = NodePlan(capacity=2, settings={"queue.max_waiting": 0})
    network = network_of(plan, routing__max_wait_seconds=2)
    yield network
    network.stop()


def resident(pid: int) -> int:
    return int(psutil.Process(pid).memory_info().rss)


def worker_of(network: LocalNetwork) -> int:
    (worker,) = psutil.Process(network.nodes[0].program.pid).children()
    pid: int = worker.pid
    return pid


async def test_every_one_of_64_requests_at_two_places_is_answered_and_memory_stays_flat(
    two_places: LocalNetwork,
) -> None:
    wish = {**QUICK, "width": 512, "height": 512, "num_inference_steps": 10}
    async with session() as http:
        async with asyncio.TaskGroup() as group:
            asking = [group.create_task(ask(http, two_places.gateway, wish)) for _ in range(64)]
        answers = [task.result() for task in asking]
        served = [answer for answer in answers if answer.status == 200]
        refused = [answer for answer in answers if answer.status != 200]
        for answer in served:
            ((_, png),) = await images(http, answer)
            assert png.startswith(b"\x89PNG")
    assert len(served) >= 2
    assert refused, "with two places and two seconds of patience somebody has to be refused"
    for answer in refused:
        assert_told_to_come_back(answer)
    sizes = {
        "gateway": resident(two_places.gateway.program.pid),
        "node": resident(two_places.nodes[0].program.pid),
        "worker": resident(worker_of(two_places)),
    }
    print({name: f"{size / MEBIBYTE:.0f} MiB" for name, size in sizes.items()})  # noqa: T201
    assert sizes["gateway"] < 150 * MEBIBYTE, sizes
    assert sizes["node"] < 150 * MEBIBYTE, sizes
    assert sizes["worker"] < 1536 * MEBIBYTE, sizes
    await asyncio.to_thread(wait_for_every_end, two_places)
    assert_the_books_balance(two_places)
    settled = [r for r in gateway_requests(two_places.gateway) if r.state == "settled"]
    assert len(settled) == len(served)


def assert_told_to_come_back(answer: Answer) -> None:
    assert (answer.status, answer.code) == (503, "no_capacity"), answer.body
    assert answer.message
    assert int(answer.headers["Retry-After"]) >= 1


async def test_a_client_that_hangs_up_frees_its_place_at_the_next_step(
    two_places: LocalNetwork,
) -> None:
    gateway, node = two_places.gateway, two_places.nodes[0]
    names = [uuid.uuid4().hex for _ in range(2)]
    async with session() as http:
        leaving = [
            asyncio.ensure_future(ask(http, gateway, LONG, request_id=name)) for name in names
        ]
        for name in names:
            await until_stepping(http, gateway, name, 60)
        for task in leaving:
            task.cancel()
        await asyncio.gather(*leaving, return_exceptions=True)
        left_at = time.monotonic()
        while (await ask(http, gateway)).status != 200:
            assert time.monotonic() - left_at < 30, "the places were not freed"
        waited = time.monotonic() - left_at
    # Either long job alone takes many times this long, even on a fast machine.
    assert waited < 5
    await asyncio.to_thread(wait_for_every_end, two_places)
    first_two = node_jobs(node)[:2]
    assert [(job.state, job.charged) for job in first_two] == [("cancelled", 0)] * 2
    assert [request.state for request in gateway_requests(gateway)[:2]] == ["cancelled"] * 2
    assert_the_books_balance(two_places)
