"""The operator's own port: metrics, health and status. Never to be opened to strangers."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

from aiohttp import web
from aiohttp.web import BaseRequest, StreamResponse

from gateway.api.answers import SERVER, json_answer
from gateway.api.exchange import Exchange
from gateway.api.metrics import Metrics
from gateway.api.router import Route, Router

_NOTHING: Final[Mapping[str, Route]] = MappingProxyType({})


def admin_router(
    metrics: Metrics, status: Callable[[], dict[str, Any]], more: Mapping[str, Route] = _NOTHING
) -> Router:
    """`status()` is the body of `/status`; its `serving` decides what `/healthz` says.

    `more` is what else an operator may ask, by path.
    """

    async def show_metrics(request: BaseRequest, exchange: Exchange) -> StreamResponse:
        del request, exchange
        kind = "text/plain; version=0.0.4; charset=utf-8"
        text = await metrics.render()
        return web.Response(body=text, headers={"Content-Type": kind, "Server": SERVER})

    async def show_health(request: BaseRequest, exchange: Exchange) -> StreamResponse:
        del request, exchange
        # Alive even when no orchestrator is: a restart of the gateway would not bring one back.
        return json_answer({"status": "OK" if status()["serving"] else "DEGRADED"})

    async def show_status(request: BaseRequest, exchange: Exchange) -> StreamResponse:
        del request, exchange
        return json_answer(status())

    return Router(
        {
            "/metrics": Route("metrics", {"GET": show_metrics}),
            "/healthz": Route("healthz", {"GET": show_health}),
            "/status": Route("status", {"GET": show_status}),
            **more,
        },
        {},
    )
