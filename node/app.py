"""Builds a node out of its parts, and takes it apart again in order."""

import asyncio
import fcntl
import os
import random
import secrets
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from importlib.metadata import version as distribution_version
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import structlog
from aiohttp import web

from network.capabilities import TEXT_TO_IMAGE_PIPELINE
from network.chain.contracts import LivepeerChain
from network.chain.profiles import ARBITRUM_ONE, profile_of
from network.chain.profiles import Profile as ChainProfile
from network.errors import ConfigError
from network.prices import USD, Rate, fixed_usd
from network.reachability.judgement import Expectation
from network.runtime.certificates import CertificateFiles, ServedCertificate, open_certificate
from network.runtime.clock import Clock, SystemClock
from network.runtime.database import Database, open_database
from network.runtime.supervisor import Supervisor, supervise
from network.units import Address, ModelId, Wei
from network.wire.limits import Limits
from node.accounting.journal import MIGRATIONS, Journal
from node.accounting.ledger import Ledger
from node.accounting.model import Outcome
from node.accounting.pricing import PriceList
from node.api.admin import AdminService, admin_application
from node.api.apps import AppService, app_routes
from node.api.bounds import limits_of
from node.api.certificate import ALPN_PROTOCOLS, keep_fresh, server_context
from node.api.credentials import Doorkeeper
from node.api.discovery import DiscoveryService
from node.api.health import HealthService, ProgressService
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
from node.api.metrics import Metrics
from node.api.receipts import ReceiptService
from node.api.routes import http_application
from node.api.runner_opening import endpoint_of, open_runners
from node.api.runners import RunnerService, runner_routes
from node.api.text_to_image import ImageService
from node.apps.addresses import Endpoint
from node.apps.calls import AppCalls
from node.apps.challenges import Challenger
from node.apps.images import ImageDesk
from node.apps.ours import ModelApp, ModelApps
from node.apps.shop import Shop
from node.config.catalogue import Catalogue, catalogue, profiles
from node.config.settings import (
    NodeSettings,
    check_access,
    database_url,
    is_loopback,
    is_onchain,
    is_wildcard,
    serves_strangers,
    service_uri,
)
from node.discovery.advertiser import Access, Advertiser, ModelOffer
from node.discovery.hardware import Hardware
from node.discovery.identity import Identity, open_identity
from node.discovery.reachability import SelfCheck, stranger_look
from node.discovery.sessions import Sessions
from node.engine.backend import Engine
from node.engine.checkers.presence import why_missing
from node.engine.configured import open_engine, safety_options
from node.engine.options import NO_CHECKER
from node.jobs.board import Policy
from node.jobs.model import JobReport
from node.jobs.record import log_job
from node.jobs.runner import REMEMBERED_ATTEMPTS, JobRunner
from node.link.opening import Links, start_links
from node.payments.earning import Earning, open_earning
from node.payments.opening import ChainOpener, Payments, open_livepeer_chain, open_payments
from node.payments.rates import check_rates, open_rates, price_list
from node.payments.till import Till
from node.payments.usual import UsualJobs

_KEEPALIVE_SECONDS: Final = 75.0
_MOST_HEADERS: Final = 64
_HARDWARE_SECONDS: Final = 30.0
#: Of the installed distribution; read from disk, and therefore once, at import.
VERSION: Final = distribution_version("limner")

log = structlog.get_logger(__name__)

EngineOpener = Callable[[NodeSettings, Catalogue, Clock], AbstractAsyncContextManager[Engine]]


@dataclass(frozen=True, slots=True)
class RunningNode:
    """A node that serves. URLs hold the ports it got."""

    url: str
    admin_url: str
    address: Address


