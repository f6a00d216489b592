"""An app of somebody else on a real socket, and a counter at which its calls are made."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web
from yarl import URL

from network.runtime.clock import SystemClock
from network.runtime.database import open_database
from network.units import Wei
from node.accounting.journal import MIGRATIONS, Journal
from node.accounting.ledger import Ledger
from node.accounting.model import Credit
from node.api.refusals import answering
from node.apps.addresses import Reach
from node.apps.calls import AppCalls
from node.apps.heartbeat import Asked, Heartbeat, Told
from node.apps.model import Call, Sale
from node.apps.registered import RegisteredApps
from node.apps.registry import Registered, Registry
from node.apps.upstream import open_upstream
from node.jobs.model import JobReport
from tests.node.accounting.test_journal import ALICE
from tests.node.nodes import eventually

SECRET = "registration-secret-of-the-operator"
USD = Fraction(3, 1000)
USD_PER_ETH = Fraction(3000)
FEE = Wei(10**12)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


async def until(happened: Callable[[], bool]) -> None:
    """Wait until `happened`."""

    async def has() -> bool:
        return happened()

    await eventually(has, seconds=30)


@asynccontextmanager
async def serving(app: web.Application) -> AsyncIterator[str]:
    """Serve on a free port; yields the URL. Handlers end when their client goes, as in the node."""
    runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def app_of(handler: Handler) -> AsyncIterator[str]:
    """Somebody's app, which does the same for every path below /base."""
    app = web.Application(client_max_size=2**26)
    app.router.add_route("*", "/base{tail:.*}", handler)
    async with serving(app) as url:
        yield f"{url}/base"


@dataclass
class Counter:
    """Sells the registered apps, without anybody looking at payments."""

    url: str
    http: aiohttp.ClientSession
    registry: Registry
    apps: RegisteredApps
    calls: AppCalls
    journal: Journal
    reports: list[JobReport] = field(default_factory=list)
    #: What the next payment does.
    pay: Callable[[], Awaitable[Credit | None]] | None = None
    attempts: int = 0

    def register(self, url: str, runner_id: str = "up", capacity: int = 2, **told: Any) -> None:
        values: dict[str, Any] = {
            "url": URL(url),
            "app": "acme/upscaler",
            "mode": "single-shot",
            "capacity": capacity,
            "asked": Asked(USD, "fixed"),
        }
        beat = Heartbeat(runner_id, Told(**{**values, **told}))
        taken = self.registry.beat(SECRET, beat, SystemClock().monotonic())
        assert isinstance(taken, Registered)

    async def sell(self, request: web.Request) -> web.StreamResponse:
        """What the node's own front does, less the payment."""
        app = self.apps.find(request.match_info["route"])
        if app is None:
            raise web.HTTPNotFound
        call = Call(request, request.match_info["tail"], await request.read())
        offer = app.offer(call, ALICE)
        attempt = request.headers.get("Attempt", f"attempt-{self.attempts}")
        self.attempts += 1
        return await offer.fulfil(Sale(attempt, ALICE, offer.fee, self.pay))

    def post(self, tail: str = "", **how: Any) -> Any:
        return self.http.post(f"{self.url}/apps/up/app{tail}", **how)

    async def ended(self, calls: int) -> list[tuple[str, str]]:
        """Wait until so many calls have ended; how they did."""
        await until(lambda: len(self.reports) >= calls)
        return [(one.ending.outcome.value, one.ending.reason) for one in self.reports]


@asynccontextmanager
async def counter(
    folder: Path, *, call_seconds: float = 60.0, overdraft: Wei | None = None
) -> AsyncIterator[Counter]:
    clock = SystemClock()
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        database = await enter(
            open_database(f"sqlite:///{folder / 'n.sqlite'}", MIGRATIONS, synchronous="NORMAL")
        )
        journal = Journal(database, Ledger(overdraft), clock)
        registry = Registry(
            SECRET, most=8, is_taken=lambda _app, _route: False, draw=lambda size: "ab" * size
        )
        calls = AppCalls(journal, clock)
        upstream = await enter(open_upstream(Reach.of(["127.0.0.0/8"]), call_seconds))
        apps = RegisteredApps(
            registry, calls, upstream, clock, lambda: USD_PER_ETH, lambda _wei: ""
        )
        http = await enter(aiohttp.ClientSession())
        found = Counter("", http, registry, apps, calls, journal)
        calls.observe(found.reports.append)
        front = web.Application(
            middlewares=[answering(lambda _reason: None)], client_max_size=2**20
        )
        front.router.add_route("*", "/apps/{route}/app{tail:.*}", found.sell)
        found.url = await enter(serving(front))
        yield found
        await calls.stop(0)
        assert journal.held == 0
        assert not calls.in_use
