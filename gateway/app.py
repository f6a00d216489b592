"""The composition root: settings in, a serving gateway out. Nothing else reads settings."""

import os
import random
import secrets
import ssl
from asyncio import sleep, to_thread
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version as installed_version
from typing import Any, Final
from urllib.parse import urlsplit

import structlog

from gateway.accounting.journal import Journal
from gateway.api import images, jobs
from gateway.api.addresses import Addresses
from gateway.api.admin import admin_router
from gateway.api.admission import Admission
from gateway.api.bounds import Bounds
from gateway.api.explanations import Explanations
from gateway.api.exposure import is_local, open_tls
from gateway.api.finishing import Finisher, open_finisher
from gateway.api.frontend import Frontend, Watcher
from gateway.api.generation import Generation
from gateway.api.keeping import Resources, open_kept_answers
from gateway.api.listener import listen
from gateway.api.metrics import Gauges, Metrics
from gateway.api.models import Models
from gateway.api.openai import OpenAiImages
from gateway.api.openapi import document
from gateway.api.operator import PAGE, RecentRequests, operator_routes
from gateway.api.own_key import OwnKey
from gateway.api.page import Page, open_page
from gateway.api.quotes import Quotes
from gateway.api.rates import Rates
from gateway.api.router import Route, Router
from gateway.api.running import RunningRequests
from gateway.api.site import OPENAI_IMAGES, TEXT_TO_IMAGE, public_router
from gateway.api.spans import Recorder
from gateway.api.status import count_states, describe, describe_spending
from gateway.api.text_to_image import TextToImage
from gateway.config import GatewaySettings
from gateway.discovery.addresses import orchestrator_uri
from gateway.discovery.opening import (
    Discovery,
    max_prices_of,
    open_discovery,
    roster_of,
    terms_of,
)
from gateway.dispatch import Dispatcher, Routing, Showcase
from gateway.dispatch.allowing import spending_of, spent_before
from gateway.dispatch.opening import open_payments
from gateway.dispatch.paying import TicketPaying
from gateway.dispatch.spot_checks import Checking, SpotChecks
from gateway.dispatch.spot_checks import begin as begin_checks
from gateway.home import (
    open_gateway_database,
    open_images,
    open_payer,
    open_usage_journal,
    webhook_secret,
)
from gateway.keys import KeyRing, list_keys
from gateway.link.opening import open_links
from gateway.link.switchboard import Switchboard
from gateway.orchestrators.client import OrchestratorClient, open_client
from gateway.orchestrators.directory import Directory, Refreshing
from gateway.orchestrators.selection import Policy
from gateway.orchestrators.standing import Pausing
from gateway.payments.allowance import Allowances, Period
from gateway.payments.appraisal import Appraiser
from gateway.payments.budget import Budget
from gateway.payments.budget import Limits as BudgetLimits
from gateway.payments.rates import open_rates
from gateway.storage.store import ImageStore
from network.errors import ConfigError
from network.identity import checksum
from network.prices import EthRates, Price, rate_facts
from network.runtime.certificates import ServedCertificate
from network.runtime.clock import Clock, SystemClock
from network.runtime.console import read_page
from network.runtime.database import Database
from network.runtime.spans import open_spans
from network.runtime.supervisor import supervise
from network.units import Address, ModelId
from network.wire.limits import Limits

_log = structlog.get_logger(__name__)

_VERSION: Final = installed_version("limner")

#: How long a start waits for orchestrators that do not answer.
_FIRST_ROUND_SECONDS: Final = 3.0
#: How long a look without a gateway waits for its sources.
_LONGEST_LISTING: Final = 10.0
_MEMORY: Final = "orchestrators.json"
#: How soon a revoked key stops working.
_KEYS_SECONDS: Final = 2.0


@dataclass(frozen=True, slots=True)
class Gateway:
    """A serving gateway."""

    url: str
    #: Empty when no admin port is open.
    admin_url: str
    #: The gateway's own account, as it shows itself to orchestrators.
    address: str
    in_flight: Callable[[], int]
    #: Where nodes without a public address link; empty when none may.
    link_url: str = ""


@dataclass(frozen=True, slots=True)
class _Parts:
    settings: GatewaySettings
    clock: Clock
    randomness: random.Random
    account: Address
    database: Database
    journal: Journal
    keys: KeyRing
    store: ImageStore
    finisher: Finisher
    directory: Directory
    dispatcher: Dispatcher
    allowances: Allowances
    admission: Admission
    running: RunningRequests
    eth_rates: EthRates
    showcase: Showcase
    page: Page | None
    paying: TicketPaying | None
    discovery: Discovery
    checks: SpotChecks | None
    switchboard: Switchboard
    link_url: str


@asynccontextmanager
async def open_gateway(settings: GatewaySettings, clock: Clock) -> AsyncIterator[Gateway]:
    """Serve until the block is left; then finish what is under way within the configured time.

    Raises ConfigError naming the setting that is wrong, DatabaseError.
    """
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        payer = await enter(open_payer(settings, _VERSION))
        if settings.payments.signer_url:
            account = checksum(payer.maker.address)
            _log.info("remote_signer_pays", url=settings.payments.signer_url, address=account)
        database = await enter(open_gateway_database(settings))
        journal = await enter(open_usage_journal(settings, database))
        interrupted = await journal.close_interrupted(clock.now())
        if interrupted:
            _log.warning("closed_interrupted_requests", count=interrupted)
        call_timeout = settings.routing.call_seconds
        roster = await roster_of(settings)
        switchboard = Switchboard()
        client = await enter(
            open_client(
                payer.account,
                version=_VERSION,
                call_timeout=call_timeout,
                min_version=settings.discovery.min_version,
                may_be_private=roster.may_be_private,
                connect=switchboard.connect,
                check_pixels=settings.images.check_pixels,
            )
        )
        store = await enter(open_images(settings, clock))
        keys = KeyRing(database, clock)
        await keys.refresh()
        randomness = random.Random(secrets.randbits(128))  # noqa: S311 - seeds and jitter, no secrets
        policy = _policy(settings)
        rates = await enter(open_rates(settings, clock))
        max_prices = await max_prices_of(settings)
        payments = await enter(open_payments(settings, payer.maker, clock, roster.payees))
        appraiser = None if payments is None else payments.appraiser
        directory = _directory(settings, client, policy, clock, randomness, appraiser=appraiser)
        supervisor = await enter(supervise(clock))
        link_url = await enter(open_links(settings, payer.account, switchboard, directory, clock))
        paying: TicketPaying | None = None
        allowances = await _allowances(database, journal, clock)
        if payments is not None:
            paying = await payments.begin(client, directory, journal, supervisor)
        routing = _routing(settings, rates, max_prices)
        dispatcher = Dispatcher(
            directory=directory,
            client=client,
            journal=journal,
            budget=Budget(_budget_limits(settings)),
            policy=policy,
            routing=routing,
            clock=clock,
            randomness=randomness,
            paying=paying,
            allowances=allowances,
        )
        memory = settings.data_dir.expanduser() / _MEMORY
        discovery = await enter(
            open_discovery(settings, directory, clock, roster=roster, memory=memory)
        )
        if payments is not None:
            payments.watch.subscribe(discovery.on_head)
        checks = begin_checks(_checking(settings), dispatcher, directory, randomness, supervisor)
        supervisor.start("orchestrators", directory.run)
        supervisor.start("keys", partial(_every, _KEYS_SECONDS, keys.refresh))
        supervisor.start("images", partial(_every, settings.images.sweep_seconds, store.sweep))
        await discovery.first_look(_FIRST_ROUND_SECONDS)
        server = settings.server
        parts = _Parts(
            settings=settings,
            clock=clock,
            randomness=randomness,
            account=payer.maker.address,
            database=database,
            journal=journal,
            keys=keys,
            store=store,
            finisher=await enter(open_finisher()),
            directory=directory,
            dispatcher=dispatcher,
            allowances=allowances,
            admission=Admission(total=server.max_in_flight, per_key=server.max_in_flight_per_key),
            running=RunningRequests(dispatcher.watching),
            eth_rates=rates,
            showcase=Showcase(directory, policy, routing, clock),
            page=await open_page(wanted=settings.page),
            paying=paying,
            discovery=discovery,
            checks=checks,
            switchboard=switchboard,
            link_url=link_url,
        )
        yield await _open_listeners(parts, stack)


