"""What a node says of itself while it loads, fails, and loses its worker."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from network.units import ModelId
from node.engine.work import ModelState
from tests.node.fakes import MODEL, FakeEngine
from tests.node.nodes import Buyer, running_node

_LOADING = ModelState(MODEL, "loading", 0.25)


async def _health(buyer: Buyer) -> dict[str, Any]:
    """What /health says of all but the safety checker."""
    health: dict[str, Any] = (await buyer.get("/health")).json
    assert health.pop("safety")
    return health


async def test_loading_tells_how_far_it_is(tmp_path: Path) -> None:
    engine = FakeEngine()
    async with running_node(tmp_path, engine) as node, Buyer(node) as buyer:
        engine.change(_LOADING)
        health = await _health(buyer)
        assert health == {"status": "LOADING", "progress": 0.25, "detail": ""}
        assert (await buyer.get("/healthz", admin=True)).status == 503
        engine.change(replace(_LOADING, status="ready", progress=1.0))
        assert await _health(buyer) == {"status": "OK"}


async def test_a_node_without_its_worker_is_loading_and_says_why(tmp_path: Path) -> None:
    engine = FakeEngine()
    async with running_node(tmp_path, engine) as node, Buyer(node) as buyer:
        lost = replace(_LOADING, progress=0.0, detail="the worker process is being replaced")
        engine.change(lost, healthy=False)
        health = await _health(buyer)
        assert health["status"] == "LOADING"
        assert "replaced" in health["detail"]


async def test_one_model_that_fails_is_no_error_of_the_node_and_all_are(tmp_path: Path) -> None:
    other = ModelId("other/model")
    engine = FakeEngine(MODEL, other)
    path = tmp_path / "model"
    models = [{"id": MODEL, "path": path}, {"id": other, "path": path}]
    async with running_node(tmp_path, engine, models=models) as node, Buyer(node) as buyer:
        engine.change(replace(_LOADING, status="failed", detail="it is empty"))
        assert await _health(buyer) == {"status": "OK"}
        engine.change(ModelState(other, "failed", detail="it is worn"))
        health = await _health(buyer)
        assert health["status"] == "ERROR"
        assert health["detail"] == f"{MODEL}: it is empty; {other}: it is worn"


async def test_a_size_that_did_not_fit_is_refused_before_work_and_smaller_ones_are_not(
    tmp_path: Path,
) -> None:
    engine = FakeEngine()
    async with running_node(tmp_path, engine) as node, Buyer(node) as buyer:
        engine.change(ModelState(MODEL, "ready", 1.0, refused_pixels=128 * 128))
        refusal = await buyer.ask(width=128, height=128)
        assert refusal.status == 503
        assert "insufficient capacity: size_does_not_fit_into_memory" in refusal.text
        assert not engine.jobs
        assert (await buyer.ask(width=128, height=64)).status == 200
        engine.change(ModelState(MODEL, "ready", 1.0))
        assert (await buyer.ask(width=128, height=128)).status == 200
