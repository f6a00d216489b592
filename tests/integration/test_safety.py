"""A real checker's verdict on real images, from the worker to the client of a gateway."""

from collections.abc import Iterator
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from scripts.local_network.network import LocalNetwork, NetworkFactory, NodePlan, get_json
from tests.integration.asking import QUICK, ask, images, session
from tests.integration.journals import assert_the_books_balance, gateway_requests, node_jobs
from tests.node.engine import checkers

pytestmark = pytest.mark.slow

RED = {
    **QUICK,
    "prompt": "a white circle on a red background",
    "seed": 7,
    "num_inference_steps": 8,
}
BLUE = {**RED, "prompt": "a white circle on a blue background"}


@pytest.fixture(scope="module")
def strict(network_of: NetworkFactory) -> Iterator[LocalNetwork]:
    """A network whose node finds every image unsafe, and blurs it."""
    network = network_of(NodePlan(settings={"safety.threshold": 0.0, "safety.policy": "blur"}))
    yield network
    network.stop()


@pytest.fixture(scope="module")
def against_red(
    network_of: NetworkFactory, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LocalNetwork]:
    """A network whose node refuses red images."""
    folder = checkers.red_is_unsafe(tmp_path_factory.mktemp("checker") / "red-is-unsafe")
    settings = {"safety.checker": str(folder), "safety.policy": "refuse"}
    network = network_of(NodePlan(settings=settings))
    yield network
    network.stop()


def _pixels(png: bytes) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.asarray(Image.open(BytesIO(png)))


async def test_open_nsfw_looks_at_each_image_unless_the_client_wants_none_looked_at(
    strict: LocalNetwork,
) -> None:
    async with session() as http:
        checked = await ask(http, strict.gateway, {**RED, "num_images_per_prompt": 2})
        unchecked = await ask(http, strict.gateway, {**RED, "safety_check": False})
        assert [(i["nsfw"], i["safety"]) for i in checked.body["images"]] == [
            (True, "blurred")
        ] * 2
        assert [(i["nsfw"], i["safety"]) for i in unchecked.body["images"]] == [
            (False, "unchecked")
        ]
        blurred = _pixels((await images(http, checked))[0][1])
        original = _pixels((await images(http, unchecked))[0][1])
    cells = Image.fromarray(original).resize((8, 8), Image.Resampling.BOX)
    expected = cells.resize(Image.fromarray(original).size, Image.Resampling.BICUBIC)
    assert np.array_equal(blurred, np.asarray(expected))
    assert_the_books_balance(strict)


async def test_a_refused_image_costs_nothing_and_blames_nobody(against_red: LocalNetwork) -> None:
    gateway, (node,) = against_red.gateway, against_red.nodes
    async with session() as http:
        refused = await ask(http, gateway, RED)
        assert (refused.status, refused.code) == (400, "content_policy_violation")
        assert "refused by the orchestrator's safety policy" in refused.message
        several = await ask(http, gateway, {**RED, "num_images_per_prompt": 3})
        assert several.code == "content_policy_violation"
        passed = await ask(http, gateway, BLUE)
        unchecked = await ask(http, gateway, {**RED, "safety_check": False})
    assert [i["safety"] for i in passed.body["images"]] == ["passed"]
    assert [i["safety"] for i in unchecked.body["images"]] == ["unchecked"]
    assert [(job.state, job.charged > 0) for job in node_jobs(node)] == [
        ("failed", False),
        ("failed", False),
        ("delivered", True),
        ("delivered", True),
    ]
    requests = gateway_requests(gateway)
    assert [len(request.attempts) for request in requests] == [1, 1, 1, 1]
    assert [request.fee > 0 for request in requests] == [False, False, True, True]
    assert_the_books_balance(against_red)
    (orchestrator,) = get_json(f"{gateway.admin_url}/status")["orchestrators"]
    assert orchestrator["state"] == "ready"


async def test_the_node_tells_the_name_of_its_checker_and_not_where_it_lies(
    against_red: LocalNetwork,
) -> None:
    (node,) = against_red.nodes
    safety = get_json(f"{node.admin_url}/status")["safety"]
    assert safety == {
        "checker": "red-is-unsafe",
        "policy": "refuse",
        "status": "ready",
        "detail": "",
    }
