"""The operator's port: metrics, liveness and status. It is for this machine, not for strangers."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass

import orjson
from aiohttp import web
from aiohttp.typedefs import Handler

from network.identity import checksum
from network.prices import NoRateError, rate_facts, written
from network.runtime.clock import Clock
from network.runtime.console import Asset
from network.units import Address, ModelId, format_price
from node.accounting.journal import Journal
from node.accounting.model import NOBODY
from node.accounting.pricing import PriceList
from node.api.health import HealthService
from node.api.metrics import Metrics
from node.api.recent import RecentJobs
from node.api.refusals import answering
from node.discovery.reachability import SelfCheck
from node.engine.backend import Engine
from node.engine.work import ModelState
from node.jobs.board import ModelLoad
from node.jobs.runner import JobRunner
from node.payments.earning import Earning


@dataclass(frozen=True, slots=True)
class AdminService:
    """Everything an operator asks of a running node."""

    address: Address
    service_uri: str
    version: str
    engine: Engine
    runner: JobRunner
    journal: Journal
    prices: PriceList
    health: HealthService
    metrics: Metrics
    clock: Clock
    recent: RecentJobs
    #: The page's files by path.
    page: Mapping[str, Asset]
    #: None off-chain.
    earning: Earning | None = None
    #: None where the settings want none.
    reachability: SelfCheck | None = None
    #: Apps of others that registered; None where they cannot.
    runners: Callable[[], object] | None = None
    #: The operator's own certificate; None where the node made one, or has none.
    certificate: Callable[[], object] | None = None
    #: The links that the node dials, as `/status` tells them.
    links: Callable[[], list[dict[str, object]]] = list

    async def get_metrics(self, _request: web.Request) -> web.Response:
        """Tell the metrics in Prometheus' text format."""
        return web.Response(
            body=await self.metrics.exposition(),
            headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"},
        )

    async def get_healthz(self, _request: web.Request) -> web.Response:
        """Answer 200 while jobs can be done, 503 otherwise."""
        status = self.health.status()
        good = status == "OK" and not self.runner.is_stopping
        return web.Response(status=200 if good else 503, text=f"{status.lower()}\n")

    async def get_status(self, _request: web.Request) -> web.Response:
        """Tell what the node is doing. `ready`: every warm model is in memory."""
        loads = self.runner.loads()
        models = [self._model(state, loads[state.model_id]) for state in self.engine.models()]
        value = {
            "ready": self.health.is_ready(),
            "status": self.health.status(),
            "address": checksum(self.address),
            "service_uri": self.service_uri,
            "version": self.version,
            "worker_pid": self.engine.worker_pid(),
            "safety": asdict(self.engine.safety()),
            "models": models,
            "rate": rate_facts(self.prices.rates, self.clock.now()),
            "links": self.links(),
            "earned_since_start": str(self.journal.earned),
            "held": str(self.journal.held),
            "tickets": None if self.earning is None else (await self.earning.report()).as_json(),
            "reachability": None if self.reachability is None else self.reachability.as_json(),
            "registered_service_uri": self._registered(),
            "apps_of_others": None if self.runners is None else self.runners(),
            "certificate": None if self.certificate is None else self.certificate(),
        }
        return web.Response(body=orjson.dumps(value), content_type="application/json")

    def _registered(self) -> dict[str, object] | None:
        keeper = None if self.earning is None else self.earning.service_uri
        return None if keeper is None else keeper.as_json()

    def _model(self, state: ModelState, load: ModelLoad) -> dict[str, object]:
        return {
            "id": state.model_id,
            "status": state.status,
            "warm": state.status == "ready",
            "progress": state.progress,
            "detail": state.detail,
            "price": _price(self.prices, state.model_id),
            "listed_price": written(self.prices.listed(state.model_id, NOBODY)),
            "slots": load.slots,
            "running": load.running,
            "waiting": load.waiting,
            "free": load.free,
            "load_seconds": state.load_seconds,
            "swap_seconds": state.swap_seconds,
            "bytes": state.bytes,
            "in_host_memory": state.in_host,
            "refused_pixels": state.refused_pixels,
            "seconds_per_pixel_step": state.pace,
        }


def _price(prices: PriceList, model_id: ModelId) -> str | None:
    """Wei per pixel as text; None while no rate tells it."""
    try:
        return format_price(prices.price(model_id, NOBODY))
    except NoRateError:
        return None


def _serving(asset: Asset) -> Handler:
    async def show(_request: web.Request) -> web.Response:
        return web.Response(body=asset.body, headers=asset.headers)

    return show


def admin_application(service: AdminService) -> web.Application:
    """Return the admin port's application."""
    app = web.Application(middlewares=[answering(lambda _reason: None)])
    app.router.add_get("/metrics", service.get_metrics)
    app.router.add_get("/healthz", service.get_healthz)
    app.router.add_get("/status", service.get_status)
    app.router.add_get("/history", service.recent.get_history)
    for path, asset in service.page.items():
        app.router.add_get(path, _serving(asset))
    return app
