"""What the operator's service says of a bearer, read. Pure.

The answer is that which Livepeer's remote signer asks of its webhook, so that one service can do for both:
`{"status": 200, "auth_id": "client:user", "expiry": 1764000000}` or `{"status": 401, "reason": "..."}`. Beside
these the gateway reads `limits`. Refusals may also come by the status of the answer itself.
"""

import string
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from gateway.keys import KeyGrant, UseLimits
from network.dollars import AttoUsd, parse_usd
from network.errors import LimnerError
from network.prices import Price, parse_price
from network.units import ModelId, Wei, parse_wei

#: How key ids begin that are not of our own keys.
PREFIX: Final = "auth:"
_OK: Final = 200
_UNAUTHENTICATED: Final = 401
_UNPAID: Final = 402
_FORBIDDEN: Final = 403
#: Livepeer's clearinghouse says it of an account that is empty.
_INSUFFICIENT_BALANCE: Final = 483
_REFUSALS: Final = frozenset({_UNAUTHENTICATED, _UNPAID, _FORBIDDEN})
_CLIENT_ERRORS: Final = range(400, 500)
_OVERLOADED: Final = frozenset({408, 429})
_SERVER_ERRORS: Final = range(500, 600)
_LONGEST_ID: Final = 100
_LONGEST_REASON: Final = 300
_MOST_MODELS: Final = 1000
_LARGEST_COUNT: Final = 10**15
_NO_REASON: Final = "This key is not accepted here."


class UnreachableError(LimnerError):
    """The service did not answer; the message says how, without its address or the bearer."""


class UnreadableError(LimnerError):
    """The service answered, but nothing that could be read; the message says what is wrong."""


@dataclass(frozen=True, slots=True)
class Allowed:
    """`expiry`, in Unix seconds: when the service wants to be asked again; None where it does not say."""

    grant: KeyGrant
    expiry: float | None = None


@dataclass(frozen=True, slots=True)
class Denied:
    """What the client is told: 401, 402 or 403, and why."""

    status: int
    reason: str
    #: By the status of the answer itself: it may be the gateway's own secret that was not accepted.
    is_bare: bool = field(default=False, compare=False)


def read_verdict(status: int, body: bytes) -> Allowed | Denied:
    """Of an HTTP answer. Raises UnreachableError, and UnreadableError: what cannot be read lets nobody in."""
    if status in _REFUSALS:
        return Denied(status, _reason(_fields_or_none(body) or {}), is_bare=True)
    if status in _OVERLOADED or status in _SERVER_ERRORS:
        raise UnreachableError(f"it answered {status}")
    if status != _OK:
        # Of this bearer, perhaps: a guess must not make the whole service look dead.
        raise UnreadableError(f"it answered {status}")
    fields = _fields_or_none(body)
    if fields is None:
        raise UnreadableError("its answer is no JSON object")
    said = fields.get("status", _OK)
    if said == _OK:
        return Allowed(_grant(fields), _expiry(fields.get("expiry")))
    if said in _SERVER_ERRORS:
        raise UnreadableError(f"it cannot tell ({said}: {_reason(fields, 'without a reason')})")
    if not isinstance(said, int) or said not in _CLIENT_ERRORS:
        raise UnreadableError(f"the status in its answer is {str(said)[:20]!r}")
    if said == _INSUFFICIENT_BALANCE:
        said = _UNPAID
    return Denied(said if said in _REFUSALS else _UNAUTHENTICATED, _reason(fields))


def _fields_or_none(body: bytes) -> Mapping[str, Any] | None:
    try:
        fields = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    return fields if isinstance(fields, dict) else None


def _reason(fields: Mapping[str, Any], otherwise: str = _NO_REASON) -> str:
    reason = fields.get("reason")
    if not isinstance(reason, str):
        return otherwise
    shown = "".join(char if char.isprintable() else " " for char in reason[:_LONGEST_REASON])
    return shown.strip() or otherwise


def _grant(fields: Mapping[str, Any]) -> KeyGrant:
    identity = fields.get("auth_id")
    if not isinstance(identity, str) or not _is_identity(identity):
        raise UnreadableError(f"auth_id must be 1 to {_LONGEST_ID} visible ASCII characters")
    limits = fields.get("limits")
    limits = {} if limits is None else limits
    if not isinstance(limits, dict):
        raise UnreadableError("limits must be an object")
    unknown = sorted(limits.keys() - _LIMITS.keys())
    if unknown:
        # Ignored, it would be a limit that its giver believes in and nobody keeps.
        raise UnreadableError(f"there is no limit {unknown[0][:40]!r}")
    read = {
        name: _one(name, parse, limits[name])
        for name, parse in _LIMITS.items()
        if limits.get(name) is not None
    }
    return KeyGrant(
        PREFIX + identity,
        identity,
        models=read.get("models"),
        max_price=read.get("max_price"),
        max_in_flight=read.get("max_in_flight"),
        limits=UseLimits(
            wei_per_day=read.get("wei_per_day"),
            wei_per_month=read.get("wei_per_month"),
            usd_per_day=read.get("usd_per_day"),
            usd_per_month=read.get("usd_per_month"),
            requests_per_minute=read.get("requests_per_minute"),
            pixels_per_minute=read.get("pixels_per_minute"),
        ),
        max_steps=read.get("max_steps"),
    )


def _one(name: str, parse: Callable[[object], Any], value: object) -> Any:
    try:
        return parse(value)
    except ValueError as error:
        raise UnreadableError(f"limits.{name}: {error}") from None


def _is_identity(text: str) -> bool:
    """No spaces: they separate the parts of an owner (`KeyGrant.owner`)."""
    return 0 < len(text) <= _LONGEST_ID and all(
        char in string.ascii_letters + string.digits + string.punctuation for char in text
    )


def _expiry(value: object) -> float | None:
    """Unix seconds; 0 is over already: as for the signer, it is good for one request."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
        raise UnreadableError("expiry must be a time in Unix seconds")
    return float(value)


def _count(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= _LARGEST_COUNT:
        raise ValueError(f"must be a whole number from 1 to {_LARGEST_COUNT}")
    return value


def _wei(value: object) -> Wei:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return Wei(value)
    if not isinstance(value, str):
        raise ValueError('must be wei, or text such as "0.05 eth"')  # noqa: TRY004
    return parse_wei(value)


def _usd(value: object) -> AttoUsd:
    if not isinstance(value, str):
        raise ValueError('must be text, such as "5 usd"')  # noqa: TRY004
    return parse_usd(value)


def _price(value: object) -> Price:
    if not isinstance(value, str):
        # 0.1 has no exact value in binary, and money is exact.
        raise ValueError('must be text, such as "7/2" or "2e-8 USD"')  # noqa: TRY004
    return parse_price(value)


def _models(value: object) -> frozenset[ModelId]:
    if not isinstance(value, list) or len(value) > _MOST_MODELS:
        raise ValueError(f"must be a list of at most {_MOST_MODELS} model ids")
    if not all(isinstance(one, str) for one in value):
        raise ValueError("must be a list of model ids")
    return frozenset(ModelId(one) for one in value)


_LIMITS: Final[Mapping[str, Callable[[object], Any]]] = {
    "requests_per_minute": _count,
    "pixels_per_minute": _count,
    "max_in_flight": _count,
    "models": _models,
    "max_price": _price,
    "wei_per_day": _wei,
    "wei_per_month": _wei,
    "usd_per_day": _usd,
    "usd_per_month": _usd,
    "max_steps": _count,
}
