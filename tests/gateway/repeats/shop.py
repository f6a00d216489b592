"""A whole gateway with repeats switched on, and an orchestrator that counts its runs and may be held up."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web
from typing_extensions import override

from gateway.accounting import queries
from gateway.accounting.events import RequestRecord, UsageTotal
from gateway.config import GatewaySettings
from gateway.home import open_gateway_database
from gateway.keys import UseLimits, create_key, set_team
from network.runtime.clock import SystemClock
from network.units import ModelId, Wei
from tests.gateway.stub_orchestrator import Behaviour, StubOrchestrator, png, running
from tests.gateway.test_app import BODY, Stage, serving, settings_for
from tests.gateway.waiting import until_async

#: What one image of BODY costs: 64 x 64 pixels at 1 wei.
FEE = 64 * 64


@dataclass
class GatedOrchestrator(StubOrchestrator):
    """No two of its runs make the same image, and none ends while the gate is closed."""

    capacity: int = 50
    gate: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.gate.set()
        drawn = itertools.count()
        self.draw = lambda width, height, seed: png(
            width, height, 200, marker=seed * 10_000 + next(drawn)
        )

    @override
    async def _behave(
        self, behaviour: Behaviour, request: web.Request, body: dict[str, Any]
    ) -> web.StreamResponse:
        await self.gate.wait()
        return await super()._behave(behaviour, request, body)

    @property
    def runs(self) -> int:
        return len(self.seen)


@dataclass(frozen=True)
class Reply:
    status: int
    body: Any
    headers: Any

    @property
    def cache(self) -> str:
        return str(self.headers.get("Cache-Status", ""))

    @property
    def fee(self) -> int:
        return int(self.headers["Limner-Fee"])

    @property
    def code(self) -> str:
        return str(self.body["error"]["code"])


@dataclass
class Shop:
    stage: Stage
    stub: GatedOrchestrator
    settings: GatewaySettings

    async def ask(
        self,
        key: str | None = None,
        path: str = "/text-to-image",
        headers: dict[str, str] | None = None,
        **fields: object,
    ) -> Reply:
        """Fields of None are left out."""
        whole = {**BODY, **fields}
        body = {name: value for name, value in whole.items() if value is not None}
        sent = {"Authorization": f"Bearer {key or self.stage.key}", **(headers or {})}
        url = f"{self.stage.gateway.url}{path}"
        async with self.stage.client.post(url, json=body, headers=sent) as response:
            return Reply(response.status, await response.json(), response.headers)

    async def images(self, reply: Reply) -> list[bytes]:
        """What the URLs of an answer lead to."""
        found = []
        for image in reply.body["images"]:
            async with self.stage.client.get(image["url"]) as response:
                assert response.status == 200
                found.append(await response.read())
        return found

    async def job(self, name: str, method: str = "GET") -> Any:
        async with self.stage.client.request(
            method,
            f"{self.stage.gateway.url}/jobs/{name}",
            headers={"Authorization": f"Bearer {self.stage.key}"},
        ) as response:
            return await response.json()

    async def figures(self) -> dict[str, int]:
        found: dict[str, int] = (await self.stage.status())["repeats"]
        return found

    async def until_waiting(self, count: int) -> None:
        """So many requests wait for runs."""

        async def are() -> bool:
            return (await self.figures())["waiting"] == count

        await until_async(are, 30)

    async def until_remembered(self, count: int = 1) -> None:
        async def are() -> bool:
            return (await self.figures())["remembered"] == count

        await until_async(are)

    async def new_key(self, **terms: Any) -> str:
        async with open_gateway_database(self.settings) as database:
            if team := terms.get("team"):
                await set_team(database, SystemClock(), team, {})
            _, key = await create_key(database, SystemClock(), name="another", **terms)
        return key

    async def books(self, requests: int) -> tuple[UsageTotal, dict[str, RequestRecord]]:
        """So many that were delivered, and each that was accepted, as the journal has them."""
        totals: tuple[UsageTotal, ...] = ()
        async with open_gateway_database(self.settings) as database:

            async def are_there() -> bool:
                nonlocal totals
                totals = await database.read(lambda c: queries.usage(c, "model", 0.0, None))
                return sum(one.requests for one in totals) >= requests

            await until_async(are_there)  # the database follows the write-ahead log
            records = await database.read(lambda c: queries.latest(c, None, None))
        (total,) = totals
        assert (total.group, total.requests) == (ModelId("m"), requests)
        return total, {one.accepted.request_id: one for one in records}


@asynccontextmanager
async def open_shop(
    folder: Path, stub: GatedOrchestrator | None = None, **repeats: object
) -> AsyncIterator[Shop]:
    """`repeats` are the settings of that name; both kinds are on unless told otherwise."""
    others = repeats.pop("others", {})
    assert isinstance(others, dict)
    wanted = {"cache": True, "coalesce": True, **repeats}
    async with running(stub or GatedOrchestrator()) as one:
        assert isinstance(one, GatedOrchestrator)
        more = [peer["uri"] for peer in others.pop("orchestrators", [])]
        settings = settings_for(folder, one.uri, *more, repeats=wanted, **others)
        connector = aiohttp.TCPConnector(limit=0)
        async with serving(settings) as stage, aiohttp.ClientSession(connector=connector) as many:
            stage.client = many
            yield Shop(stage, one, settings)


async def hung_up(asking: "asyncio.Future[Reply]") -> None:
    """The client closes its connection."""
    asking.cancel()
    try:
        await asking
    except (asyncio.CancelledError, aiohttp.ClientError):
        return
    raise AssertionError("it was answered already")


def per_day(wei: int) -> UseLimits:
    return UseLimits(wei_per_day=Wei(wei))
