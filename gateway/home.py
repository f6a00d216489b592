"""The gateway's own folder: its account, its database, its write-ahead log, its images."""

import secrets
from asyncio import to_thread
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import structlog

from gateway.accounting.journal import MIGRATIONS, Journal, open_journal
from gateway.config import GatewaySettings
from gateway.orchestrators.client import KeylessAccount
from gateway.payments.payer import TicketMaker
from gateway.payments.remote_signer import RemoteSigner, signer_session
from gateway.payments.sender import TicketSender
from gateway.promises.signing import MASTER_BYTES
from gateway.storage.disk import open_disk_store
from gateway.storage.store import ImageStore
from network.chain.contracts import LivepeerChain, open_chain
from network.chain.profiles import endpoints_of, profile_of
from network.chain.settings import OFFCHAIN
from network.errors import ConfigError, LimnerError
from network.identity import KeySigner, Signer
from network.keystore import load_or_create
from network.passphrase import find_passphrase
from network.runtime.clock import Clock
from network.runtime.database import Database, open_database
from network.runtime.secret_file import is_open_to_others, write_secret

_log = structlog.get_logger(__name__)

_IMAGES: Final = "images"
_WEBHOOKS: Final = "webhook.secret"
_WRITE_AHEAD: Final = "journal.ahead"
_DATABASE: Final = "gateway.sqlite3"


async def open_identity(settings: GatewaySettings) -> KeySigner:
    """The gateway's own account, made at first use. Raises ConfigError, also where its key is elsewhere."""
    if settings.payments.signer_url:
        # A key made here would be another account than the one that pays: money sent to it is missed.
        raise ConfigError(
            "payments.signer_url",
            "the key of this gateway's account is at its signer; run this there, with settings that "
            "name no signer_url",
        )
    data_dir = await to_thread(_make_data_dir, settings)
    passphrase = await to_thread(find_passphrase, settings.passphrase_sources)
    return await load_or_create(data_dir, passphrase)


@dataclass(frozen=True, slots=True)
class Payer:
    """Whose account the gateway buys with, and who makes its tickets."""

    account: Signer | KeylessAccount
    maker: TicketMaker


@asynccontextmanager
async def open_payer(settings: GatewaySettings, version: str) -> AsyncIterator[Payer]:
    """The key in the data directory, or the signer of the settings; then nothing is read or made there.

    `version` is what jobs ask for in their capabilities. Raises ConfigError.
    """
    url = settings.payments.signer_url
    if not url:
        signer = await open_identity(settings)
        yield Payer(signer, TicketSender(signer))
        return
    _check_signer(settings)
    await to_thread(_make_data_dir, settings)
    token = settings.payments.signer_token.get_secret_value()
    async with signer_session(token) as session:
        try:
            remote = await RemoteSigner.open(session, url, version)
        except LimnerError as error:
            raise ConfigError("payments.signer_url", f"no account from {url}: {error}") from error
        yield Payer(KeylessAccount(remote.address, remote.session_signature), remote)


def _check_signer(settings: GatewaySettings) -> None:
    """Raise ConfigError for a signer that could not be used; secrets do not show."""
    url = urlsplit(settings.payments.signer_url)
    token = settings.payments.signer_token.get_secret_value()
    if settings.chain.network == OFFCHAIN:
        raise ConfigError(
            "payments.signer_url",
            "there is nothing to sign off-chain; set chain.network, or leave signer_url empty",
        )
    if "@" in url.netloc or url.query or url.fragment:
        raise ConfigError(
            "payments.signer_url",
            "is an address only, as https://signer.example:8938; what proves the gateway to it goes "
            "into payments.signer_token",
        )
    if not (token.isascii() and token.isprintable()) or " " in token:
        raise ConfigError("payments.signer_token", "has characters that no header can carry")


@asynccontextmanager
async def open_gateway_chain(
    settings: GatewaySettings, clock: Clock
) -> AsyncIterator[LivepeerChain]:
    """The chain of the settings. Raises ConfigError, also where there is none, WrongChainError."""
    profile = await to_thread(profile_of, settings.chain.network)
    if profile is None:
        raise ConfigError(
            "chain.network",
            "this gateway is off-chain; name a network, for example "
            "LIMNER_GATEWAY__CHAIN__NETWORK=arbitrum-one, or the network.json of a devnet",
        )
    urls = endpoints_of(settings.chain, profile)
    timeout = settings.chain.timeout_seconds
    async with open_chain(profile, urls, clock, timeout_seconds=timeout) as chain:
        yield chain


