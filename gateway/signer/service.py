"""Settings in, a serving signer out."""

import random
import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from importlib.metadata import version as installed_version
from typing import Final

import structlog
from aiohttp import ClientSession, ClientTimeout, TCPConnector, web

from gateway.api.exposure import is_local, open_tls
from gateway.config import GatewaySettings
from gateway.discovery.opening import open_discovery, roster_of, terms_of
from gateway.orchestrators.client import open_client
from gateway.orchestrators.directory import Directory, Refreshing
from gateway.orchestrators.reach import GuardedResolver
from gateway.orchestrators.selection import Policy
from gateway.orchestrators.standing import Pausing
from gateway.payments.rates import open_rates
from gateway.signer.authorization import Authorization, Everybody, Webhook
from gateway.signer.charging import JobType
from gateway.signer.desk import Outlook, PaymentDesk, PriceCaps
from gateway.signer.http import SignerCalls, signer_application
from gateway.signer.market import Market
from gateway.signer.runners import Runners
from network.errors import ConfigError
from network.identity import Signer, checksum
from network.payments.checks import PayerLimits
from network.prices import EthRates
from network.runtime.clock import Clock
from network.runtime.supervisor import Supervisor, supervise

_log = structlog.get_logger(__name__)

_VERSION: Final = installed_version("limner")
_WEBHOOK_SECONDS: Final = 10.0
#: Prices change by the hour, and a client's own call tells it the true one.
_DISCOVERY_SECONDS: Final = 30.0
_SHUTDOWN_SECONDS: Final = 5.0
#: Beside the gateway's own, which may run on the same data directory.
_MEMORY: Final = "signer-orchestrators.json"


@dataclass(frozen=True, slots=True)
class ServingSigner:
    """Where it is, and whose tickets it makes."""

    url: str
    address: str


def check_exposure(settings: GatewaySettings) -> None:
    """Raise ConfigError where strangers could spend the deposit: a public port that asks nobody."""
    signer = settings.signer
    if is_local(signer.listen) or signer.webhook_url or signer.allow_no_auth:
        return
    raise ConfigError(
        "signer.listen",
        f"{signer.listen} is a public address and nobody is asked who they are: anybody could spend "
        "this account's deposit. Set signer.webhook_url, or signer.allow_no_auth if something before "
        "the port keeps strangers out",
    )


@asynccontextmanager
async def open_signer(
    settings: GatewaySettings, signer: Signer, outlook: Outlook, clock: Clock
) -> AsyncIterator[ServingSigner]:
    """Serve until the block is left. Raises ConfigError naming the setting that is wrong."""
    check_exposure(settings)
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        supervisor = await enter(supervise(clock))
        caps = _caps(settings, await enter(open_rates(settings, clock)))
        desk = PaymentDesk(signer, outlook, clock, limits=PayerLimits(), caps=caps)
        calls = SignerCalls(
            signer,
            await _authorization(settings, clock, stack),
            desk,
            await _market(settings, signer, clock, supervisor, stack, caps=caps),
        )
        url = await _listen(settings, signer_application(calls), stack, clock)
        address = checksum(signer.address)
        _log.info(
            "signer_serving", url=url, address=address, asks=bool(settings.signer.webhook_url)
        )
        yield ServingSigner(url, address)


def _caps(settings: GatewaySettings, rates: EthRates) -> PriceCaps:
    signer = settings.signer
    return PriceCaps(
        signer.max_price, signer.max_price_per_second, signer.max_price_per_call, rates
    )


async def _authorization(
    settings: GatewaySettings, clock: Clock, stack: AsyncExitStack
) -> Authorization:
    signer = settings.signer
    if not signer.webhook_url:
        return Everybody()
    session = ClientSession(timeout=ClientTimeout(total=_WEBHOOK_SECONDS))
    await stack.enter_async_context(session)
    return Webhook(session, signer.webhook_url, clock, signer.webhook_secret.get_secret_value())


async def _market(
    settings: GatewaySettings,
    signer: Signer,
    clock: Clock,
    supervisor: Supervisor,
    stack: AsyncExitStack,
    *,
    caps: PriceCaps,
) -> Market:
    """The orchestrators that the gateway would buy from, kept fresh as the gateway keeps them."""
    routing = settings.routing
    roster = await roster_of(settings)
    client = await stack.enter_async_context(
        open_client(
            signer,
            version=_VERSION,
            call_timeout=routing.call_seconds,
            min_version=settings.discovery.min_version,
            may_be_private=roster.may_be_private,
        )
    )
    directory = Directory(
        client=client,
        policy=Policy(max_age=routing.stale_seconds),
        refreshing=Refreshing(interval=_DISCOVERY_SECONDS),
        pausing=Pausing(),
        version=_VERSION,
        clock=clock,
        randomness=random.Random(secrets.randbits(128)),  # noqa: S311 - jitter, no secrets
        models=[settings.default_model],
        terms=terms_of(settings),
    )
    # Certificates are verified here, unlike at GetOrchestrator: runners are called by clients that do.
    session = await stack.enter_async_context(
        ClientSession(connector=TCPConnector(resolver=GuardedResolver(roster.may_be_private)))
    )
    max_age = _DISCOVERY_SECONDS * 2 + routing.stale_seconds
    runners = Runners(session, directory.uris, clock, interval=_DISCOVERY_SECONDS, max_age=max_age)
    supervisor.start("orchestrators", directory.run)
    await stack.enter_async_context(
        open_discovery(
            settings,
            directory,
            clock,
            roster=roster,
            memory=settings.data_dir.expanduser() / _MEMORY,
        )
    )
    supervisor.start("runners", runners.run)
    return Market(
        directory.states,
        runners.of,
        max_age=max_age,
        max_price=lambda: caps.of(JobType.PIXELS),
    )


async def _listen(
    settings: GatewaySettings, application: web.Application, stack: AsyncExitStack, clock: Clock
) -> str:
    where = settings.signer.listen
    host, _, port = where.rpartition(":")
    served = await stack.enter_async_context(open_tls(settings.tls, clock))
    tls = None if served is None else served.context
    if tls is None and not is_local(where):
        _log.warning("plain_http_on_a_public_address", listen=where, advice="set [tls]")
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=_SHUTDOWN_SECONDS)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    site = web.TCPSite(runner, host.strip("[]"), int(port), ssl_context=tls)
    try:
        await site.start()
    except OSError as error:
        raise ConfigError(
            "signer.listen", f"cannot listen on {where}: {error.strerror or error}"
        ) from error
    scheme = "http" if tls is None else "https"
    return f"{scheme}://{host}:{runner.addresses[0][1]}"
