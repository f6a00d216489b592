"""Puts together what registers, lists and calls apps of others."""

import asyncio
import re
import secrets
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from fractions import Fraction
from ipaddress import ip_address
from pathlib import Path
from typing import Final

import structlog

from network.errors import ConfigError
from network.runtime.clock import Clock
from network.runtime.secret_file import is_open_to_others
from network.runtime.supervisor import Supervisor
from network.units import Wei
from node.api.runner_sessions import SessionService
from node.api.runners import RunnerService
from node.apps.addresses import Endpoint, Reach
from node.apps.calls import AppCalls
from node.apps.registered import RegisteredApps
from node.apps.registry import Registry
from node.apps.reserving import Reservations
from node.apps.upstream import open_upstream
from node.config.settings import RunnerSettings, is_wildcard

_MOST_SECRET: Final = 256
#: As in the settings.
_SECRET: Final = re.compile(r"[!-~]{16,256}")

log = structlog.get_logger(__name__)


@asynccontextmanager
async def open_runners(
    settings: RunnerSettings,
    calls: AppCalls,
    supervisor: Supervisor,
    clock: Clock,
    *,
    service_uri: str,
    own: Collection[Endpoint],
    is_taken: Callable[[str, str], bool],
    usd_per_eth: Callable[[], Fraction | None],
    unpayable: Callable[[Wei], str] | None,
    sessions: bool,
    max_body_bytes: int,
    body_timeout: float,
) -> AsyncIterator[RunnerService | None]:
    """Let apps of others register for the length of the block; None where the settings do not.

    `own` are the node's own ports; `is_taken` is as at `Registry`, `unpayable` as at
    `terms`. `sessions`: anybody may have them free. Raises ConfigError.
    """
    secret = settings.secret
    if settings.secret_file is not None:
        secret = await asyncio.to_thread(_read_secret, settings.secret_file)
    if not secret:
        yield None
        return
    try:
        reach = Reach.of(settings.allow, own)
    except ValueError as error:
        raise ConfigError("runners.allow", str(error)) from None
    registry = Registry(
        secret, most=settings.max_runners, is_taken=is_taken, draw=secrets.token_hex
    )
    async with open_upstream(reach, settings.call_seconds) as upstream:
        apps = RegisteredApps(
            registry, calls, upstream, clock, usd_per_eth, unpayable, sessions=sessions
        )
        service = RunnerService(registry, apps, reach, clock, service_uri, body_timeout)
        if sessions:
            reservations = Reservations(calls, supervisor, clock, settings.session_idle_seconds)
            service.sessions = SessionService(
                apps, reservations, service_uri, max_body_bytes, body_timeout
            )
        supervisor.start("runners", service.watch)
        yield service


def endpoint_of(host: str, port: int) -> Endpoint:
    """Return one of our own ports, of which `host` is what is listened on."""
    if is_wildcard(host):
        return Endpoint(None, port)
    try:
        return Endpoint(ip_address(host), port)
    except ValueError:
        return Endpoint(ip_address("127.0.0.1") if host == "localhost" else None, port)


def _read_secret(path: Path) -> str:
    try:
        with path.open("rb") as file:
            text = file.read(_MOST_SECRET + 2).decode().strip()
        is_open = is_open_to_others(path)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError("runners.secret_file", f"cannot read {path}: {error}") from None
    if not _SECRET.fullmatch(text):
        raise ConfigError(
            "runners.secret_file",
            f"{path} must hold one line of 16 to {_MOST_SECRET} ASCII characters, without spaces",
        )
    if is_open:
        log.warning("others can read the secret that apps register with", file=str(path))
    return text
