"""A runner's HTTP routes."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import orjson
from aiohttp import HttpVersion11, web

from network.wire.limits import Limits
from node.api.health import HealthService
from node.api.listener import Connections
from node.api.metrics import Metrics
from node.api.routes import listening, name_server
from node.container.answers import answering
from node.container.openapi import document
from node.container.text_to_image import RunnerService

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class AboutService:
    """What a runner tells of its traffic and of its contract."""

    images: RunnerService
    metrics: Metrics
    version: str
    limits: Callable[[], Limits]

    async def get_metrics(self, request: web.Request) -> web.Response:
        """Tell the metrics, which show how busy the caller is, to who has the token."""
        self.images.check(request)
        return web.Response(
            body=await self.metrics.exposition(),
            headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"},
        )

    async def get_openapi(self, _request: web.Request) -> web.Response:
        """Tell the contract, with the bounds of the default model."""
        has_token = bool(self.images.token.value)
        content = document(self.limits(), self.version, has_token=has_token)
        return web.Response(body=orjson.dumps(content), content_type="application/json")


def container_application(
    images: RunnerService, health: HealthService, about: AboutService, connections: Connections
) -> web.Application:
    """Return the application that serves an orchestrator."""
    app = web.Application(
        client_max_size=images.max_body_bytes + 1,  # aiohttp refuses the bound itself
        middlewares=[listening(connections), answering(about.metrics.refused)],
    )
    app.on_response_prepare.append(name_server)
    _twins(app, "POST", "/text-to-image", images.post)
    _twins(app, "GET", "/health", health.get_health)
    _twins(app, "GET", "/hardware/info", health.get_hardware_info)
    _twins(app, "GET", "/hardware/stats", health.get_hardware_stats)
    _twins(app, "GET", "/version", health.get_version)
    _twins(app, "GET", "/metrics", about.get_metrics)
    _twins(app, "GET", "/openapi.json", about.get_openapi)
    return app


def _twins(app: web.Application, method: str, path: str, handler: _Handler) -> None:
    """Serve a path with and without a trailing slash, as the ai-runner does."""
    for place in (path, f"{path}/"):
        app.router.add_route(method, place, handler, expect_handler=_expectation)


async def _expectation(request: web.Request) -> web.StreamResponse | None:
    """Ask for the body of a client that waits to be asked, and pass over other expectations.

    aiohttp answers those 417, a status that go-livepeer's worker does not survive.
    """
    expects = request.headers.get("Expect", "").lower()
    if expects == "100-continue" and request.version >= HttpVersion11:
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # aiohttp takes what was written for the answer's beginning
    return None
