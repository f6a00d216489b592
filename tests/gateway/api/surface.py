"""The public surface on a real socket, with a scripted dispatcher behind it."""

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType
from typing import Any

import aiohttp

from gateway.accounting.events import Attempt
from gateway.accounting.journal import MIGRATIONS, Journal, open_journal
from gateway.api import images, jobs
from gateway.api.addresses import Addresses
from gateway.api.admission import Admission
from gateway.api.bounds import Bounds
from gateway.api.finishing import open_finisher
from gateway.api.frontend import Frontend
from gateway.api.generation import Generation, Keep
from gateway.api.keeping import KeptAnswers, Resources, open_kept_answers
from gateway.api.listener import listen
from gateway.api.metrics import Gauges, Metrics
from gateway.api.models import Models
from gateway.api.openai import OpenAiImages
from gateway.api.openapi import document
from gateway.api.own_key import OwnKey
from gateway.api.page import open_page
from gateway.api.quotes import Quotes
from gateway.api.rates import Rates
from gateway.api.running import RunningRequests
from gateway.api.site import OPENAI_IMAGES, TEXT_TO_IMAGE, public_router
from gateway.api.text_to_image import TextToImage
from gateway.config import GatewaySettings, ImageSettings, JobSettings, ServerSettings
from gateway.dispatch import RequestProgress, Showing
from gateway.dispatch.foresight import Quote
from gateway.keys import KeyGrant, Team, UseLimits
from gateway.orchestrators.job_events import News
from gateway.payments.allowance import Allowances
from gateway.promises.interrupted import Interrupted
from gateway.storage.disk import DiskImageStore, open_disk_store
from network.dollars import parse_usd
from network.prices import fixed_usd
from network.runtime.clock import SystemClock
from network.runtime.database import open_database
from network.units import ModelId, Wei
from network.wire.limits import Limits
from network.wire.messages import TextToImageRequest
from network.wire.safety import Safety
from tests.gateway.stub_orchestrator import png
from tests.gateway.waiting import until

DEFAULT = ModelId("limner/shapes")
#: What the secrets of webhooks are made from.
MASTER = bytes(range(32))
LIMITS = Limits(max_width=1024, max_height=1024, max_steps=60, max_images=3, prompt_parts=1)
GRANTS = {
    "good": KeyGrant("k1", "good"),
    "other": KeyGrant("k2", "other"),
    "one-at-a-time": KeyGrant("k3", "narrow", max_in_flight=1),
    "many": KeyGrant("k5", "many", max_in_flight=8),
    "limited": KeyGrant(
        "k4",
        "limited",
        limits=UseLimits(wei_per_day=Wei(1000), wei_per_month=Wei(5000)),
        team=Team("studio", UseLimits(wei_per_month=Wei(2000))),
    ),
    "dollars": KeyGrant(
        "k5",
        "dollars",
        limits=UseLimits(usd_per_day=parse_usd("5 usd")),
        team=Team(
            "salon", UseLimits(wei_per_month=Wei(2 * 10**18), usd_per_month=parse_usd("4 usd"))
        ),
    ),
}
#: What anybody sees of any model.
SHOWING = Showing(
    reason="",
    warm=True,
    orchestrators=2,
    free=3,
    price=Fraction(7, 2),
    overhead=0.25,
    pace=1e-8,
)


