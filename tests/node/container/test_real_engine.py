"""The built-in model in the real worker process, called as go-livepeer calls an external container."""

import asyncio
import base64
import struct
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest

from network.runtime.clock import Clock
from node.config.catalogue import BUILTIN_MODEL, Catalogue
from node.config.settings import NodeSettings
from node.container.app import open_container
from node.engine.backend import Engine
from node.engine.configured import open_engine
from tests.node.container.go_worker import GoWorker, WorkerError
from tests.node.container.runners import TOKEN, settings_of

pytestmark = pytest.mark.slow

ASKED: dict[str, Any] = {"prompt": "a small red circle", "width": 128, "height": 96, "seed": 5}


async def test_concurrent_requests_share_steps_and_health_stays_ok(tmp_path: Path) -> None:
    # The built-in model promises the same bytes at any load, and shares no steps, unless told.
    models = [{"id": BUILTIN_MODEL, "capacity": 8, "deterministic": False}]
    engine_settings = {"device": "cpu", "threads": 1}
    settings = settings_of(
        tmp_path, models=models, engine=engine_settings, container={"token": TOKEN}
    )
    engines: list[Engine] = []

    def opener(
        asked: NodeSettings, served: Catalogue, clock: Clock
    ) -> AbstractAsyncContextManager[Engine]:
        @asynccontextmanager
        async def opened() -> AsyncIterator[Engine]:
            async with open_engine(asked, served, clock) as engine:
                engines.append(engine)
                yield engine

        return opened()

    async with (
        open_container(settings, engine_opener=opener) as container,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http,
    ):
        entry = orjson.loads(container.ai_models[0])
        assert (entry["model_id"], entry["capacity"]) == (BUILTIN_MODEL, 8)
        worker = GoWorker(http, entry, TOKEN, period=0.05)
        await worker.start()
        watching = asyncio.ensure_future(worker.watch())
        jobs = [
            worker.text_to_image(
                **{**ASKED, "num_inference_steps": 12 + place, "num_images_per_prompt": 2}
            )
            for place in range(12)
        ]
        results = await asyncio.gather(*jobs)
        with pytest.raises(WorkerError, match="returned 400") as raised:
            await worker.text_to_image(**{**ASKED, "width": 100})
        assert raised.value.consequence == "client is told"
        watching.cancel()
    assert set(worker.healths) == {"OK"}
    for images in results:
        assert [image["seed"] for image in images] == [5, 6]
        assert [_size(image["url"]) for image in images] == [(128, 96)] * 2
    assert max(engines[0].tally().batches) > 2, "images of different requests shared steps"


def _size(url: str) -> tuple[int, ...]:
    png = base64.b64decode(url.removeprefix("data:image/png;base64,"))
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    return struct.unpack(">II", png[16:24])