@dataclass(frozen=True, slots=True)
class _Core:
    """What the surfaces stand on. `payments` and `earning` are None off-chain."""

    settings: NodeSettings
    clock: Clock
    models: Catalogue
    identity: Identity
    engine: Engine
    journal: Journal
    runner: JobRunner
    #: Of apps of others.
    calls: AppCalls
    metrics: Metrics
    prices: PriceList
    hardware: Hardware
    payments: Payments | None
    earning: Earning | None


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
        core = await _open_core(
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


async def _open_core(
    stack: AsyncExitStack,
    settings: NodeSettings,
    clock: Clock,
    models: Catalogue,
    *,
    engine_opener: EngineOpener,
    chain_opener: ChainOpener,
    profile: ChainProfile | None,
) -> _Core:
    # The worker first: it loads its libraries while the keystore is opened.
    engine = await stack.enter_async_context(engine_opener(settings, models, clock))
    identity = await open_identity(
        settings.data_dir, settings.keystore.passphrase, settings.keystore.passphrase_file
    )
    database = await stack.enter_async_context(
        open_database(
            database_url(settings), MIGRATIONS, synchronous=settings.database.synchronous
        )
    )
    journal = Journal(database, Ledger(overdraft=None if profile is None else Wei(0)), clock)
    await journal.close_interrupted()
    capacities = {model.model_id: model.capacity for model in models.models}
    policy = Policy(settings.queue.max_waiting, settings.queue.max_wait_seconds)
    runner = JobRunner(engine, journal, clock, capacities=capacities, policy=policy)
    metrics = Metrics(VERSION, engine, runner.loads)
    calls = AppCalls(journal, clock)
    for observer in (log_job, metrics.job_ended):
        runner.observe(observer)
        calls.observe(observer)
    stack.callback(runner.follow_engine())
    stack.callback(engine.subscribe(metrics.engine_changed))
    hardware = Hardware(clock)
    await hardware.refresh()
    core = _Core(
        settings=settings,
        clock=clock,
        models=models,
        identity=identity,
        engine=engine,
        journal=journal,
        runner=runner,
        calls=calls,
        metrics=metrics,
        prices=price_list(settings, models, fixed_usd(settings.usd_per_eth)),
        hardware=hardware,
        payments=None,
        earning=None,
    )
    if profile is None:
        return core
    return await _open_till(stack, core, profile, database, chain_opener)


async def _open_till(
    stack: AsyncExitStack,
    core: _Core,
    profile: ChainProfile,
    database: Database,
    chain_opener: ChainOpener,
) -> _Core:
    """Be paid by ticket from now on, going on where an earlier process ended."""
    await core.journal.restore_accounts()
    attempts = await core.journal.recent_attempts(REMEMBERED_ATTEMPTS)
    core.runner.remember(attempts)
    core.calls.remember(attempts)
    signer = core.identity.signer
    opened = open_payments(
        profile,
        core.settings,
        signer.address,
        core.models,
        database=database,
        clock=core.clock,
        opener=chain_opener,
    )
    payments = await stack.enter_async_context(opened)
    core.runner.observe(_learning(payments.till.usual))
    prices = core.prices
    earning = None
    if isinstance(payments.chain, LivepeerChain):
        rates = open_rates(core.settings, core.models, payments.chain.rpc, core.clock)
        prices = replace(prices, rates=await stack.enter_async_context(rates))
        redeeming = open_earning(
            payments.chain,
            payments.watch,
            payments.pending,
            signer,
            core.settings,
            database=database,
            clock=core.clock,
        )
        earning = await stack.enter_async_context(redeeming)
        core.metrics.watch_tickets(earning.report)
    return replace(core, prices=prices, payments=payments, earning=earning)


def _learning(usual: UsualJobs) -> Callable[[JobReport], None]:
    def saw(report: JobReport) -> None:
        # Only what was paid for: anybody may ask for anything.
        if report.ending.outcome is Outcome.DELIVERED:
            usual.saw(report.job.model_id, report.job.pixels)

    return saw


async def _open_surfaces(
    stack: AsyncExitStack, supervisor: Supervisor, core: _Core
) -> tuple[RunningNode, Listener, Advertiser, Links]:
    settings = core.settings
    listen = urlsplit(settings.listen)
    sock = await _bound("listen", listen.hostname or "", listen.port or 0)
    stack.callback(sock.close)
    uri = service_uri(settings, sock.getsockname()[1])
    served = await stack.enter_async_context(_operators_certificate(core, uri))
    context = None if served is None else served.context
    if context is None and listen.scheme == "https":
        context = await _tls(supervisor, core, uri)
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
        offers=lambda: _offers(core),
        quote=None if core.payments is None else core.payments.till.quote,
    )
    must_pay = core.payments is not None
    doorkeeper = Doorkeeper(access, sessions, advertiser, core.clock, must_pay=must_pay)
    admin = await _admin_socket(stack, settings)
    own = [endpoint_of(*one.getsockname()[:2]) for one in (sock, admin)]
    desk = _desk(core)
    models = _model_apps(core, desk)
    runners = await stack.enter_async_context(_runners(supervisor, core, models, uri, own))
    shop = Shop(models) if runners is None else Shop(models, runners.apps)
    apps = _app_routes(
        core, shop, doorkeeper=doorkeeper, access=access, sessions=sessions, uri=uri
    )
    listener = await _open_public(
        stack,
        core,
        doorkeeper,
        advertiser,
        desk=desk,
        surfaces=(runner_routes(runners, core.metrics.refused), apps),
        sock=sock,
        context=context,
    )
    supervisor.start("hardware", lambda: _watch(core.hardware))
    check = _self_check(core, uri)
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
    admin_url = await _open_admin(
        stack, core, uri, check, sock=admin, runners=runners, served=served, links=links
    )
    running = RunningNode(uri, admin_url, core.identity.signer.address)
    return running, listener, advertiser, links


