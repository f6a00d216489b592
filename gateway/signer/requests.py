"""The body of POST /generate-live-payment, parsed and bounded once on entry."""

import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Final

import pybase64

from gateway.signer.charging import JobType
from network.capabilities import Capabilities
from network.errors import WireError
from network.wire.codec import OrchestratorInfo, decode_capabilities, decode_orchestrator_info

#: An OrchestratorInfo of 1 MiB in base64, and the rest.
MAX_BODY_BYTES: Final = 2 * 2**20
_MOST_PIXELS: Final = 2**63 - 1
_LONGEST_TEXT: Final = 512
_LONGEST_SEALED: Final = 64 * 1024
_LARGEST_EXPONENT: Final = 40


@dataclass(frozen=True, slots=True)
class SealedState:
    """A state as a client brings it back, unread."""

    state: str
    signature: str


@dataclass(frozen=True, slots=True)
class MaxPrice:
    """The most wei that one `unit` may cost."""

    price: Fraction
    unit: str


@dataclass(frozen=True, slots=True)
class PaymentRequest:
    """What a client wants paid."""

    info: OrchestratorInfo
    job: JobType
    manifest_id: str = ""
    app: str = ""
    pixels: int = 0
    state: SealedState | None = None
    max_price: MaxPrice | None = None
    capabilities: Capabilities | None = None


def parse_payment_request(body: bytes) -> PaymentRequest:
    """Raises ValueError with a sentence for the client; unknown keys are ignored."""
    fields = _object(body)
    try:
        info = decode_orchestrator_info(_base64(fields, "orchestrator"))
        capabilities = None
        if fields.get("capabilities"):
            capabilities = decode_capabilities(_base64(fields, "capabilities"))
    except WireError as error:
        raise ValueError(f"orchestrator or capabilities: {error}") from None
    pixels = fields.get("inpixels", 0)
    if not isinstance(pixels, int) or isinstance(pixels, bool) or not 0 <= pixels <= _MOST_PIXELS:
        raise ValueError("inPixels must be a whole number from 0 to 2^63 - 1")
    return PaymentRequest(
        info=info,
        job=_job(_text(fields, "type")),
        manifest_id=_text(fields, "manifestid"),
        app=_text(fields, "app"),
        pixels=pixels,
        state=_sealed(fields.get("state")),
        max_price=None if fields.get("maxprice") is None else parse_max_price(fields["maxprice"]),
        capabilities=capabilities,
    )


def parse_max_price(value: object) -> MaxPrice:
    """{"price", "currency", "unit"} of a client or of the webhook. Raises ValueError."""
    if not isinstance(value, dict):
        raise ValueError("maxPrice must be an object with price, currency and unit")  # noqa: TRY004
    fields = {str(name).lower(): inner for name, inner in value.items()}
    currency = fields.get("currency", "wei")
    if not isinstance(currency, str) or currency.lower() not in ("", "wei"):
        raise ValueError("maxPrice.currency must be wei")
    price = fields.get("price")
    if isinstance(price, bool) or not isinstance(price, int | Fraction) or price < 0:
        raise ValueError("maxPrice.price must be a number of at least 0")
    return MaxPrice(Fraction(price), _text(fields, "unit"))


def load_exactly(body: bytes) -> object:
    """JSON with its decimal fractions exact, for there are prices in it. Raises ValueError."""
    try:
        return json.loads(body, parse_float=_fraction, parse_constant=_no_number)
    except RecursionError:
        raise ValueError("the JSON is nested too deeply") from None
    except UnicodeDecodeError:
        raise ValueError("the JSON is not UTF-8") from None


def _object(body: bytes) -> Mapping[str, object]:
    try:
        value = load_exactly(body)
    except json.JSONDecodeError as error:
        raise ValueError(f"the body is not valid JSON at position {error.pos}") from None
    if not isinstance(value, dict):
        raise ValueError("the body must be a JSON object")  # noqa: TRY004
    # Clients write "ManifestID" and "app": as in Go, the case of a key does not matter.
    return {name.lower(): inner for name, inner in value.items()}


def _fraction(text: str) -> Fraction:
    number = Decimal(text)
    if abs(number.adjusted()) > _LARGEST_EXPONENT or len(text) > _LONGEST_TEXT:
        # 1e999999999 is eleven characters and as many digits as would fill the memory.
        raise ValueError(f"a number is out of bounds: {text[:20]}")
    return Fraction(number)


def _no_number(text: str) -> Fraction:
    raise ValueError(f"{text} is no JSON number")


def _job(text: str) -> JobType:
    try:
        return JobType(text)
    except ValueError:
        known = ", ".join(repr(job.value) for job in JobType)
        raise ValueError(f"type {text[:40]!r} is none of {known}") from None


def _text(fields: Mapping[str, object], name: str) -> str:
    value = fields.get(name) or ""
    if not isinstance(value, str) or len(value) > _LONGEST_TEXT:
        raise ValueError(f"{name} must be a string of at most {_LONGEST_TEXT} characters")
    return value


def _base64(fields: Mapping[str, object], name: str) -> bytes:
    value = fields.get(name)
    if not isinstance(value, str) or not value:
        raise ValueError(f"{name} is missing")
    try:
        return pybase64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(f"{name} is not standard base64") from None


def _sealed(value: object) -> SealedState | None:
    if value is None:
        return None
    fields = (
        {name.lower(): inner for name, inner in value.items()} if isinstance(value, dict) else {}
    )
    state, signature = fields.get("state") or "", fields.get("sig") or ""
    if not isinstance(state, str) or not isinstance(signature, str):
        raise ValueError("state must be an object with State and Sig")  # noqa: TRY004
    if len(state) + len(signature) > _LONGEST_SEALED:
        raise ValueError("state is too long")
    # SDKs send both empty for a first call.
    return SealedState(state, signature) if state or signature else None
