"""The port that gateways and clients reach."""

import os
import socket
import ssl
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from typing import Final

from aiohttp import web

from network.errors import ConfigError
from network.runtime.spans import open_spans
from network.runtime.supervisor import Supervisor
from node.api.credentials import Doorkeeper
from node.api.health import ProgressService
from node.api.info import grpc_methods
from node.api.job_events import JobEventService
from node.api.listener import (
    MAX_HEADER_BYTES,
    MAX_REQUEST_LINE_BYTES,
    Connections,
    Listener,
    ListenerLimits,
    bound_socket,
    open_listener,
)
from node.api.receipts import ReceiptService
from node.api.repeats import Made, Repeats
from node.api.routes import http_application
from node.api.text_to_image import ImageService
from node.app.core import VERSION, Core, health_of, is_under_way
from node.apps.images import ImageDesk
from node.discovery.advertiser import Advertiser
from node.jobs.kept import KeptAnswers

_KEEPALIVE_SECONDS: Final = 75.0
_MOST_HEADERS: Final = 64


async def open_public(
    stack: AsyncExitStack,
    supervisor: Supervisor,
    core: Core,
    doorkeeper: Doorkeeper,
    advertiser: Advertiser,
    *,
    desk: ImageDesk,
    surfaces: Sequence[Callable[[web.Application], None]],
    sock: socket.socket,
    context: ssl.SSLContext | None,
) -> Listener:
    server = core.settings.server
    connections = Connections(
        grpc_methods(advertiser, core.metrics.refused),
        ListenerLimits(
            server.max_connections,
            core.settings.limits.max_body_bytes,
            server.header_timeout_seconds,
            server.idle_timeout_seconds,
        ),
    )
    repeats = _repeats(supervisor, core)
    images = ImageService(
        doorkeeper=doorkeeper,
        desk=desk,
        max_body_bytes=core.settings.limits.max_body_bytes,
        body_timeout=server.body_timeout_seconds,
        till=None if core.payments is None else core.payments.till,
        repeats=repeats,
    )
    app = http_application(
        images,
        health_of(core),
        ProgressService(core.runner),
        JobEventService(core.runner),
        ReceiptService(core.journal.receipt, lambda attempt_id: is_under_way(core, attempt_id)),
        refused=core.metrics.refused,
        connections=connections,
        surfaces=surfaces,
        spans=await stack.enter_async_context(open_spans("limner-node", VERSION, os.environ)),
    )
    http = web.AppRunner(
        app,
        handle_signals=False,
        access_log=None,
        handler_cancellation=True,
        keepalive_timeout=_KEEPALIVE_SECONDS,
        max_line_size=MAX_REQUEST_LINE_BYTES,
        max_field_size=MAX_HEADER_BYTES,
        max_headers=_MOST_HEADERS,
        shutdown_timeout=0,
    )
    await http.setup()
    stack.push_async_callback(http.cleanup)
    if http.server is None:
        raise RuntimeError("aiohttp made no server")
    connections.serve(http.server)
    listener = await stack.enter_async_context(open_listener(connections, sock, context))
    stack.push_async_callback(repeats.drain)
    return listener


def _repeats(supervisor: Supervisor, core: Core) -> Repeats:
    own = core.settings.repeats
    kept = KeptAnswers[Made](own.keep_bytes, own.keep_seconds)
    repeats = Repeats(kept, core.runner.is_settling, supervisor, core.clock)
    supervisor.start("kept answers", repeats.sweep)
    return repeats


async def bound(key: str, host: str, port: int) -> socket.socket:
    try:
        return await bound_socket(host, port)
    except OSError as error:
        raise ConfigError(
            key, f"cannot listen on {host} port {port}: {error.strerror or error}"
        ) from error