def _allowed(settings: NodeSettings) -> frozenset[Address]:
    """Return who may have work done; empty for anybody. Who is dialled is trusted."""
    if not settings.allowed_gateways:
        return frozenset()
    return settings.allowed_gateways | {one.address for one in settings.gateways if one.jobs}


def _usd_per_eth(rate: Rate | None) -> Fraction | None:
    return rate.per_eth if rate is not None and rate.currency == USD else None


def _runners(
    supervisor: Supervisor, core: _Core, models: ModelApps, uri: str, own: Collection[Endpoint]
) -> AbstractAsyncContextManager[RunnerService | None]:
    ids = frozenset[str](model.model_id for model in core.models.models)
    names = ids | {f"{TEXT_TO_IMAGE_PIPELINE}/{model_id}" for model_id in ids}
    return open_runners(
        core.settings.runners,
        core.calls,
        supervisor,
        core.clock,
        service_uri=uri,
        own=own,
        is_taken=lambda app, route: app in names or models.find(route) is not None,
        usd_per_eth=lambda: _usd_per_eth(core.prices.rates.current),
        unpayable=None if core.payments is None else core.payments.till.unpayable,
        sessions=core.payments is None and not core.settings.allowed_gateways,
        max_body_bytes=core.settings.limits.max_body_bytes,
        body_timeout=core.settings.server.body_timeout_seconds,
    )


async def _open_public(
    stack: AsyncExitStack,
    core: _Core,
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
    images = ImageService(
        doorkeeper=doorkeeper,
        desk=desk,
        max_body_bytes=core.settings.limits.max_body_bytes,
        body_timeout=server.body_timeout_seconds,
        till=None if core.payments is None else core.payments.till,
    )
    app = http_application(
        images,
        _health(core),
        ProgressService(core.runner),
        JobEventService(core.runner),
        ReceiptService(core.journal.receipt, lambda attempt_id: _is_under_way(core, attempt_id)),
        refused=core.metrics.refused,
        connections=connections,
        surfaces=surfaces,
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
    return await stack.enter_async_context(open_listener(connections, sock, context))


def _self_check(core: _Core, uri: str) -> SelfCheck | None:
    settings = core.settings
    if not settings.reachability.check:
        return None
    model_id = core.models.models[0].model_id
    expected = expectation(core.identity.signer.address, settings, model_id)
    look = stranger_look(uri, expected, VERSION, core.clock)
    return SelfCheck(uri, look, core.clock)


def _was_seen(core: _Core, attempt_id: str) -> bool:
    return core.runner.was_seen(attempt_id) or core.calls.was_seen(attempt_id)


def _is_under_way(core: _Core, attempt_id: str) -> bool:
    return core.runner.is_under_way(attempt_id) or core.calls.is_under_way(attempt_id)


async def _admin_socket(stack: AsyncExitStack, settings: NodeSettings) -> socket.socket:
    """The operator's port, known before anybody can name it as an app's."""
    host, _, port = settings.admin_listen.rpartition(":")
    sock = await _bound("admin_listen", host.strip("[]"), int(port))
    stack.callback(sock.close)
    return sock


async def _open_admin(
    stack: AsyncExitStack,
    core: _Core,
    uri: str,
    check: SelfCheck | None,
    *,
    sock: socket.socket,
    runners: RunnerService | None,
    served: ServedCertificate | None,
    links: Links,
) -> str:
    service = AdminService(
        address=core.identity.signer.address,
        service_uri=uri,
        version=VERSION,
        engine=core.engine,
        runner=core.runner,
        journal=core.journal,
        prices=core.prices,
        health=_health(core),
        metrics=core.metrics,
        clock=core.clock,
        earning=core.earning,
        reachability=check,
        runners=None if runners is None else runners.status,
        certificate=None if served is None else served.status,
        links=links.states,
    )
    runner = web.AppRunner(
        admin_application(service), handle_signals=False, access_log=None, shutdown_timeout=0
    )
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    await web.SockSite(runner, sock).start()
    host = core.settings.admin_listen.rpartition(":")[0]
    return f"http://{host}:{sock.getsockname()[1]}"


@asynccontextmanager
async def _operators_certificate(core: _Core, uri: str) -> AsyncIterator[ServedCertificate | None]:
    settings, tls = core.settings, core.settings.tls
    if tls.certificate is None or tls.key is None:
        yield None
        return
    if not settings.listen.startswith("https://"):
        raise ConfigError(
            "tls", f"nobody would see the certificate: {settings.listen} listens without TLS"
        )
    files = CertificateFiles(tls.certificate, tls.key)
    async with open_certificate(files, ALPN_PROTOCOLS, core.clock) as served:
        host = urlsplit(uri).hostname or ""
        if not served.current.covers(host):
            log.warning("the certificate does not name the service URI's host", host=host)
        yield served


async def _tls(supervisor: Supervisor, core: _Core, uri: str) -> ssl.SSLContext:
    hosts = certificate_hosts(core.settings, uri)
    directory = core.settings.data_dir
    context = await server_context(directory, hosts, core.clock.now())
    supervisor.start("certificate", lambda: keep_fresh(context, directory, hosts, core.clock))
    return context


def certificate_hosts(settings: NodeSettings, uri: str) -> Sequence[str]:
    """Return the names and addresses by which a node of these settings may be called."""
    named = (urlsplit(uri).hostname or "", urlsplit(settings.listen).hostname or "")
    hosts = dict.fromkeys(host for host in named if host and not is_wildcard(host))
    return tuple(dict.fromkeys((*hosts, "localhost", "127.0.0.1", "::1")))


def _model_apps(core: _Core, desk: ImageDesk) -> ModelApps:
    models = ModelApps(
        ModelApp(
            desk,
            model.model_id,
            version=VERSION,
            gpu=lambda: next((reading.gpu for reading in core.hardware.latest), None),
            is_paid=core.payments is not None,
        )
        for model in core.models.models
    )
    if core.payments is not None:
        _warn_of_unpayable(core.payments.till, models)
    return models


def _app_routes(
    core: _Core,
    shop: Shop,
    *,
    doorkeeper: Doorkeeper,
    access: Access,
    sessions: Sessions,
    uri: str,
) -> Callable[[web.Application], None]:
    till = None if core.payments is None else core.payments.till
    challenger = None
    if till is not None:
        challenger = Challenger(till, sessions, uri, core.identity.signer.address, core.clock)
    service = AppService(
        shop=shop,
        doorkeeper=doorkeeper,
        access=access,
        till=till,
        challenger=challenger,
        was_seen=lambda attempt_id: _was_seen(core, attempt_id),
        service_uri=uri,
        max_body_bytes=core.settings.limits.max_body_bytes,
        body_timeout=core.settings.server.body_timeout_seconds,
    )
    return app_routes(service, DiscoveryService(shop, uri), core.metrics.refused)


def _warn_of_unpayable(till: Till, models: ModelApps) -> None:
    for app in models.all():
        price = app.listing().price
        reason = "" if price is None else till.unpayable(price.wei)
        if reason:
            log.warning("the largest requests cannot be paid", app=app.name, why=reason)


def _desk(core: _Core) -> ImageDesk:
    return ImageDesk(
        prices=core.prices,
        runner=core.runner,
        limits=lambda model_id: _limits(core, model_id),
        loras=core.models.loras,
        profiles=profiles(core.settings, core.models),
        deterministic=frozenset(
            model.model_id for model in core.models.models if model.deterministic
        ),
    )


def expectation(
    account: Address | None, settings: NodeSettings, model_id: ModelId | None = None
) -> Expectation:
    """Return what a stranger is to find at the service URI of a node of these settings."""
    return Expectation(
        account=account,
        is_public=settings.chain.network == ARBITRUM_ONE.name,
        is_restricted=bool(settings.allowed_gateways),
        model_id=model_id,
    )


def _health(core: _Core) -> HealthService:
    first = core.models.models[0].model_id
    return HealthService(core.engine, core.hardware, VERSION, first)


def _offers(core: _Core) -> Mapping[ModelId, ModelOffer]:
    loads = core.runner.loads()
    healthy = core.engine.healthy()
    return {
        state.model_id: ModelOffer(
            warm=healthy and state.status == "ready",
            free=loads[state.model_id].free,
            in_use=loads[state.model_id].running,
        )
        for state in core.engine.models()
    }


def _limits(core: _Core, model_id: ModelId) -> Limits | None:
    state = core.engine.model(model_id)
    return None if state is None else limits_of(core.settings.limits, state)


async def _watch(hardware: Hardware) -> None:
    while True:
        await asyncio.sleep(_HARDWARE_SECONDS)
        await hardware.refresh()


async def _bound(key: str, host: str, port: int) -> socket.socket:
    try:
        return await bound_socket(host, port)
    except OSError as error:
        raise ConfigError(
            key, f"cannot listen on {host} port {port}: {error.strerror or error}"
        ) from error


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
