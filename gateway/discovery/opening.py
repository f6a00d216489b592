"""The sources that the settings name, and all that follows from what they list."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final

import structlog
from aiohttp import ClientSession, DummyCookieJar

from gateway.config import GatewaySettings
from gateway.discovery.addresses import orchestrator_uri
from gateway.discovery.following import Follower, Following
from gateway.discovery.listing import SETTINGS, Admitted, Claim, Roster, Rules, admit
from gateway.discovery.memory import NOTHING, Memory
from gateway.discovery.onchain import OnChain
from gateway.discovery.sources import RemoteDiscovery, Webhook
from gateway.orchestrators.directory import Directory
from gateway.orchestrators.terms import Terms
from network.chain.contracts import open_chain
from network.chain.model import Head, WrongChainError
from network.chain.profiles import ARBITRUM_ONE, Profile, endpoints_of, profile_of
from network.chain.settings import OFFCHAIN
from network.errors import ConfigError
from network.identity import parse_address
from network.prices import Price, parse_capability_prices
from network.runtime.clock import Clock
from network.runtime.supervisor import Supervisor, supervise
from network.units import ModelId

_log = structlog.get_logger(__name__)

WEBHOOK: Final = "webhook"
SIGNER: Final = "signer"
CHAIN: Final = "chain"
_MAX_PRICES: Final = "routing.max_price_per_capability"
_LARGEST_PRICES: Final = 2**20
#: Seconds between two writings of what is known.
_REMEMBER_SECONDS: Final = 30.0


class Discovery:
    """Made by `open_discovery`; runs in the background until that block is left."""

    def __init__(
        self,
        directory: Directory,
        followers: Sequence[Follower],
        memory: Memory | None,
        roster: Roster,
        clock: Clock,
    ) -> None:
        self._directory = directory
        self._followers = followers
        self._memory = memory
        self._roster = roster
        self._clock = clock
        self._round = 0

    async def begin(self, supervisor: Supervisor) -> None:
        """Take up what an earlier process knew, and read the sources from now on."""
        clock = self._clock
        known = NOTHING
        if self._memory is not None:
            known = await self._memory.load(clock.now(), clock.monotonic())
        self._directory.remember(known.offers)
        self._directory.list_from(SETTINGS, self._roster.of(SETTINGS).accounts.keys())
        for follower in self._followers:
            follower.recall(known.lists.get(follower.following.key, ()))
            supervisor.start(f"list of the {follower.following.name}", follower.run)
        if self._memory is not None:
            supervisor.start("remembered orchestrators", self._keep_remembering)

    async def first_look(self, seconds: float) -> None:
        """Return when everybody who is listed was asked once, at once if earlier answers are known."""
        if self._directory.known_models():
            return
        began = self._clock.monotonic()
        looks = [follower.first_look() for follower in self._followers]
        try:
            async with asyncio.timeout(seconds):
                await asyncio.gather(*looks)
        except TimeoutError:
            _log.warning("orchestrators_not_listed_yet", waited=seconds)
        left = seconds - (self._clock.monotonic() - began)
        await self._directory.first_round(max(left, 0.0))

    def on_head(self, head: Head) -> None:
        """A subscriber of the chain: with a round the pool changes."""
        if self._round not in {0, head.last_initialized_round}:
            for follower in self._followers:
                if follower.following.name == CHAIN:
                    follower.hurry()
        self._round = head.last_initialized_round

    def describe(self) -> list[dict[str, Any]]:
        """For the operator's `/status`, one entry for each source."""
        stated = self._roster.of(SETTINGS)
        told = {"source": SETTINGS, "listed": len(stated.accounts), "age_seconds": None}
        told |= {"problem": "", "skipped_count": stated.skipped_count}
        told["skipped"] = [{"entry": one.text, "reason": one.why} for one in stated.skipped]
        return [told, *(follower.describe() for follower in self._followers)]

    async def remember(self) -> None:
        """Write down what is known now."""
        if self._memory is not None:
            clock = self._clock
            lists = {one.following.key: one.admitted for one in self._followers}
            offers = self._directory.snapshot()
            await self._memory.save(lists, offers, clock.now(), clock.monotonic())

    async def _keep_remembering(self) -> None:
        while True:
            await asyncio.sleep(_REMEMBER_SECONDS)
            await self.remember()


@asynccontextmanager
async def open_discovery(
    settings: GatewaySettings,
    directory: Directory,
    clock: Clock,
    *,
    roster: Roster,
    memory: Path | None = None,
) -> AsyncIterator[Discovery]:
    """Fill `directory` from every source of the settings until the block is left.

    `roster` is told whom tickets may pay where; `memory` is the file that outlives the process, None
    for a look that leaves no trace. Raises ConfigError naming the setting that is wrong.
    """
    rules = rules_of(settings)
    claims = [
        Claim(
            _written("orchestrators", one.uri), parse_address(one.address) if one.address else None
        )
        for one in settings.orchestrators
    ]
    roster.update(SETTINGS, admit(claims, rules, allow_private=True))

    def tell(source: str, admitted: Admitted) -> None:
        # In this order: nobody is to be paid before it is known who may be.
        roster.update(source, admitted)
        directory.list_from(source, admitted.accounts.keys(), are_strangers=True)

    async with AsyncExitStack() as stack:
        followers = [
            Follower(following, rules, clock, tell)
            for following in await _followings(settings, clock, stack)
        ]
        store = None if memory is None else Memory(memory)
        discovery = Discovery(directory, followers, store, roster, clock)
        # Entered last: nothing may be read any more when the sources' connections close.
        await discovery.begin(await stack.enter_async_context(supervise(clock)))
        try:
            yield discovery
        finally:
            await discovery.remember()


