"""Live runners behind the orchestrators (Livepeer wire, section 7.2), for the clients that call them."""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp
import orjson
import structlog

from network.runtime.clock import Clock

_log = structlog.get_logger(__name__)

_OK: Final = 200
_CALL_SECONDS: Final = 2.0
_LARGEST_LIST: Final = 2**20
_MOST_RUNNERS: Final = 1000
_PARALLEL: Final = 16
#: What clients of a signer can pay by.
_UNITS: Final = frozenset(("seconds", "720p-pixel-seconds", "fixed"))
_LARGEST_PRICE: Final = 2**63 - 1


class Runners:
    """What each orchestrator's `GET /discovery` lists. Run `run` under the supervisor."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        uris: Callable[[], Collection[str]],
        clock: Clock,
        *,
        interval: float,
        max_age: float,
    ) -> None:
        """`interval` and `max_age` in seconds: a list is believed that long when no new one comes."""
        self._session = session
        self._uris = uris
        self._clock = clock
        self._interval = interval
        self._max_age = max_age
        self._known: dict[str, tuple[float, tuple[Mapping[str, Any], ...]]] = {}
        self._slots = asyncio.Semaphore(_PARALLEL)

    async def run(self) -> None:
        """Ask everybody again and again, for ever. Cancel to stop."""
        while True:
            await self.refresh()
            await asyncio.sleep(self._interval)

    async def refresh(self) -> None:
        uris = frozenset(self._uris())
        for gone in self._known.keys() - uris:
            del self._known[gone]
        async with asyncio.TaskGroup() as group:
            for uri in uris:
                group.create_task(self._ask(uri))

    def of(self, uri: str) -> Sequence[Mapping[str, Any]]:
        """Those of one orchestrator; none where it has not told lately."""
        told_at, runners = self._known.get(uri, (float("-inf"), ()))
        return runners if self._clock.monotonic() - told_at <= self._max_age else ()

    async def _ask(self, uri: str) -> None:
        try:
            async with (
                self._slots,
                asyncio.timeout(_CALL_SECONDS),
                self._session.get(f"{uri}/discovery", allow_redirects=False) as response,
            ):
                if response.status != _OK:
                    return
                body = b""
                async for chunk in response.content.iter_any():
                    body += chunk
                    if len(body) > _LARGEST_LIST:
                        return
            listed = orjson.loads(body)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            # Most orchestrators have no runners, or a certificate that nobody vouches for.
            _log.debug("no_runners", uri=uri, problem=str(error) or type(error).__name__)
            return
        self._known[uri] = (self._clock.monotonic(), tuple(_payable(listed)))


def _payable(listed: object) -> list[Mapping[str, Any]]:
    """The entries that a client can call and pay, as the orchestrator wrote them."""
    found: list[Mapping[str, Any]] = []
    for orchestrator in listed if isinstance(listed, list) else ():
        runners = orchestrator.get("runners") if isinstance(orchestrator, dict) else None
        found += [one for one in _list(runners) if isinstance(one, dict) and _is_payable(one)]
    return found[:_MOST_RUNNERS]


def _is_payable(runner: Mapping[str, Any]) -> bool:
    url, app, price = runner.get("url"), runner.get("app"), runner.get("price_info")
    if not isinstance(url, str) or not isinstance(app, str) or not isinstance(price, dict):
        return False
    wei = price.get("price")
    is_priced = isinstance(wei, int) and not isinstance(wei, bool) and 0 < wei <= _LARGEST_PRICE
    is_sold = price.get("currency") == "wei" and price.get("unit") in _UNITS
    return bool(app) and _is_http(url) and is_priced and is_sold


def _is_http(url: str) -> bool:
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname)


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []
