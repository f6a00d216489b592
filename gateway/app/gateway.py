"""The composition root: settings in, a serving gateway out."""

import os
import random
import secrets
import ssl
from asyncio import sleep, to_thread
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Final
from urllib.parse import urlsplit

import structlog

from gateway.access.opening import open_access
from gateway.accounting.journal import Journal
from gateway.api.admin import admin_router
from gateway.api.admission import Admission
from gateway.api.exposure import is_local, open_tls
from gateway.api.finishing import available_formats, open_finisher
from gateway.api.frontend import Frontend
from gateway.api.listener import listen
from gateway.api.metrics import Metrics
from gateway.api.operator import RecentRequests
from gateway.api.page import open_page
from gateway.api.running import RunningRequests
from gateway.api.spans import Recorder
from gateway.api.status import describe
from gateway.app.operator import gauges_of, operator_routes_of, spending_now, status_of
from gateway.app.parts import VERSION, Parts
from gateway.app.public import open_public
from gateway.app.terms import (
    budget_limits_of,
    checking_of,
    hedging_of,
    new_directory,
    policy_of,
    routing_of,
)
from gateway.config import GatewaySettings
from gateway.discovery.opening import (
    Discovery,
    max_prices_of,
    open_discovery,
    roster_of,
)
from gateway.dispatch import Dispatcher, Showcase
from gateway.dispatch.allowing import spent_before
from gateway.dispatch.opening import open_payments
from gateway.dispatch.paying import TicketPaying
from gateway.dispatch.spot_checks import SpotChecks
from gateway.dispatch.spot_checks import begin as begin_checks
from gateway.home import (
    Payer,
    open_gateway_database,
    open_images,
    open_payer,
    open_usage_journal,
    webhook_secret,
)
from gateway.keys import KeyRing, list_keys
from gateway.link.opening import open_links
from gateway.link.switchboard import Switchboard
from gateway.orchestrators.client import open_client
from gateway.orchestrators.directory import Directory
from gateway.payments.allowance import Allowances, Period
from gateway.payments.budget import Budget
from gateway.payments.rates import open_rates
from gateway.promises.interrupted import Interrupted
from gateway.repeats.opening import open_repeats
from network.errors import ConfigError
from network.identity import checksum
from network.prices import EthRates
from network.runtime.clock import Clock, SystemClock
from network.runtime.database import Database
from network.runtime.spans import open_spans
from network.runtime.supervisor import supervise
from network.units import Address

_log = structlog.get_logger(__name__)

#: How long a start waits for orchestrators that do not answer.
_FIRST_ROUND_SECONDS: Final = 3.0
#: How long a look without a gateway waits for its sources.
_LONGEST_LISTING: Final = 10.0
_MEMORY: Final = "orchestrators.json"
_RATES: Final = "rates.json"
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
class _Buying:
    """What carries requests to orchestrators. `paying` and `checks` None: switched off."""

    account: Address
    directory: Directory
    dispatcher: Dispatcher
    discovery: Discovery
    showcase: Showcase
    allowances: Allowances
    switchboard: Switchboard
    link_url: str
    paying: TicketPaying | None
    checks: SpotChecks | None


@asynccontextmanager
async def open_gateway(settings: GatewaySettings, clock: Clock) -> AsyncIterator[Gateway]:
    """Serve until the block is left; then finish what is under way within the configured time.

    Raises ConfigError naming the setting that is wrong, DatabaseError.
    """
    async with AsyncExitStack() as stack:
        yield await _open_listeners(await _open_parts(stack, settings, clock), stack)


async def _open_parts(stack: AsyncExitStack, settings: GatewaySettings, clock: Clock) -> Parts:
    enter = stack.enter_async_context
    payer = await enter(open_payer(settings, VERSION))
    database = await enter(open_gateway_database(settings))
    journal = await enter(open_usage_journal(settings, database))
    now = clock.now()
    resumable_since = now - settings.jobs.recover_seconds
    closed = await journal.close_interrupted(now, resumable_since=resumable_since)
    if closed:
        _log.warning("closed_interrupted_requests", count=closed)
    interrupted = Interrupted(await journal.resumable(), journal, clock)
    store = await enter(open_images(settings, clock))
    keys = KeyRing(database, clock)
    await keys.refresh()
    access = await enter(open_access(settings, keys, clock, await webhook_secret(settings)))
    randomness = random.Random(secrets.randbits(128))  # noqa: S311 - seeds and jitter, no secrets
    rates = await enter(
        open_rates(
            settings,
            clock,
            memory=settings.data_dir.expanduser() / _RATES,
            is_needed=keys.have_dollars,
        )
    )
    # Opened last and left first: what it runs in the background uses all of the above.
    buying = await _open_buying(
        stack,
        settings,
        clock,
        payer=payer,
        database=database,
        journal=journal,
        rates=rates,
        randomness=randomness,
        background={
            "keys": partial(_every, _KEYS_SECONDS, keys.refresh),
            "images": partial(_every, settings.images.sweep_seconds, store.sweep),
        },
    )
    server = settings.server
    repeats = await enter(
        open_repeats(
            settings,
            buying.dispatcher,
            journal=journal,
            allowances=buying.allowances,
            images=store,
            clock=clock,
        )
    )
    watching = buying.dispatcher.watching if repeats is None else repeats.watching
    if buying.checks is not None and repeats is not None:
        buying.checks.accuser = repeats.dispatcher.distrust
    return Parts(
        settings=settings,
        clock=clock,
        randomness=randomness,
        account=buying.account,
        database=database,
        journal=journal,
        interrupted=interrupted,
        keys=keys,
        access=access,
        store=store,
        finisher=await stack.enter_async_context(open_finisher()),
        directory=buying.directory,
        dispatcher=buying.dispatcher,
        allowances=buying.allowances,
        admission=Admission(total=server.max_in_flight, per_key=server.max_in_flight_per_key),
        running=RunningRequests(watching),
        eth_rates=rates,
        showcase=buying.showcase,
        page=await open_page(
            wanted=settings.page,
            keyless=access.is_open,
            formats=await to_thread(available_formats),
        ),
        paying=buying.paying,
        discovery=buying.discovery,
        checks=buying.checks,
        repeats=repeats,
        switchboard=buying.switchboard,
        link_url=buying.link_url,
    )