class FixedKeys:
    """Keys that always work."""

    async def check(self, bearer: str) -> KeyGrant | None:
        return GRANTS.get(bearer)

    def unnamed(self, peer: str | None, forwarded: Sequence[str]) -> KeyGrant | None:
        del peer, forwarded
        return None


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
    cache: str = ""


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
    #: Seconds that orchestrators are said to have taken.
    took: float = 0.0
    warnings: str = ""
    safety: Safety = Safety.PASSED
    news: list[News] = field(default_factory=list)
    #: In place of files with a PNG's outside only.
    picture: bytes = b""
    #: Where answers are written down that are kept.
    journal: Journal | None = None

    def __post_init__(self) -> None:
        self.gate.set()

    async def run(
        self,
        request_id: str,
        buyer: KeyGrant,
        request: TextToImageRequest,
        keep: Keep | None = None,
        *,
        seed: int | None = None,
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
        if request.seed is not None:
            seed = request.seed
        elif seed is None:
            seed = 5
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
        delivery = FixedDelivery(
            pictures, Wei(12345), "http://127.0.0.1:9", 1, self.took, settled, self.warnings
        )
        if keep is not None and self.journal is not None:
            await self.journal.record(await keep(delivery))
        return delivery

    async def recover(
        self,
        request_id: str,
        buyer: KeyGrant,
        request: TextToImageRequest,
        keep: Keep,
        attempts: Sequence[Attempt],
        *,
        seed: int,
    ) -> FixedDelivery | None:
        del request_id, buyer, request, keep, attempts, seed
        raise AssertionError("there was no earlier process")

    def quote(self, request_id: str, buyer: KeyGrant, request: TextToImageRequest) -> Quote:
        del request_id, buyer
        if self.failure is not None:
            raise self.failure
        model_id = ModelId(request.model_id)
        return Quote(model_id, Wei(12345), Fraction(7, 2), 1.5, 2, warm=True, waiting=0)

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
    allowances: Allowances
    kept: KeptAnswers | None
    folder: Path
    #: Whether the gateway stops in the middle of what it does.
    is_forsaken: bool = False

    def forsake(self) -> None:
        """Leave the block without waiting for what is under way."""
        self.is_forsaken = True

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
    keeps: JobSettings | None = None,
    server: Mapping[str, int] = MappingProxyType({}),
    dead_keys: Collection[str] = (),
) -> AsyncIterator[Surface]:
    """`keeps` None keeps no answers: it spares most tests a database."""
    clock = SystemClock()
    dispatcher = ScriptedDispatcher()
    async with (
        open_disk_store(
            folder, lifetime=lifetime, max_bytes=max_bytes, max_count=10_000, clock=clock
        ) as store,
        open_finisher() as finisher,
        open_finisher() as finisher,
        AsyncExitStack() as stack,
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
        rates = Rates(clock)
        addresses = Addresses(store, public_url)
        kept: KeptAnswers | None = None
        if keeps is not None:
            url = f"sqlite:///{folder.parent / 'gateway.db'}"
            database = await stack.enter_async_context(open_database(url, MIGRATIONS))
            ahead = folder.parent / "journal.ahead"
            dispatcher.journal = await stack.enter_async_context(open_journal(database, ahead))
            resources = Resources(
                database=database,
                journal=dispatcher.journal,
                images=store,
                addresses=addresses,
                dispatcher=dispatcher,
                recovering=dispatcher,
                interrupted=Interrupted((), dispatcher.journal, clock),
                admission=admission,
                running=running,
                rates=rates,
                watchers=(metrics,),
                clock=clock,
                randomness=random.Random(1),  # noqa: S311
                master=MASTER,
            )
            settings = GatewaySettings(
                jobs=keeps,
                images=ImageSettings(lifetime_seconds=lifetime),
                server=ServerSettings(body_timeout_seconds=body_timeout_seconds, **server),
            )
            kept = await stack.enter_async_context(open_kept_answers(settings, resources))
        generation = Generation(
            keys=FixedKeys(),
            rates=rates,
            admission=admission,
            dispatcher=dispatcher,
            running=running,
            max_body_bytes=limits.max_body_bytes,
            body_timeout_seconds=body_timeout_seconds,
            reveal_orchestrator=True,
            keeping=None if kept is None else kept.promising,
        )
        text_to_image = TextToImage(generation, bounds, addresses, finisher)
        openai_images = OpenAiImages(generation, bounds, addresses, finisher, clock)
        if kept is not None:
            grants = {
                grant.key_id: grant for grant in GRANTS.values() if grant.key_id not in dead_keys
            }
            readers = {TEXT_TO_IMAGE: text_to_image.read, OPENAI_IMAGES: openai_images.read}
            await kept.resume(grants.get, readers)
        allowances = Allowances()
        contract = document(limits, "0.1.0", public_url)
        router = public_router(
            text_to_image=text_to_image,
            openai_images=openai_images,
            models=Models(
                FixedKeys(),
                lambda: (DEFAULT, ModelId("big")),
                1_700_000_000,
                look=lambda _model_id, _grant: SHOWING,
                bounds=bounds,
                loras={DEFAULT: ("b/two", "a/one")},
            ),
            quotes=Quotes(
                keys=FixedKeys(),
                rates=rates,
                admission=admission,
                bounds=bounds,
                quoting=dispatcher,
                max_body_bytes=limits.max_body_bytes,
                body_timeout_seconds=body_timeout_seconds,
            ),
            running_jobs=jobs.Jobs(keys=FixedKeys(), running=running, clock=clock, endings=kept),
            stored_images=images.Images(store),
            contract=contract,
            version="0.1.0",
            own_key=OwnKey(
                keys=FixedKeys(),
                allowances=allowances,
                rates=fixed_usd(Fraction(2500)),
                clock=clock,
            ),
            page=await open_page(),
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
            opened = Surface(
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
                allowances,
                kept,
                folder,
            )
            yield opened
            # Whatever a test did, nothing of it may stay behind.
            if not opened.is_forsaken:
                dispatcher.gate.set()
                await until(lambda: not admission.in_flight and not len(running))
