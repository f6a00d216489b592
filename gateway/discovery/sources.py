"""Lists that are read over HTTP: a webhook as Livepeer's gateways have it, and a signer's discovery."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import orjson
from aiohttp import ClientError, ClientSession
from yarl import URL

from gateway.discovery.listing import Claim
from network.capabilities import TEXT_TO_IMAGE_PIPELINE
from network.errors import LimnerError
from network.units import ModelId

#: Seconds for a whole answer; Livepeer's own.
_SECONDS: Final = 3.0
_LARGEST: Final = 4 * 2**20
_MOST_ENTRIES: Final = 10_000
_GOOD: Final = range(200, 300)
_EMPTY: Final = 503


class SourceError(LimnerError):
    """A source told nothing that can be used; the message says why, without its URL."""


class Source(Protocol):
    """Whoever lists orchestrators."""

    async def read(self) -> Sequence[Claim]:
        """All of it, as it is now. Raises SourceError."""
        ...


@dataclass(frozen=True, slots=True)
class Webhook:
    """`[{"address": "https://host:8935", "score": 1.0}]` by GET (Livepeer wire, 5.3)."""

    session: ClientSession
    #: May hold credentials: it is never shown.
    url: str

    async def read(self) -> Sequence[Claim]:
        return claims_of(await _get_json(self.session, URL(self.url)))


@dataclass(frozen=True, slots=True)
class RemoteDiscovery:
    """`GET /discover-orchestrators` of a signer (Livepeer wire, 7.5); 503 says that it knows nobody yet."""

    session: ClientSession
    url: str
    #: Those that offer any of these; all, where there are none.
    models: Sequence[ModelId]
    token: str = ""

    async def read(self) -> Sequence[Claim]:
        query = [("caps", f"{TEXT_TO_IMAGE_PIPELINE}/{model_id}") for model_id in self.models]
        url = URL(f"{self.url.rstrip('/')}/discover-orchestrators").with_query(query)
        return claims_of(await _get_json(self.session, url, self.token))


def claims_of(document: object) -> Sequence[Claim]:
    """Entries of either list. Raises SourceError for what is no list of addresses at all."""
    if not isinstance(document, list):
        raise SourceError("it answered JSON that is no list")
    if len(document) > _MOST_ENTRIES:
        raise SourceError(f"it listed {len(document)} entries; at most {_MOST_ENTRIES} are read")
    claims = [_claim(entry) for entry in document]
    if claims and all(claim.problem for claim in claims):
        raise SourceError("not one entry of its list has an address")
    return claims


def _claim(entry: object) -> Claim:
    address = entry.get("address") if isinstance(entry, dict) else None
    if isinstance(address, str):
        return Claim(address.strip())
    return Claim(repr(entry)[:100], problem="it is no object with a text as its address")


async def _get_json(session: ClientSession, url: URL, token: str = "") -> Any:
    headers = {"Accept": "application/json"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    try:
        async with (
            asyncio.timeout(_SECONDS),
            # Not followed: a token, or credentials in the URL, are for this host only.
            session.get(url, headers=headers, allow_redirects=False) as response,
        ):
            if response.status == _EMPTY:
                raise SourceError("it answered 503: it knows of nobody at the moment")
            if response.status not in _GOOD:
                raise SourceError(f"it answered {response.status}")
            body = bytearray()
            async for chunk in response.content.iter_any():
                body += chunk
                if len(body) > _LARGEST:
                    raise SourceError(f"its answer is longer than {_LARGEST} bytes")
    except TimeoutError:
        raise SourceError(f"it did not answer within {_SECONDS:g} s") from None
    except (ClientError, OSError, ValueError) as error:
        # aiohttp's own words name the URL.
        raise SourceError(f"no answer: {type(error).__name__}") from None
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        raise SourceError("its answer is no JSON") from None