async def _open_buying(
    stack: AsyncExitStack,
    settings: GatewaySettings,
    clock: Clock,
    *,
    payer: Payer,
    database: Database,
    journal: Journal,
    rates: EthRates,
    randomness: random.Random,
    background: Mapping[str, Callable[[], Awaitable[object]]],
) -> _Buying:
    """Know orchestrators, and how to pay them; `background` is run beside what keeps that fresh."""
    enter = stack.enter_async_context
    if settings.payments.signer_url:
        account = checksum(payer.maker.address)
        _log.info("remote_signer_pays", url=settings.payments.signer_url, address=account)
    roster = await roster_of(settings)
    switchboard = Switchboard()
    client = await enter(
        open_client(
            payer.account,
            version=VERSION,
            call_timeout=settings.routing.call_seconds,
            min_version=settings.discovery.min_version,
            may_be_private=roster.may_be_private,
            connect=switchboard.connect,
            check_pixels=settings.images.check_pixels,
        )
    )
    policy = policy_of(settings)
    routing = routing_of(settings, rates, await max_prices_of(settings))
    payments = await enter(open_payments(settings, payer.maker, clock, roster.payees))
    appraiser = None if payments is None else payments.appraiser
    directory = new_directory(settings, client, policy, clock, randomness, appraiser=appraiser)
    supervisor = await enter(supervise(clock))
    link_url = await enter(open_links(settings, payer.account, switchboard, directory, clock))
    allowances = await _allowances(database, journal, clock)
    paying: TicketPaying | None = None
    if payments is not None:
        paying = await payments.begin(client, directory, journal, supervisor)
    dispatcher = Dispatcher(
        directory=directory,
        client=client,
        journal=journal,
        budget=Budget(budget_limits_of(settings)),
        policy=policy,
        routing=routing,
        clock=clock,
        randomness=randomness,
        paying=paying,
        allowances=allowances,
        hedging=hedging_of(settings),
    )
    memory = settings.data_dir.expanduser() / _MEMORY
    discovery = await enter(
        open_discovery(settings, directory, clock, roster=roster, memory=memory)
    )
    if payments is not None:
        payments.watch.subscribe(discovery.on_head)
    checks = begin_checks(checking_of(settings), dispatcher, directory, randomness, supervisor)
    for name, job in {"orchestrators": directory.run, **background}.items():
        supervisor.start(name, job)
    await discovery.first_look(_FIRST_ROUND_SECONDS)
    return _Buying(
        account=payer.maker.address,
        directory=directory,
        dispatcher=dispatcher,
        discovery=discovery,
        showcase=Showcase(directory, policy, routing, clock),
        allowances=allowances,
        switchboard=switchboard,
        link_url=link_url,
        paying=paying,
        checks=checks,
    )


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
        open_payer(settings, VERSION) as payer,
        open_client(
            payer.account,
            version=VERSION,
            call_timeout=call_timeout,
            min_version=settings.discovery.min_version,
            may_be_private=roster.may_be_private,
        ) as client,
        supervise(clock) as supervisor,
    ):
        policy = policy_of(settings)
        randomness = random.Random(0)  # noqa: S311 - spreads refreshes, of which there is one
        directory = new_directory(settings, client, policy, clock, randomness)
        supervisor.start("orchestrators", directory.run)
        async with open_discovery(settings, directory, clock, roster=roster) as discovery:
            await discovery.first_look(_LONGEST_LISTING + 2 * call_timeout)
            return [describe(one) for one in directory.states()]


async def _open_listeners(parts: Parts, stack: AsyncExitStack) -> Gateway:
    settings, server = parts.settings, parts.settings.server
    metrics = Metrics(gauges_of(parts))
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
    spans = await stack.enter_async_context(open_spans("limner-gateway", VERSION, os.environ))
    recent = RecentRequests(parts.clock, partial(spending_now, parts))
    watchers = (metrics, recent, *(() if spans is None else (Recorder(spans),)))
    public = Frontend(await open_public(parts, watchers, stack), watchers)
    url = await open_listener("listen", settings.listen, public, tls=tls)
    address = checksum(parts.account)
    admin_url = ""
    if settings.admin_listen:
        status = partial(
            status_of, parts, metrics, url, address, served, started_at=parts.clock.now()
        )
        more = await operator_routes_of(parts, recent)
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
    service = urlsplit(settings.auth_webhook.url.get_secret_value())
    if service.scheme == "http" and not is_local(f"{service.hostname}:0"):
        _log.warning(
            "clients_keys_over_plain_http",
            host=service.hostname,
            advice="auth_webhook.url is told every key it is asked about: name it by https",
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