@asynccontextmanager
async def open_gateway_database(settings: GatewaySettings) -> AsyncIterator[Database]:
    """The journal and the keys, migrated; a second process may open them beside the gateway."""
    accounting = settings.accounting
    url = accounting.database_url
    if not url:
        await to_thread(_make_data_dir, settings)
        url = f"sqlite:///{database_file(settings)}"
    async with open_database(url, MIGRATIONS, synchronous=accounting.synchronous) as database:
        yield database


def database_file(settings: GatewaySettings) -> Path:
    """Where the database is that no URL names."""
    return _data_dir(settings) / _DATABASE


def images_folder(settings: GatewaySettings) -> Path:
    """Where the image store is."""
    return _data_dir(settings) / _IMAGES


def open_usage_journal(
    settings: GatewaySettings, database: Database
) -> AbstractAsyncContextManager[Journal]:
    """The journal over the gateway's database; one process at a time."""
    file = _data_dir(settings) / _WRITE_AHEAD
    is_synced = settings.accounting.synchronous in {"FULL", "EXTRA"}
    return open_journal(database, file, is_synced=is_synced)


async def webhook_secret(settings: GatewaySettings) -> bytes:
    """From which the secrets of webhooks are made; drawn at first use. Raises ConfigError."""
    data_dir = await to_thread(_make_data_dir, settings)
    return await to_thread(_drawn_secret, data_dir / _WEBHOOKS)


@asynccontextmanager
async def open_images(settings: GatewaySettings, clock: Clock) -> AsyncIterator[ImageStore]:
    """The image store: on this machine's disk, or the bucket of the settings. Raises ConfigError."""
    bounds = settings.images
    async with AsyncExitStack() as stack:
        if bounds.store:
            opening = await to_thread(_bucket_store, settings, clock)
            try:
                store = await stack.enter_async_context(opening)
            except ValueError as error:
                raise ConfigError("images.store", str(error)) from error
            yield store
            return
        yield await stack.enter_async_context(
            open_disk_store(
                images_folder(settings),
                lifetime=bounds.lifetime_seconds,
                max_bytes=bounds.max_bytes,
                max_count=bounds.max_count,
                clock=clock,
            )
        )


def _bucket_store(
    settings: GatewaySettings, clock: Clock
) -> AbstractAsyncContextManager[ImageStore]:
    bounds = settings.images
    try:
        from gateway.storage.s3 import Bucket, open_s3_store  # noqa: PLC0415  an extra
    except ImportError:
        raise ConfigError(
            "images.store", "buckets need an extra: pip install 'limner[s3]'"
        ) from None
    try:
        secret = bounds.secret_access_key.get_secret_value()
        bucket = Bucket.of(bounds.store).opened(bounds.access_key_id, secret)
    except ValueError as error:
        raise ConfigError("images.store", str(error)) from error
    return open_s3_store(
        bucket,
        lifetime=bounds.lifetime_seconds,
        max_bytes=bounds.max_bytes,
        max_count=bounds.max_count,
        clock=clock,
        urls=bounds.urls,
    )


def _drawn_secret(file: Path) -> bytes:
    try:
        if not file.exists():
            with suppress(FileExistsError):  # two programs may start at once
                write_secret(file, secrets.token_bytes(MASTER_BYTES))
        if is_open_to_others(file):
            _log.warning("webhook_secret_is_open_to_others", path=str(file), advice="chmod 600")
        secret = file.read_bytes()
    except OSError as error:
        raise ConfigError("data_dir", f"cannot use {file}: {error.strerror}") from error
    if len(secret) != MASTER_BYTES:
        raise ConfigError(
            "data_dir",
            f"{file} is not {MASTER_BYTES} bytes long; without it a new one is made, and receivers "
            "of webhooks need their new secrets",
        )
    return secret


def _data_dir(settings: GatewaySettings) -> Path:
    return settings.data_dir.expanduser()


def _make_data_dir(settings: GatewaySettings) -> Path:
    """The data directory, ours alone. Raises ConfigError when it cannot be had."""
    data_dir = _data_dir(settings)
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        (data_dir / _IMAGES).mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise ConfigError("data_dir", f"cannot use {data_dir}: {error.strerror}") from error
    if data_dir.stat().st_mode & 0o077:
        _log.warning("data_dir_is_open_to_others", path=str(data_dir), advice="chmod 700")
    return data_dir