async def _allowances(database: Database, journal: Journal, clock: Clock) -> Allowances:
    """What keys and teams spent in this month, as the journal has it."""
    allowances = Allowances()
    spending = await journal.spending(Period.MONTH.begin(clock.now()))
    allowances.restore(spent_before(spending, await list_keys(database)))
    return allowances


async def probe_orchestrators(settings: GatewaySettings) -> list[dict[str, Any]]:
    """Ask the configured orchestrators once, as the gateway would (`/status` has this shape)."""
    clock = SystemClock()
    call_timeout = settings.routing.call_seconds
    roster = await roster_of(settings)
    async with (
        open_payer(settings, _VERSION) as payer,
        open_client(
            payer.account,
            version=_VERSION,
            call_timeout=call_timeout,
            min_version=settings.discovery.min_version,
            may_be_private=roster.may_be_private,
        ) as client,
        supervise(clock) as supervisor,
    ):
        policy = _policy(settings)
        randomness = random.Random(0)  # noqa: S311 - spreads refreshes, of which there is one
        directory = _directory(settings, client, policy, clock, randomness)
        supervisor.start("orchestrators", directory.run)
        async with open_discovery(settings, directory, clock, roster=roster) as discovery:
            await discovery.first_look(_LONGEST_LISTING + 2 * call_timeout)
            return [describe(one) for one in directory.states()]


async def _open_listeners(parts: _Parts, stack: AsyncExitStack) -> Gateway:
    settings, server = parts.settings, parts.settings.server
    metrics = Metrics(_gauges(parts))
    open_listener = partial(
        _listen,
        stack,
        max_connections=server.max_connections,
        keepalive_seconds=server.keepalive_seconds,
        shutdown_seconds=server.shutdown_seconds,
    )
    served = await stack.enter_async_context(open_tls(settings.tls, parts.clock))
    tls = None if served is None else served.context
    _warn_of_exposure(settings, has_tls=tls is not None)
    spans = await stack.enter_async_context(open_spans("limner-gateway", _VERSION, os.environ))
    recent = RecentRequests(parts.clock, partial(_spending, parts))
    watchers = (metrics, recent, *(() if spans is None else (Recorder(spans),)))
    public = Frontend(await _public_router(parts, watchers, stack), watchers)
    url = await open_listener("listen", settings.listen, public, tls=tls)
    address = checksum(parts.account)
    admin_url = ""
    if settings.admin_listen:
        status = partial(
            _status, parts, metrics, url, address, served, started_at=parts.clock.now()
        )
        more = await _operator_routes(parts, recent)
        admin = Frontend(admin_router(metrics, status, more), metrics)
        admin_url = await open_listener("admin_listen", settings.admin_listen, admin, tls=None)
    _log.info(
        "serving",
        url=url,
        admin_url=admin_url,
        address=address,
        orchestrators=len(parts.directory),
        live=len(parts.keys),
        default_model=settings.default_model,
    )
    return Gateway(url, admin_url, address, lambda: parts.admission.in_flight, parts.link_url)


async def _listen(
    stack: AsyncExitStack,
    setting: str,
    where: str,
    frontend: Frontend,
    *,
    tls: ssl.SSLContext | None,
    max_connections: int,
    keepalive_seconds: float,
    shutdown_seconds: float,
) -> str:
    host, _, port = where.rpartition(":")
    listener = listen(
        frontend,
        host=host.strip("[]"),
        port=int(port),
        tls=tls,
        max_connections=max_connections,
        keepalive_seconds=keepalive_seconds,
        shutdown_seconds=shutdown_seconds,
    )
    try:
        return await stack.enter_async_context(listener)
    except OSError as error:
        raise ConfigError(
            setting, f"cannot listen on {where}: {error.strerror or error}"
        ) from error


