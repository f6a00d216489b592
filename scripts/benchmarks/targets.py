"""The engine as its callers reach it: in process, and through a node's port."""

import asyncio
import base64
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import orjson

from gateway.orchestrators.client import open_client
from network.capabilities import job_capabilities
from network.runtime.clock import Clock
from network.units import ModelId
from network.wire.headers import JOB_ID, PAYMENT, PROTOCOL_MARK, SEGMENT, segment_credentials
from network.wire.headers import encode_header as encoded
from node.app import VERSION, open_node
from node.config.catalogue import Catalogue
from node.config.settings import NodeSettings
from node.engine.backend import Engine
from node.engine.configured import open_engine
from node.engine.work import Preview, Progress
from scripts.benchmarks.callers import Made
from scripts.benchmarks.wishes import GUIDANCE, Wish

_MOST_CALLERS = 64


class EngineTarget:
    """Calls `Engine.generate`."""

    def __init__(self, engine: Engine, model: ModelId) -> None:
        self._engine = engine
        self._model = model

    async def make(self, wish: Wish, *, watch: bool = False) -> Made:
        job = wish.job(self._model)
        asked = time.perf_counter()
        first: dict[str, float] = {}

        def on_progress(progress: Progress) -> None:
            if progress.done_steps:
                first.setdefault("step", time.perf_counter() - asked)

        def on_preview(preview: Preview) -> None:
            del preview
            first.setdefault("preview", time.perf_counter() - asked)

        stop = self._engine.watch(job.job_id, on_preview) if watch else None
        try:
            result = await self._engine.generate(job, on_progress)
        finally:
            if stop is not None:
                stop()
        return Made(result.images[0].png, first.get("step"), first.get("preview"))


class HttpTarget:
    """Posts to a node as a gateway does."""

    def __init__(
        self, http: aiohttp.ClientSession, url: str, model: ModelId, segment: str, engine: Engine
    ) -> None:
        """`engine` is the node's, to be looked at and not to be used."""
        self.engine = engine
        self._http = http
        self._url = url
        self._model = model
        self._headers = {"Authorization": PROTOCOL_MARK, SEGMENT: segment, PAYMENT: ""}

    async def make(self, wish: Wish, *, watch: bool = False) -> Made:
        job_id = wish.job(self._model).job_id
        asked = time.perf_counter()
        first: dict[str, float] = {}
        watching = asyncio.create_task(self._watch(job_id, asked, first)) if watch else None
        async with self._http.post(
            f"{self._url}/text-to-image",
            json=_body(wish, self._model),
            headers={**self._headers, JOB_ID: job_id},
        ) as answer:
            if answer.status != 200:  # noqa: PLR2004
                raise RuntimeError(f"the node answered {answer.status}: {await answer.text()}")
            image = orjson.loads(await answer.read())["images"][0]["url"]
        if watching is not None:
            await watching
        png = base64.b64decode(image.partition(",")[2])
        return Made(png, first.get("step"), first.get("preview"))

    async def _watch(self, job_id: str, asked: float, first: dict[str, float]) -> None:
        async with self._http.get(f"{self._url}/jobs/{job_id}/events") as answer:
            async for line in answer.content:
                if line.startswith(b"event: preview"):
                    first.setdefault("preview", time.perf_counter() - asked)
                elif line.startswith(b'data: {"done":') and not line.startswith(
                    b'data: {"done":0'
                ):
                    first.setdefault("step", time.perf_counter() - asked)


@asynccontextmanager
async def node_target(
    folder: Path, model: ModelId, path: Path, engine: dict[str, Any]
) -> AsyncIterator[HttpTarget]:
    """Run a node with one model, `engine` being its settings of that name, and ask it."""
    settings = NodeSettings.model_validate(
        {
            "listen": "http://127.0.0.1:0",
            "admin_listen": "127.0.0.1:0",
            "data_dir": folder,
            "models": [
                # The built-in model would share no steps otherwise.
                {"id": model, "path": path, "capacity": _MOST_CALLERS, "deterministic": False}
            ],
            "queue": {"max_waiting": _MOST_CALLERS, "max_wait_seconds": 3600},
            "engine": engine,
        }
    )
    opened: list[Engine] = []

    @asynccontextmanager
    async def opener(
        settings: NodeSettings, models: Catalogue, clock: Clock
    ) -> AsyncIterator[Engine]:
        async with open_engine(settings, models, clock) as opening:
            opened.append(opening)
            yield opening

    async with (
        open_node(settings, engine_opener=opener) as node,
        open_client(None, version=VERSION) as gateway,
        aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=None)
        ) as http,
    ):
        await _ready(http, node.admin_url)
        terms = await gateway.info(node.url, model)
        credentials = segment_credentials(
            None, model, job_capabilities(model, VERSION), terms.auth_token
        )
        yield HttpTarget(http, node.url, model, encoded(credentials), opened[0])


async def _ready(http: aiohttp.ClientSession, admin_url: str) -> None:
    while True:
        async with http.get(f"{admin_url}/status") as answer:
            status = orjson.loads(await answer.read())
        if status.get("ready"):
            return
        await asyncio.sleep(0.1)


def _body(wish: Wish, model: ModelId) -> dict[str, Any]:
    shape = wish.shape
    return {
        "model_id": model,
        "prompt": wish.prompt,
        "width": shape.width,
        "height": shape.height,
        "num_inference_steps": shape.steps,
        "guidance_scale": GUIDANCE,
        "seed": wish.seed,
        "safety_check": False,
    }