async def roster_of(settings: GatewaySettings) -> Roster:
    """An empty one, that knows which sources are strangers'. Raises ConfigError."""
    profile = None
    if CHAIN in source_names(settings):
        profile = await asyncio.to_thread(profile_of, settings.chain.network)
    if profile is None or _allows_private(settings, profile):
        return Roster()
    return Roster({CHAIN})


def rules_of(settings: GatewaySettings) -> Rules:
    """The blocklist of the settings. Raises ConfigError."""
    blocked = settings.discovery.blocked_uris
    uris = frozenset(_written("discovery.blocked_uris", text) for text in blocked)
    return Rules(terms_of(settings).blocked, uris)


def terms_of(settings: GatewaySettings) -> Terms:
    """What the directory holds against what orchestrators say of themselves."""
    listed = settings.discovery
    blocked = frozenset(parse_address(account) for account in listed.blocked_accounts)
    return Terms(blocked, listed.min_version)


async def max_prices_of(settings: GatewaySettings) -> Mapping[str | None, Price]:
    """`routing.max_price_per_capability`, a text or a file, by model. Raises ConfigError."""
    stated = settings.routing.max_price_per_capability
    if not stated:
        return {}
    try:
        text = stated
        if not stated.lstrip().startswith("{"):
            text = await asyncio.to_thread(_read_text, stated)
        return parse_capability_prices(text)
    except OSError as error:
        problem = f"cannot read {stated[:200]!r}: {error.strerror or error}"
        raise ConfigError(_MAX_PRICES, problem) from error
    except ValueError as error:
        raise ConfigError(_MAX_PRICES, str(error)) from error


def source_names(settings: GatewaySettings) -> tuple[str, ...]:
    """Which sources are read besides `[[orchestrators]]`.

    What is named is read. Where nothing is, a signer that pays also discovers, and without one the chain
    does, as with Livepeer's gateways.
    """
    listed, names = settings.discovery, []
    if listed.webhook_url.get_secret_value():
        names.append(WEBHOOK)
    is_silent = not (names or settings.orchestrators)
    is_signer_asked = is_silent and bool(settings.payments.signer_url) and not listed.chain
    if listed.remote_url or is_signer_asked:
        names.append(SIGNER)
    is_chain_asked = is_silent and not names and settings.chain.network != OFFCHAIN
    if is_chain_asked if listed.chain is None else listed.chain:
        names.append(CHAIN)
    return tuple(names)


async def _followings(
    settings: GatewaySettings, clock: Clock, stack: AsyncExitStack
) -> list[Following]:
    listed, names = settings.discovery, source_names(settings)
    found: list[Following] = []
    session = await stack.enter_async_context(ClientSession(cookie_jar=DummyCookieJar()))
    if WEBHOOK in names:
        url = listed.webhook_url.get_secret_value()
        webhook = Webhook(session, url)
        found.append(Following(WEBHOOK, webhook, listed.webhook_seconds, _fingerprint(url)))
    if SIGNER in names:
        url = listed.remote_url or settings.payments.signer_url
        token = listed.remote_token if listed.remote_url else settings.payments.signer_token
        models = dict.fromkeys(
            [settings.default_model, *(ModelId(model.id) for model in settings.models)]
        )
        remote = RemoteDiscovery(session, url, tuple(models), token.get_secret_value())
        found.append(Following(SIGNER, remote, listed.remote_seconds, _fingerprint(url)))
    if CHAIN in names:
        found.append(await _chain(settings, clock, stack))
    return found


async def _chain(settings: GatewaySettings, clock: Clock, stack: AsyncExitStack) -> Following:
    """Over a connection of its own: a long list must not hold up what payments ask."""
    chain, listed = settings.chain, settings.discovery
    profile = await asyncio.to_thread(profile_of, chain.network)
    if profile is None:
        raise ConfigError("discovery.chain", "there is no chain to ask; set chain.network")
    opened = open_chain(
        profile, endpoints_of(chain, profile), clock, timeout_seconds=chain.timeout_seconds
    )
    try:
        contracts = await stack.enter_async_context(opened)
    except WrongChainError as error:
        raise ConfigError("chain.rpc", str(error)) from error
    allow_private = _allows_private(settings, profile)
    source = OnChain(contracts, allow_private=allow_private)
    return Following(
        CHAIN,
        source,
        listed.chain_seconds,
        _fingerprint(f"{profile.chain_id} {profile.controller.hex()}"),
        allow_private=allow_private,
    )


def _allows_private(settings: GatewaySettings, profile: Profile) -> bool:
    """Whether what is registered may lead into private networks: on a chain of one's own it must."""
    allowed = settings.discovery.allow_private
    return profile.chain_id != ARBITRUM_ONE.chain_id if allowed is None else allowed


def _written(setting: str, text: str) -> str:
    """An address of the settings. Raises ConfigError."""
    try:
        return orchestrator_uri(text)
    except ValueError as error:
        raise ConfigError(
            setting, f"{text[:200]!r} is no orchestrator's address: {error}"
        ) from None


def _fingerprint(text: str) -> str:
    """Tells one URL from another without telling it: it may hold credentials."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _read_text(name: str) -> str:
    with Path(name).expanduser().open("rb") as file:
        content = file.read(_LARGEST_PRICES + 1)
    if len(content) > _LARGEST_PRICES:
        raise ValueError(f"{name} is longer than {_LARGEST_PRICES} bytes")
    return content.decode()