async def _public_router(
    parts: _Parts, watchers: Sequence[Watcher], stack: AsyncExitStack
) -> Router:
    settings = parts.settings
    bounds = _bounds(settings)
    rates = Rates(parts.clock)
    addresses = Addresses(parts.store, settings.public_url)
    resources = Resources(
        database=parts.database,
        journal=parts.journal,
        images=parts.store,
        addresses=addresses,
        dispatcher=parts.dispatcher,
        admission=parts.admission,
        running=parts.running,
        rates=rates,
        watchers=watchers,
        clock=parts.clock,
        randomness=parts.randomness,
        master=await webhook_secret(settings),
    )
    kept = await stack.enter_async_context(open_kept_answers(settings, resources))
    generation = Generation(
        keys=parts.keys,
        rates=rates,
        admission=parts.admission,
        dispatcher=parts.dispatcher,
        running=parts.running,
        max_body_bytes=settings.limits.max_body_bytes,
        body_timeout_seconds=settings.server.body_timeout_seconds,
        reveal_orchestrator=settings.server.reveal_orchestrator,
        keeping=kept.promising,
    )
    text_to_image = TextToImage(generation, bounds, addresses, parts.finisher)
    openai_images = OpenAiImages(generation, bounds, addresses, parts.finisher, parts.clock)
    await kept.resume(
        parts.keys.grant_of,
        {TEXT_TO_IMAGE: text_to_image.read, OPENAI_IMAGES: openai_images.read},
    )
    contract = document(bounds.of(bounds.default_model), _VERSION, settings.public_url)
    return public_router(
        text_to_image=text_to_image,
        openai_images=openai_images,
        models=Models(
            parts.keys,
            parts.directory.known_models,
            int(parts.clock.now()),
            look=parts.showcase.look,
            bounds=bounds,
            loras={ModelId(model.id): model.loras for model in settings.models},
        ),
        quotes=Quotes(
            keys=parts.keys,
            rates=rates,
            admission=parts.admission,
            bounds=bounds,
            quoting=parts.dispatcher,
            max_body_bytes=settings.limits.max_body_bytes,
            body_timeout_seconds=settings.server.body_timeout_seconds,
        ),
        running_jobs=jobs.Jobs(
            keys=parts.keys, running=parts.running, clock=parts.clock, endings=kept
        ),
        stored_images=images.Images(parts.store),
        contract=contract,
        version=_VERSION,
        own_key=OwnKey(
            keys=parts.keys,
            allowances=parts.allowances,
            rates=parts.eth_rates,
            clock=parts.clock,
        ),
        page=parts.page,
    )


def _spending(parts: _Parts) -> list[dict[str, Any]]:
    grants = parts.keys.grants()
    return describe_spending(spending_of(parts.allowances, grants, parts.clock.now()))


async def _operator_routes(parts: _Parts, recent: RecentRequests) -> Mapping[str, Route]:
    settings = parts.settings
    explanations = Explanations(
        parts.dispatcher,
        _bounds(settings),
        parts.keys.grant_of,
    )
    return operator_routes(explanations, recent, await to_thread(read_page, PAGE))


def _gauges(parts: _Parts) -> Gauges:
    return Gauges(
        in_flight=lambda: parts.admission.in_flight,
        waiting=lambda: parts.dispatcher.waiting,
        live_keys=lambda: len(parts.keys),
        stored_images=lambda: parts.store.count,
        stored_bytes=lambda: parts.store.total_bytes,
        orchestrators=lambda: count_states(parts.directory.states()),
        payments=lambda: {} if parts.paying is None else parts.paying.figures(),
        spot_checks=lambda: {} if parts.checks is None else parts.checks.figures(),
    )


