"""The node's public HTTP routes."""

from collections.abc import Awaitable, Callable, Iterable

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from network.runtime.spans import Spans
from node.api.health import HealthService, ProgressService
from node.api.job_events import JobEventService
from node.api.listener import Connections
from node.api.receipts import ReceiptService
from node.api.refusals import answering
from node.api.text_to_image import ImageService
from node.api.tracing import tracing


def http_application(
    images: ImageService,
    health: HealthService,
    progress: ProgressService,
    events: JobEventService,
    receipts: ReceiptService,
    *,
    refused: Callable[[str], None],
    connections: Connections,
    surfaces: Iterable[Callable[[web.Application], None]] = (),
    spans: Spans | None = None,
) -> web.Application:
    """Return the application that serves gateways. `refused` counts refusals by reason; `spans` take work.

    Each of `surfaces` adds routes of its own.
    """
    app = web.Application(
        client_max_size=images.max_body_bytes + 1,  # aiohttp refuses the bound itself
        middlewares=[listening(connections), tracing(spans), answering(refused)],
    )
    app.on_response_prepare.append(name_server)
    _twins(app, "POST", "/text-to-image", images.post)
    _twins(app, "GET", "/jobs/{job_id}", progress.get_job)
    _twins(app, "GET", "/jobs/{job_id}/events", events.get_events)
    _twins(app, "GET", "/jobs/{job_id}/receipt", receipts.get_receipt)
    _twins(app, "GET", "/health", health.get_health)
    _twins(app, "GET", "/hardware/info", health.get_hardware_info)
    _twins(app, "GET", "/hardware/stats", health.get_hardware_stats)
    _twins(app, "GET", "/version", health.get_version)
    for add_routes in surfaces:
        add_routes(app)
    return app


def listening(connections: Connections) -> Middleware:
    """Return the middleware that tells the listener whose request head is complete."""

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        connections.heard(request.protocol)
        return await handler(request)

    return middleware


async def name_server(_request: web.Request, response: web.StreamResponse) -> None:
    """Say what answers, in place of what it is made of."""
    # aiohttp would tell strangers its version and Python's.
    response.headers["Server"] = "limner-node"


def _twins(
    app: web.Application,
    method: str,
    path: str,
    handler: Callable[[web.Request], Awaitable[web.StreamResponse]],
) -> None:
    """Serve a path with and without a trailing slash, as Livepeer's runner does."""
    for place in (path, f"{path}/"):
        if method == "GET":
            app.router.add_get(place, handler)
        else:
            app.router.add_route(method, place, handler)
