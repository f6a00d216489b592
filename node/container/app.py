"""Builds a runner out of its parts: the engine, the jobs board and the ai-runner's HTTP API."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from fractions import Fraction
from importlib.metadata import version as distribution_version
from typing import Final

import structlog
from aiohttp import web

from network.errors import ConfigError
from network.runtime.clock import Clock, SystemClock
from network.units import ModelId
from network.wire.limits import Limits
from node.accounting.pricing import PriceList
from node.api.bounds import limits_of
from node.api.health import HealthService
from node.api.listener import (
    MAX_HEADER_BYTES,
    MAX_REQUEST_LINE_BYTES,
    Connections,
    Listener,
    ListenerLimits,
    bound_socket,
    open_listener,
)
from node.api.metrics import Metrics
from node.apps.images import ImageDesk
from node.config.catalogue import Catalogue, catalogue, profiles
from node.config.settings import NodeSettings
from node.container.announcement import ai_models_entries, reachable_url
from node.container.books import NoBooks
from node.container.routes import AboutService, container_application
from node.container.text_to_image import RunnerService
from node.container.token import Token, check_exposure, open_token
from node.discovery.hardware import Hardware
from node.engine.backend import Engine
from node.engine.checkers.presence import why_missing
from node.engine.configured import open_engine, safety_options
from node.engine.options import NO_CHECKER
from node.jobs.board import Policy
from node.jobs.record import log_job
from node.jobs.runner import JobRunner

_KEEPALIVE_SECONDS: Final = 75.0
_MOST_HEADERS: Final = 64
#: Of the installed distribution; read from disk, and therefore once, at import.
VERSION: Final = distribution_version("limner")

log = structlog.get_logger(__name__)

EngineOpener = Callable[[NodeSettings, Catalogue, Clock], AbstractAsyncContextManager[Engine]]


@dataclass(frozen=True, slots=True)
class RunningContainer:
    """A runner that serves.

    `url` is where it listens, `ai_models` what to put into go-livepeer's list of models.
    """

    url: str
    token: Token
    ai_models: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Core:
    """What the surface stands on."""

    settings: NodeSettings
    models: Catalogue
    token: Token
    engine: Engine
    runner: JobRunner
    metrics: Metrics
    hardware: Hardware


@asynccontextmanager
async def open_container(
    settings: NodeSettings,
    *,
    clock: Clock | None = None,
    engine_opener: EngineOpener = open_engine,
) -> AsyncIterator[RunningContainer]:
    """Run a runner for the length of the block.

    The port opens at once; models load meanwhile. At the end it takes no more work and gives
    running jobs `server.shutdown_seconds` to finish. Raises ConfigError when it cannot start.
    """
    token = await asyncio.to_thread(open_token, settings.container)
    check_exposure(settings.container, token)
    if missing := await asyncio.to_thread(why_missing, safety_options(settings.safety)):
        raise ConfigError("safety.checker", missing)
    models = await asyncio.to_thread(catalogue, settings)
    _warn(settings, token)
    clock = clock or SystemClock()
    async with AsyncExitStack() as stack:
        core = await _open_core(
            stack, settings, clock, models, token=token, engine_opener=engine_opener
        )
        listener, sock = await _serve(stack, settings, *_application(core))
        host = settings.container.listen.rpartition(":")[0].strip("[]")
        url = reachable_url(host, listener.port, settings.container.url)
        entries = ai_models_entries(models.models, url, token)
        try:
            yield RunningContainer(_listens_at(sock), token, entries)
        finally:
            listener.stop_accepting()
            await core.runner.stop(settings.server.shutdown_seconds)


def _warn(settings: NodeSettings, token: Token) -> None:
    if settings.container.open and not token.value:
        log.warning("open: anybody who reaches the runner may have work done")
    if settings.safety.checker == NO_CHECKER:
        log.warning("no safety checker: every image is delivered unchecked", checker=NO_CHECKER)


async def _open_core(
    stack: AsyncExitStack,
    settings: NodeSettings,
    clock: Clock,
    models: Catalogue,
    *,
    token: Token,
    engine_opener: EngineOpener,
) -> _Core:
    engine = await stack.enter_async_context(engine_opener(settings, models, clock))
    capacities = {model.model_id: model.capacity for model in models.models}
    policy = Policy(settings.queue.max_waiting, settings.queue.max_wait_seconds)
    runner = JobRunner(engine, NoBooks(), clock, capacities=capacities, policy=policy)
    metrics = Metrics(VERSION, engine, runner.loads)
    runner.observe(log_job)
    runner.observe(metrics.job_ended)
    stack.callback(runner.follow_engine())
    stack.callback(engine.subscribe(metrics.engine_changed))
    hardware = Hardware(clock)
    await hardware.refresh()
    return _Core(settings, models, token, engine, runner, metrics, hardware)


def _application(core: _Core) -> tuple[web.Application, Connections]:
    settings = core.settings
    limits = ListenerLimits(
        settings.server.max_connections,
        settings.limits.max_body_bytes,
        settings.server.header_timeout_seconds,
        settings.server.idle_timeout_seconds,
    )
    connections = Connections({}, limits)
    models = core.models.models
    ids = tuple(model.model_id for model in models)
    desk = ImageDesk(
        prices=PriceList(Fraction(0), {}, {}),
        runner=core.runner,
        limits=lambda model_id: _limits(core, model_id),
        loras=core.models.loras,
        profiles=profiles(settings, core.models),
        deterministic=frozenset(model.model_id for model in models if model.deterministic),
    )
    images = RunnerService(
        core.token, desk, ids, settings.limits.max_body_bytes, settings.server.body_timeout_seconds
    )
    version = settings.container.version or VERSION
    health = HealthService(core.engine, core.hardware, version, ids[0])
    about = AboutService(images, core.metrics, version, lambda: _limits(core, ids[0]) or Limits())
    return container_application(images, health, about, connections), connections


def _limits(core: _Core, model_id: ModelId) -> Limits | None:
    state = core.engine.model(model_id)
    return None if state is None else limits_of(core.settings.limits, state)


async def _serve(
    stack: AsyncExitStack, settings: NodeSettings, app: web.Application, connections: Connections
) -> tuple[Listener, socket.socket]:
    host, _, port = settings.container.listen.rpartition(":")
    try:
        sock = await bound_socket(host.strip("[]"), int(port))
    except OSError as error:
        reason = error.strerror or error
        raise ConfigError("container.listen", f"cannot listen there: {reason}") from error
    stack.callback(sock.close)
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
    return await stack.enter_async_context(open_listener(connections, sock, None)), sock


def _listens_at(sock: socket.socket) -> str:
    host, port = sock.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