def _status(
    parts: _Parts,
    metrics: Metrics,
    url: str,
    address: str,
    served: ServedCertificate | None,
    *,
    started_at: float,
) -> dict[str, Any]:
    """The body of the admin port's `/status`; wei as text, for they outgrow JSON's numbers."""
    orchestrators = [describe(one) for one in parts.directory.states()]
    return {
        "version": _VERSION,
        "url": url,
        "address": address,
        "uptime_seconds": round(parts.clock.now() - started_at, 1),
        "serving": any(one["state"] == "ready" for one in orchestrators),
        "default_model": parts.settings.default_model,
        "models": list(parts.directory.known_models()),
        "in_flight": parts.admission.in_flight,
        "waiting": parts.dispatcher.waiting,
        "live_keys": len(parts.keys),
        "spent_wei": str(metrics.spent_wei),
        "images": {"count": parts.store.count, "bytes": parts.store.total_bytes},
        "network": parts.settings.chain.network,
        "rate": rate_facts(parts.eth_rates, parts.clock.now()),
        "certificate": None if served is None else served.status(),
        "payments": None if parts.paying is None else parts.paying.status(),
        "spot_checks": None if parts.checks is None else parts.checks.figures(),
        "sources": parts.discovery.describe(),
        "orchestrators": orchestrators,
        "links": parts.switchboard.states(),
    }


def _directory(
    settings: GatewaySettings,
    client: OrchestratorClient,
    policy: Policy,
    clock: Clock,
    randomness: random.Random,
    *,
    appraiser: Appraiser | None = None,
) -> Directory:
    return Directory(
        client=client,
        policy=policy,
        refreshing=Refreshing(interval=settings.routing.refresh_seconds),
        pausing=Pausing(),
        version=_VERSION,
        clock=clock,
        randomness=randomness,
        models=[settings.default_model, *(ModelId(model.id) for model in settings.models)],
        appraiser=appraiser,
        terms=terms_of(settings),
    )


def _policy(settings: GatewaySettings) -> Policy:
    routing = settings.routing
    return Policy(time_value=routing.time_value, max_age=routing.stale_seconds)


def _routing(
    settings: GatewaySettings, rates: EthRates, max_prices: Mapping[str | None, Price]
) -> Routing:
    routing = settings.routing
    return Routing(
        max_price=routing.max_price,
        max_prices=max_prices,
        rates=rates,
        deadline=routing.deadline_seconds,
        attempt_timeout=routing.attempt_seconds,
        max_wait=routing.max_wait_seconds,
        max_waiting=routing.max_waiting,
        max_failures=routing.max_failures,
        retry_share=routing.retry_share,
        retry_spare=routing.retry_spare,
    )


def _checking(settings: GatewaySettings) -> Checking:
    checks = settings.spot_checks
    return Checking(
        share=checks.share,
        wei_per_day=checks.wei_per_day,
        trusted=orchestrator_uri(checks.trusted) if checks.trusted else "",
        least_likeness=checks.least_likeness,
    )


def _budget_limits(settings: GatewaySettings) -> BudgetLimits:
    return BudgetLimits(max_wei_in_flight=settings.payments.max_wei_in_flight)


def _bounds(settings: GatewaySettings) -> Bounds:
    limits = settings.limits.model_dump()
    overrides = {
        ModelId(model.id): Limits(
            **{**limits, **model.model_dump(exclude={"id", "loras"}, exclude_none=True)}
        )
        for model in settings.models
    }
    return Bounds(settings.default_model, Limits(**limits), overrides)


def _warn_of_exposure(settings: GatewaySettings, *, has_tls: bool) -> None:
    if not has_tls and not is_local(settings.listen):
        _log.warning(
            "plain_http_on_a_public_address",
            listen=settings.listen,
            advice="keys travel readable: set [tls], or put a proxy with TLS before the gateway",
        )
    signer = urlsplit(settings.payments.signer_url)
    has_token = bool(settings.payments.signer_token.get_secret_value())
    if signer.scheme == "http" and has_token and not is_local(f"{signer.hostname}:0"):
        _log.warning(
            "signer_token_over_plain_http",
            signer=signer.geturl(),
            advice="the token travels readable: give the signer [tls], and name it by https",
        )
    if settings.admin_listen and not is_local(settings.admin_listen):
        _log.warning(
            "admin_port_on_a_public_address",
            admin_listen=settings.admin_listen,
            advice="it asks nobody for a key: bind it to loopback, or guard it by a firewall",
        )


async def _every(seconds: float, job: Callable[[], Awaitable[object]]) -> None:
    while True:
        await sleep(seconds)
        await job()
