"""Who may have tickets, and up to which price: the operator's webhook says.

The webhook is asked with the client's headers and state, and its word is kept until it expires. Without a
webhook everybody who reaches the signer may have them, so that it stays on loopback.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

import aiohttp
import orjson
import structlog

from gateway.signer.refusal import SigningRefusedError
from gateway.signer.requests import MaxPrice, load_exactly, parse_max_price
from network.runtime.clock import Clock

_log = structlog.get_logger(__name__)

_LARGEST_ANSWER: Final = 64 * 1024
_KEPT_GRANTS: Final = 10_000
_LONGEST_REASON: Final = 300
_LONGEST_ID: Final = 256
_OK: Final = 200
_ERRORS: Final = range(400, 600)
#: Of the webhook itself: it did not answer, or not in its own words.
_WEBHOOK_FAILED: Final = 500
_WEBHOOK_MALFORMED: Final = 502
#: Differ between two calls of one client, and prove nothing.
_PASSING_HEADERS: Final = frozenset(
    ("content-length", "date", "traceparent", "tracestate", "x-request-id")
)


@dataclass(frozen=True, slots=True)
class Grant:
    """What the webhook allows one client until `expiry`, in unix seconds; 0: for this call only."""

    auth_id: str = ""
    expiry: int = 0
    max_price: MaxPrice | None = None


class Authorization(Protocol):
    """Decides on each call."""

    async def grant(
        self, headers: Iterable[tuple[str, str]], state: Mapping[str, object]
    ) -> Grant:
        """Raises SigningRefusedError for a client that may not have tickets."""


class Everybody:
    """Whoever reaches the signer."""

    async def grant(
        self, headers: Iterable[tuple[str, str]], state: Mapping[str, object]
    ) -> Grant:
        del headers, state
        return Grant()


class Webhook:
    """The operator's own service: `POST url` with {"headers", "state"}."""

    def __init__(
        self, session: aiohttp.ClientSession, url: str, clock: Clock, bearer: str = ""
    ) -> None:
        """`bearer` proves to the webhook that it is the signer who asks."""
        self._session = session
        self._url = url
        self._clock = clock
        self._own_headers = {"Authorization": f"Bearer {bearer}"} if bearer else {}
        self._kept: OrderedDict[bytes, Grant] = OrderedDict()

    async def grant(
        self, headers: Iterable[tuple[str, str]], state: Mapping[str, object]
    ) -> Grant:
        told: dict[str, list[str]] = {}
        for name, value in headers:
            told.setdefault(_canonical(name), []).append(value)
        # By headers and not by state: a state alone proves nobody's identity.
        key = _digest(told)
        kept = self._kept.get(key)
        if kept is not None and kept.expiry > self._clock.now():
            self._kept.move_to_end(key)
            return kept
        self._kept.pop(key, None)
        grant = _read(await self._ask({"headers": told, "state": state}))
        if grant.expiry > self._clock.now():
            self._kept[key] = grant
            while len(self._kept) > _KEPT_GRANTS:
                self._kept.popitem(last=False)
        return grant

    async def _ask(self, question: Mapping[str, object]) -> bytes:
        try:
            async with self._session.post(
                self._url,
                data=orjson.dumps(question),
                headers={"Content-Type": "application/json", **self._own_headers},
                allow_redirects=False,
            ) as response:
                if response.status != _OK:
                    _log.warning("webhook_refuses_the_signer", status=response.status)
                    raise SigningRefusedError(
                        _WEBHOOK_FAILED, f"the webhook answered {response.status}"
                    )
                answer = b""
                async for chunk in response.content.iter_any():
                    answer += chunk
                    if len(answer) > _LARGEST_ANSWER:
                        raise _malformed("it is too long")
                return answer
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            _log.warning("webhook_does_not_answer", problem=str(error) or type(error).__name__)
            raise SigningRefusedError(_WEBHOOK_FAILED, "the webhook does not answer") from None


def _read(answer: bytes) -> Grant:
    try:
        fields = load_exactly(answer)
    except ValueError:
        raise _malformed("it is not JSON") from None
    if not isinstance(fields, dict):
        raise _malformed("it is no object")
    status, expiry = fields.get("status"), fields.get("expiry") or 0
    auth_id, reason = fields.get("auth_id") or "", fields.get("reason") or "not authorized"
    if not isinstance(status, int) or not isinstance(reason, str):
        raise _malformed("status or reason is missing")
    if status != _OK:
        if status not in _ERRORS:
            raise _malformed(f"status {status} is no refusal")
        raise SigningRefusedError(status, reason[:_LONGEST_REASON])
    if not isinstance(expiry, int) or not isinstance(auth_id, str) or len(auth_id) > _LONGEST_ID:
        raise _malformed("expiry is no number or auth_id no string")
    try:
        most = fields.get("maxPrice")
        return Grant(auth_id, expiry, None if most is None else parse_max_price(most))
    except ValueError as error:
        raise _malformed(str(error)) from None


def _malformed(why: str) -> SigningRefusedError:
    _log.warning("webhook_answer_is_malformed", problem=why)
    return SigningRefusedError(_WEBHOOK_MALFORMED, f"the webhook's answer cannot be read: {why}")


def _canonical(name: str) -> str:
    """Whatever the client wrote, "X-Api-Key", as Go's servers hand headers on."""
    return "-".join(part.capitalize() for part in name.split("-"))


def _digest(headers: Mapping[str, list[str]]) -> bytes:
    """Names a client without keeping its credentials in memory."""
    lasting = sorted(
        (name.lower(), values)
        for name, values in headers.items()
        if name.lower() not in _PASSING_HEADERS
    )
    return hashlib.sha256(orjson.dumps(lasting)).digest()
