"""What an orchestrator says of our money: in the headers of its answers, and when it is asked later."""

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from fractions import Fraction
from typing import Final

import aiohttp
import msgspec
from yarl import URL

from gateway.orchestrators.answers import OrchestratorFailed, Statement
from network.units import Wei
from network.wire import headers as wire_headers

_OK: Final = 200
_SERVER_ERROR: Final = 500
_LARGEST: Final = 8192
_SECONDS: Final = 2.5
#: A ticket's value is a fraction below 2**256 over 2**256 - 1, and a payment has hundreds of them.
_CREDIT: Final = re.compile(r"([0-9]{1,100})/([0-9]{1,100})", re.ASCII)
_FEE: Final = re.compile(r"[0-9]{1,78}", re.ASCII)


class NoReceipt(Enum):
    """Why there is none."""

    #: It keeps receipts, and has none for this attempt: the payment never reached its books.
    NEVER_SEEN = "never seen"
    #: It does not know the call, as go-livepeer does not.
    NOT_KEPT = "not kept"
    #: The job is not over.
    NOT_YET = "not yet"


class _Body(msgspec.Struct):
    credited: str
    charged: str
    state: str


@dataclass(frozen=True, slots=True)
class ReceiptDesk:
    """Asks over the session of the client."""

    session: aiohttp.ClientSession

    async def ask(self, url: URL) -> Statement | NoReceipt:
        """Raises OrchestratorFailed where nothing can be made of the answer, or none came."""
        try:
            async with (
                asyncio.timeout(_SECONDS),
                self.session.get(url, allow_redirects=False) as response,
            ):
                status = response.status
                body = await response.content.read(_LARGEST)
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError) as error:
            raise OrchestratorFailed(f"no receipt: {type(error).__name__}") from None
        if status >= _SERVER_ERROR:
            raise OrchestratorFailed(f"no receipt: it answered {status}")
        if wire_headers.NO_RECEIPT.encode() in body:
            return NoReceipt.NEVER_SEEN
        return _understood(body) if status == _OK else NoReceipt.NOT_KEPT


def credit_of(headers: Mapping[str, str]) -> Fraction | None:
    """Names are in lower case. Raises OrchestratorFailed for what is no amount."""
    text = headers.get(wire_headers.CREDIT.lower())
    return None if text is None else _credit(text)


def fee_of(headers: Mapping[str, str]) -> Wei | None:
    """What it says it charged; names are in lower case. Raises OrchestratorFailed."""
    text = headers.get(wire_headers.FEE.lower())
    return None if text is None else _fee(text)


def statement_of(headers: Mapping[str, str]) -> Statement | None:
    """What an answer without images says; None where it does not, or in no known words."""
    try:
        credit, fee = credit_of(headers), fee_of(headers)
    except OrchestratorFailed:
        return None
    return None if credit is None else Statement(credit, Wei(0) if fee is None else fee)


def _understood(body: bytes) -> Statement | NoReceipt:
    try:
        told = msgspec.json.decode(body, type=_Body)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        # go-livepeer answers 200 with an empty body to calls that its routes do not have.
        return NoReceipt.NOT_KEPT
    if told.state == "open":
        return NoReceipt.NOT_YET
    return Statement(_credit(told.credited), _fee(told.charged), told.state)


def _credit(text: str) -> Fraction:
    found = _CREDIT.fullmatch(text)
    if found is None or not int(found[2]):
        raise OrchestratorFailed(f"its credit {text[:40]!r} is no fraction of wei")
    return Fraction(int(found[1]), int(found[2]))


def _fee(text: str) -> Wei:
    if not _FEE.fullmatch(text):
        raise OrchestratorFailed(f"its fee {text[:40]!r} is not a number of wei")
    return Wei(int(text))
