"""The public surface on a real socket, with a scripted dispatcher behind it."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from gateway.api import images, jobs
from gateway.api.addresses import Addresses
from gateway.api.admission import Admission
from gateway.api.bounds import Bounds
from gateway.api.finishing import open_finisher
from gateway.api.frontend import Frontend
from gateway.api.generation import Generation
from gateway.api.listener import listen
from gateway.api.metrics import Gauges, Metrics
from gateway.api.models import Models
from gateway.api.openai import OpenAiImages
from gateway.api.openapi import document
from gateway.api.rates import Rates
from gateway.api.running import RunningRequests
from gateway.api.site import public_router
from gateway.api.text_to_image import TextToImage
from gateway.dispatch import RequestProgress
from gateway.keys import KeyGrant
from gateway.orchestrators.job_events import News
from gateway.storage.disk import DiskImageStore, open_disk_store
from network.runtime.clock import SystemClock
from network.units import ModelId, Wei
from network.wire.limits import Limits
from network.wire.messages import TextToImageRequest
from network.wire.safety import Safety
from tests.gateway.stub_orchestrator import png
from tests.gateway.waiting import until

DEFAULT = ModelId("limner/shapes")
LIMITS = Limits(max_width=1024, max_height=1024, max_steps=60, max_images=3, prompt_parts=1)
GRANTS = {
    "good": KeyGrant("k1", "good"),
    "other": KeyGrant("k2", "other"),
    "one-at-a-time": KeyGrant("k3", "narrow", max_in_flight=1),
}


class FixedKeys:
    """Three keys that always work."""

    async def check(self, bearer: str) -> KeyGrant | None:
        return GRANTS.get(bearer)


@dataclass(frozen=True)
class FixedPicture:
    png: bytes
    seed: int
    safety: Safety


@dataclass(frozen=True)
class FixedDelivery:
    images: tuple[FixedPicture, ...]
    fee: Wei
    orchestrator: str
    attempts: int
    orchestrator_seconds: float
    settled: asyncio.Future[None]
    warnings: str = ""


@dataclass
class ScriptedDispatcher:
    """Delivers at once unless told to wait or to raise."""

    failure: Exception | None = None
    #: Requests wait for this; set means deliver at once.
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    seen: list[tuple[str, str, TextToImageRequest]] = field(default_factory=list)
    under_way: int = 0
    cancelled: int = 0
    asked: int = 0
    pixel_bytes: int = 100
    warnings: str = ""
    safety: Safety = Safety.PASSED
    news: list[News] = field(default_factory=list)
    #: In place of files with a PNG's outside only.
    picture: bytes = b""

    def __post_init__(self) -> None:
        self.gate.set()

    async def run(
        self, request_id: str, buyer: KeyGrant, request: TextToImageRequest
    ) -> FixedDelivery:
        self.seen.append((request_id, buyer.key_id, request))
        self.under_way += 1
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.under_way -= 1
        if self.failure is not None:
            raise self.failure
        seed = 5 if request.seed is None else request.seed
        pictures = tuple(
            FixedPicture(
                self.picture or png(request.width, request.height, self.pixel_bytes),
                seed + i,
                self.safety,
            )
            for i in range(request.num_images_per_prompt)
        )
        settled = asyncio.get_running_loop().create_future()
        settled.set_result(None)
        return FixedDelivery(
            pictures, Wei(12345), "http://127.0.0.1:9", 1, 0.0, settled, self.warnings
        )

    async def watch(self, request_id: str, key_id: str) -> AsyncGenerator[News]:
        """The scripted news, then whatever is put in later, until the request is over."""
        told = 0
        while any(seen[:2] == (request_id, key_id) for seen in self.seen) and self.under_way:
            while told < len(self.news):
                told += 1
                yield self.news[told - 1]
            await asyncio.sleep(0.01)

    async def progress(self, request_id: str, key_id: str) -> RequestProgress | None:
        self.asked += 1
        known = [seen for seen in self.seen if seen[:2] == (request_id, key_id)]
        return RequestProgress("running", 3, 50, 0) if known and self.under_way else None


@dataclass
class Surface:
    """What a test can reach."""

    url: str
    host: str
    port: int
    client: aiohttp.ClientSession
    dispatcher: ScriptedDispatcher
    store: DiskImageStore
    admission: Admission
    running: RunningRequests
    metrics: Metrics
    contract: dict[str, Any]

    async def post(
        self, body: dict[str, object] | bytes | None = None, key: str = "good", **headers: str
    ) -> aiohttp.ClientResponse:
        """POST /text-to-image; header names are written with underscores."""
        sent = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        if not isinstance(body, bytes):
            fields = {"prompt": "a boat"} if body is None else body
            async with self.client.post(
                f"{self.url}/text-to-image", json=fields, headers=sent
            ) as response:
                await response.read()
                return response
        async with self.client.post(
            f"{self.url}/text-to-image", data=body, headers=sent
        ) as response:
            await response.read()
            return response

    async def raw(self, data: bytes, seconds: float = 5.0) -> bytes:
        """What the gateway answers to `data` before it closes the connection."""
        reader, writer = await asyncio.open_connection(self.host, self.port)
        try:
            writer.write(data)
            async with asyncio.timeout(seconds):
                return await reader.read()
        finally:
            writer.close()

    async def until(self, condition: Any, seconds: float = 3.0) -> None:
        """Wait for a condition."""
        await until(condition, seconds)


@asynccontextmanager
async def open_surface(
    folder: Path,
    *,
    limits: Limits = LIMITS,
    total: int = 100,
    per_key: int = 100,
    public_url: str = "",
    lifetime: float = 100.0,
    body_timeout_seconds: float = 0.3,
    max_connections: int = 100,
    max_bytes: int = 10_000_000,
) -> AsyncIterator[Surface]:
    clock = SystemClock()
    dispatcher = ScriptedDispatcher()
    async with (
        open_disk_store(folder, lifetime=lifetime, max_bytes=max_bytes, clock=clock) as store,
        open_finisher() as finisher,
    ):
        running = RunningRequests(dispatcher, patience=0.1)
        admission = Admission(total=total, per_key=per_key)
        metrics = Metrics(
            Gauges(
                in_flight=lambda: admission.in_flight,
                waiting=lambda: 0,
                live_keys=lambda: len(GRANTS),
                stored_images=lambda: store.count,
                stored_bytes=lambda: store.total_bytes,
                orchestrators=lambda: {"ready": 1},
            )
        )
        bounds = Bounds(DEFAULT, limits, {ModelId("big"): Limits(max_width=2048)})
        generation = Generation(
            keys=FixedKeys(),
            rates=Rates(clock),
            admission=admission,
            dispatcher=dispatcher,
            running=running,
            max_body_bytes=limits.max_body_bytes,
            body_timeout_seconds=body_timeout_seconds,
            reveal_orchestrator=True,
        )
        addresses = Addresses(store, public_url)
        contract = document(limits, "0.1.0", public_url)
        router = public_router(
            text_to_image=TextToImage(generation, bounds, addresses, finisher),
            openai_images=OpenAiImages(generation, bounds, addresses, finisher, clock),
            models=Models(FixedKeys(), lambda: (DEFAULT, ModelId("big")), 1_700_000_000),
            running_jobs=jobs.Jobs(keys=FixedKeys(), running=running, clock=clock),
            stored_images=images.Images(store),
            contract=contract,
            version="0.1.0",
        )
        async with (
            listen(
                Frontend(router, metrics),
                host="127.0.0.1",
                port=0,
                max_connections=max_connections,
                keepalive_seconds=30.0,
                shutdown_seconds=0.3,
            ) as url,
            aiohttp.ClientSession() as client,
        ):
            host, _, port = url.removeprefix("http://").rpartition(":")
            yield Surface(
                url,
                host,
                int(port),
                client,
                dispatcher,
                store,
                admission,
                running,
                metrics,
                contract,
            )
            # Whatever a test did, nothing of it may stay behind.
            dispatcher.gate.set()
            await until(lambda: not admission.in_flight and not len(running))
