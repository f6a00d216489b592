"""Two models on a node whose memory budget holds one: they take turns, over HTTP, and nothing leaks.

LIMNER_SWAPS sets how often they do, and prints the worker's memory; 20 keep the suite quick.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median

import psutil
import pytest

from network.units import ModelId
from node.app import open_node
from node.engine.families.loading import best_device, weight_bytes
from tests.node.engine import tiny
from tests.node.nodes import Buyer, settings_for

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.timeout(580),  # a worker's start takes seconds, on a busy machine many
]

SWAPS = int(os.environ.get("LIMNER_SWAPS", "20"))
_A, _B = ModelId("tiny/a"), ModelId("tiny/b")


@asynccontextmanager
async def _node(folder: Path, *, warm: bool) -> AsyncIterator[Buyer]:
    """A node with room for one of its two models."""
    paths = {model: folder / model for model in (_A, _B)}
    for path in paths.values():
        await asyncio.to_thread(tiny.stable_diffusion, path, "dpm")
    size = await asyncio.to_thread(weight_bytes, paths[_A], "auto", best_device("cpu"))
    settings = await settings_for(
        folder,
        models=[
            {"id": model, "path": path, "warm": warm, "price": "5/2"}
            for model, path in paths.items()
        ],
        engine={"device": "cpu", "threads": 1, "memory_budget": size * 3 // 2},
        queue={"max_wait_seconds": 300},
    )
    async with open_node(settings) as node, Buyer(node) as buyer:
        yield buyer


async def _draw(buyer: Buyer, model: ModelId) -> None:
    headers = await buyer.headers(model)
    answer = await buyer.ask(headers, model_id=model)
    assert answer.status == 200, answer.text


async def _in_memory(buyer: Buyer) -> set[ModelId]:
    status = (await buyer.get("/status", admin=True)).json
    return {ModelId(model["id"]) for model in status["models"] if model["warm"]}


async def _worker_memory(buyer: Buyer) -> float:
    """Return the worker's resident memory in MiB."""
    pid = (await buyer.get("/status", admin=True)).json["worker_pid"]
    return float(psutil.Process(pid).memory_info().rss) / 2**20


async def test_models_take_turns_and_leave_no_memory_behind(tmp_path: Path) -> None:
    memory: list[float] = []
    async with _node(tmp_path, warm=False) as buyer:
        for swap in range(SWAPS):
            model = (_A, _B)[swap % 2]
            await _draw(buyer, model)
            assert await _in_memory(buyer) == {model}
            memory.append(await _worker_memory(buyer))
        models = (await buyer.get("/status", admin=True)).json["models"]
    assert all(model["load_seconds"] > 0 for model in models)
    curve = " ".join(f"{value:.0f}" for value in memory[:: max(1, SWAPS // 20)])
    print(f"{SWAPS} swaps, MiB: {curve}")  # noqa: T201  the figures of a long run
    # The first swaps warm up libraries and allocators; from then on, a model that stayed behind
    # at each would show.
    quarter = SWAPS // 4
    growth = median(memory[-quarter:]) - median(memory[quarter : 2 * quarter])
    assert growth / (SWAPS / 2) < 0.4 * models[0]["bytes"] / 2**20


async def test_a_warm_set_beyond_the_budget_is_served_all_the_same(tmp_path: Path) -> None:
    async with _node(tmp_path, warm=True) as buyer:
        for model in (_B, _A, _B):
            await _draw(buyer, model)
            assert await _in_memory(buyer) == {model}
