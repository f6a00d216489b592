"""Builds a node out of its parts, and takes it apart again in order."""

import asyncio
import fcntl
import os
import random
import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import structlog

from network.chain.profiles import profile_of
from network.errors import ConfigError
from network.runtime.clock import Clock, SystemClock
from network.runtime.supervisor import Supervisor, supervise
from network.units import Address
from node.api.credentials import Doorkeeper
from node.api.listener import (
    Listener,
)
from node.api.runner_opening import endpoint_of
from node.api.runners import runner_routes
from node.app.certificates import operators_certificate, own_certificate
from node.app.core import VERSION, Core, EngineOpener, image_desk, offers_of, open_core
from node.app.operator import admin_socket, open_admin, self_check
from node.app.public import bound, open_public
from node.app.selling import model_apps, open_others_apps, routes_of_apps
from node.apps.shop import Shop
from node.config.catalogue import Catalogue, catalogue
from node.config.settings import (
    NodeSettings,
    check_access,
    is_loopback,
    is_onchain,
    serves_strangers,
    service_uri,
)
from node.discovery.advertiser import Access, Advertiser
from node.discovery.hardware import Hardware
from node.discovery.sessions import Sessions
from node.engine.checkers.presence import why_missing
from node.engine.configured import open_engine, safety_options
from node.engine.options import NO_CHECKER
from node.link.opening import Links, start_links
from node.payments.opening import ChainOpener, open_livepeer_chain
from node.payments.rates import check_rates

_HARDWARE_SECONDS: Final = 30.0

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class RunningNode:
    """A node that serves. URLs hold the ports it got."""

    url: str
    admin_url: str
    address: Address


@asynccontextmanager
async def open_node(
    settings: NodeSettings,
    *,
    clock: Clock | None = None,
    engine_opener: EngineOpener = open_engine,
    chain_opener: ChainOpener = open_livepeer_chain,
) -> AsyncIterator[RunningNode]:
    """Run a node for the length of the block.

    At the end it takes no more work, gives running jobs `server.shutdown_seconds` to finish,
    and writes down how each ended. Raises ConfigError or DatabaseError when it cannot start.
    """
    check_access(settings)
    profile = await asyncio.to_thread(profile_of, settings.chain.network)
    if missing := await asyncio.to_thread(why_missing, safety_options(settings.safety)):
        raise ConfigError("safety.checker", missing)
    models = await asyncio.to_thread(catalogue, settings)
    check_rates(settings, models)
    _warn(settings, models)
    async with AsyncExitStack() as stack:
        clock = clock or SystemClock()
        stack.callback(os.close, await asyncio.to_thread(_locked, settings.data_dir))
        supervisor = await stack.enter_async_context(supervise(clock))
        core = await open_core(
            stack,
            settings,
            clock,
            models,
            engine_opener=engine_opener,
            chain_opener=chain_opener,
            profile=profile,
        )
        running, listener, advertiser, links = await _open_surfaces(stack, supervisor, core)
        try:
            yield running
        finally:
            advertiser.close()
            links.changed()
            listener.stop_accepting()
            grace = settings.server.shutdown_seconds
            await asyncio.gather(core.runner.stop(grace), core.calls.stop(grace))


def _warn(settings: NodeSettings, models: Catalogue) -> None:
    for pipeline in models.skipped_pipelines:
        log.warning("left out models of another pipeline", pipeline=pipeline)
    for note in models.notes:
        log.warning("a part of aiModels.json has no effect", what=note)
    if settings.open and serves_strangers(settings) and not is_onchain(settings):
        log.warning("open: anybody may have work done, and nobody guarantees that they pay")
    if settings.safety.checker == NO_CHECKER:
        log.warning("no safety checker: every image is delivered unchecked", checker=NO_CHECKER)
    if not is_loopback(settings.admin_listen.rpartition(":")[0].strip("[]")):
        log.warning("others may reach the admin port", admin_listen=settings.admin_listen)


async def _open_surfaces(
    stack: AsyncExitStack, supervisor: Supervisor, core: Core
) -> tuple[RunningNode, Listener, Advertiser, Links]:
    settings = core.settings
    listen = urlsplit(settings.listen)
    sock = await bound("listen", listen.hostname or "", listen.port or 0)
    stack.callback(sock.close)
    uri = service_uri(settings, sock.getsockname()[1])
    served = await stack.enter_async_context(operators_certificate(core, uri))
    context = None if served is None else served.context
    if context is None and listen.scheme == "https":
        context = await own_certificate(supervisor, core, uri)
    access = Access(_allowed(settings))
    sessions = Sessions(core.identity.session_secret, bound=not access.is_open)
    advertiser = Advertiser(
        signer=core.identity.signer,
        service_uri=uri,
        version=VERSION,
        prices=core.prices,
        access=access,
        sessions=sessions,
        hardware=core.hardware,
        clock=core.clock,
        offers=lambda: offers_of(core),
        quote=None if core.payments is None else core.payments.till.quote,
    )
    must_pay = core.payments is not None
    doorkeeper = Doorkeeper(access, sessions, advertiser, core.clock, must_pay=must_pay)
    admin = await admin_socket(stack, settings)
    own = [endpoint_of(*one.getsockname()[:2]) for one in (sock, admin)]
    desk = image_desk(core)
    models = model_apps(core, desk)
    runners = await stack.enter_async_context(open_others_apps(supervisor, core, models, uri, own))
    shop = Shop(models) if runners is None else Shop(models, runners.apps)
    apps = routes_of_apps(
        core, shop, doorkeeper=doorkeeper, access=access, sessions=sessions, uri=uri
    )
    listener = await open_public(
        stack,
        supervisor,
        core,
        doorkeeper,
        advertiser,
        desk=desk,
        surfaces=(runner_routes(runners, core.metrics.refused), apps),
        sock=sock,
        context=context,
    )
    supervisor.start("hardware", lambda: _watch(core.hardware))
    check = self_check(core, uri)
    if check is not None:
        supervisor.start("reachability", check.run)
    links = start_links(
        settings.gateways,
        supervisor,
        signer=core.identity.signer,
        connections=listener.connections,
        advertiser=advertiser,
        runner=core.runner,
        engine=core.engine,
        clock=core.clock,
        randomness=random.Random(secrets.randbits(128)),  # noqa: S311 - jitter, no secrets
        undo=stack.callback,
    )
    admin_url = await open_admin(
        stack, core, uri, check, sock=admin, runners=runners, served=served, links=links
    )
    running = RunningNode(uri, admin_url, core.identity.signer.address)
    return running, listener, advertiser, links


def _allowed(settings: NodeSettings) -> frozenset[Address]:
    """Return who may have work done; empty for anybody. Who is dialled is trusted."""
    if not settings.allowed_gateways:
        return frozenset()
    return settings.allowed_gateways | {one.address for one in settings.gateways if one.jobs}


async def _watch(hardware: Hardware) -> None:
    while True:
        await asyncio.sleep(_HARDWARE_SECONDS)
        await hardware.refresh()


def _locked(data_dir: Path) -> int:
    """Take the data directory for this process; two nodes on one journal would contradict."""
    try:
        data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle = os.open(data_dir / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise ConfigError("data_dir", f"cannot use {data_dir}: {error.strerror}") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        raise ConfigError(
            "data_dir", f"{data_dir} is in use by another limner-node; give this one its own"
        ) from None
    return handle
