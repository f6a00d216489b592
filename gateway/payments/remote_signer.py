"""Tickets from a remote signer: the gateway then holds no key.

The signer counts what calls cost by pixels. The gateway keeps its own balance at each orchestrator, with
what failed jobs gave back, which the signer never hears of; so it decides how many tickets are due, and
names so many pixels as make the signer sign exactly those. `type` stays empty: `fixed` would pay one unit of
the orchestrator's price, which here is the price of a pixel, and the price is part of the quote.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any, Final, Self

import aiohttp
import orjson

from gateway.payments.payer import (
    CannotPayError,
    Quote,
    SignedTickets,
    StaleQuoteError,
    UnpayableError,
)
from network.capabilities import job_capabilities
from network.errors import LimnerError, SignatureError, WireError
from network.identity import parse_address, verify_session_request
from network.payments.signing import TicketSeries
from network.payments.tickets import TicketParams
from network.units import Address, ModelId
from network.wire.codec import (
    Payment,
    SegmentCredentials,
    TicketSenderParams,
    decode_payment,
    decode_segment_credentials,
    encode_capabilities,
    encode_orchestrator_info,
    encode_segment_credentials,
)
from network.wire.headers import decode_header, encode_header, manifest_id, verify_segment

_OK: Final = 200
#: A signer may ask a service of its own who we are.
_ANSWER_SECONDS: Final = 10.0
_CONNECT_SECONDS: Final = 3.0
_LARGEST_ANSWER: Final = 2**20
_LONGEST_REASON: Final = 300
#: Quotes live for minutes; the oldest are forgotten first.
_KEPT_SESSIONS: Final = 4096


class RemoteSignerError(UnpayableError):
    """The signer made no tickets; nothing was promised. The message says why."""


class NoTicketsNeededError(RemoteSignerError):
    """The signer finds that what was paid before covers the job."""


class SignerUnavailableError(CannotPayError):
    """The signer does not work for us, whoever is to be paid: it is down, or it is not what we need."""


#: By the signer's own statuses; any other is about us or the signer. What hangs on the orchestrator's
#: quote must not be taken for that, or one orchestrator could stop all buying: 500 is go-livepeer's
#: answer to a quote that it does not pay, and 413 ours to one that is too long.
_KINDS: Final[Mapping[int, type[LimnerError]]] = {
    400: RemoteSignerError,
    413: RemoteSignerError,
    480: StaleQuoteError,
    481: RemoteSignerError,
    482: NoTicketsNeededError,
    500: RemoteSignerError,
}


@dataclass(frozen=True, slots=True)
class _Signed:
    """One answer of the signer."""

    payment: Payment
    credentials: SegmentCredentials
    state: Mapping[str, str]


@dataclass(slots=True)
class _Session:
    """What the signer is told again at its next call about one quote."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    state: Mapping[str, str] | None = None
    #: Wei that the signer counts as left over; always less than a pixel costs.
    balance: Fraction = Fraction(0)


class RemoteSigner:
    """One account whose key is elsewhere: a TicketMaker. Made by `open`."""

    #: It signs a job with its payment only.
    signs_jobs: Final = False

    def __init__(
        self,
        session: aiohttp.ClientSession,
        url: str,
        address: Address,
        signature: bytes,
        version: str,
    ) -> None:
        self._session = session
        self._url = url
        self._version = version
        #: Who pays.
        self.address: Final = address
        #: Proves the account in GetOrchestrator.
        self.session_signature: Final = signature
        #: By the hash of the recipientRand. A state outlives no quote, because a signer ties it to one
        #: first price, and an orchestrator's models have one each.
        self._sessions: dict[bytes, _Session] = {}
        #: The last credentials by model: their signature covers no session and can be used again.
        self._credentials: dict[ModelId, SegmentCredentials] = {}

    @classmethod
    async def open(cls, session: aiohttp.ClientSession, url: str, version: str) -> Self:
        """Ask the signer for its account. `session` carries the credentials that it wants, if any.

        `version` is what jobs ask for in their capabilities.
        Raises SignerUnavailableError where it does not answer, or proves another account than it names,
        and what `make` raises for the statuses that this call should not have.
        """
        answer = await _call(session, f"{url}/sign-orchestrator-info", {})
        try:
            address = parse_address(answer["address"])
            signature = bytes.fromhex(answer["signature"].removeprefix("0x"))
            verify_session_request(address, signature)
        except (KeyError, AttributeError, TypeError, ValueError, SignatureError):
            raise SignerUnavailableError("the signer does not prove its account") from None
        return cls(session, url, address, signature, version)

    async def make(self, quote: Quote, count: int) -> SignedTickets:
        """`count` tickets with the credentials of a job; 0 asks for the credentials alone.

        Raises StaleQuoteError for a quote that is too old for the signer, RemoteSignerError for one that it
        does not pay, SignerUnavailableError where it would pay none.
        """
        session = self._session_of(quote.params.recipient_rand_hash)
        # In turn: each call takes the nonces after those of the last.
        async with session.lock:
            known = self._credentials.get(quote.model_id)
            if count == 0 and known is not None:
                return self._tickets((), known, quote)
            try:
                # A model's first credentials come with a ticket. Nobody is sent that one if none is due.
                signed = await self._sign(session, quote, max(count, 1))
            except NoTicketsNeededError:
                if known is None:
                    raise
                return self._tickets((), known, quote)
        tickets = signed.payment.tickets if count else ()
        return self._tickets(tickets, signed.credentials, quote)

    def _tickets(
        self, tickets: tuple[TicketSenderParams, ...], known: SegmentCredentials, quote: Quote
    ) -> SignedTickets:
        """The signature of credentials covers no session: the quote's own token goes into them."""
        credentials = replace(known, auth_token=quote.info.auth_token)
        return SignedTickets(tickets, encode_header(encode_segment_credentials(credentials)))

    async def _sign(self, session: _Session, quote: Quote, count: int) -> _Signed:
        price, value = _price(quote), quote.params.expected_value
        pixels = pixels_to_name(count, value, price, session.balance)
        signed = await self._ask(session.state, quote, pixels)
        self._check(signed, quote.params, price)
        session.state = signed.state
        session.balance += len(signed.payment.tickets) * value - pixels * price
        self._credentials[quote.model_id] = signed.credentials
        return signed

    def _session_of(self, rand_hash: bytes) -> _Session:
        session = self._sessions.get(rand_hash)
        if session is None:
            session = self._sessions[rand_hash] = _Session()
            while len(self._sessions) > _KEPT_SESSIONS:
                del self._sessions[next(iter(self._sessions))]
        return session

    async def _ask(self, state: Mapping[str, str] | None, quote: Quote, pixels: int) -> _Signed:
        capabilities = job_capabilities(quote.model_id, self._version)
        answer = await _call(
            self._session,
            f"{self._url}/generate-live-payment",
            {
                "orchestrator": encode_header(encode_orchestrator_info(quote.info)),
                "ManifestID": manifest_id(quote.model_id).decode(),
                "inPixels": pixels,
                "type": "",
                "capabilities": encode_header(encode_capabilities(capabilities)),
                "state": state,
            },
        )
        try:
            return _Signed(
                decode_payment(decode_header(answer["payment"])),
                decode_segment_credentials(decode_header(answer["segCreds"])),
                {name: str(answer["state"][name]) for name in ("State", "Sig")},
            )
        except (KeyError, TypeError, AttributeError, WireError):
            raise SignerUnavailableError("the signer's answer is no payment") from None

    def _check(self, signed: _Signed, params: TicketParams, price: Fraction) -> None:
        """A payment that is not the one asked for would have us blame the orchestrator."""
        payment = signed.payment
        if payment.sender != self.address or payment.expected_price != price:
            raise SignerUnavailableError("the signer pays from another account or another price")
        try:
            series = TicketSeries(params, self.address)
            for ticket in payment.tickets:
                series.check(ticket.nonce, ticket.signature)
            verify_segment(signed.credentials, self.address)
        except (WireError, ValueError) as error:
            raise SignerUnavailableError(f"the signer's tickets are not good: {error}") from None


def signer_session(token: str) -> aiohttp.ClientSession:
    """Connections to a signer, which `token` is shown to unless it is ""; to be closed."""
    return aiohttp.ClientSession(
        headers={"Authorization": f"Bearer {token}"} if token else None,
        timeout=aiohttp.ClientTimeout(total=_ANSWER_SECONDS, sock_connect=_CONNECT_SECONDS),
        cookie_jar=aiohttp.DummyCookieJar(),
    )


def _price(quote: Quote) -> Fraction:
    if not quote.info.price:
        raise RemoteSignerError("the orchestrator asks for no price: there is nothing to pay")
    return quote.info.price


def pixels_to_name(count: int, value: Fraction, price: Fraction, balance: Fraction) -> int:
    """For how many pixels a signer with `balance` signs just `count` tickets worth `value` each.

    `price` and the values in wei. As many as those tickets pay for, so that less than a pixel's price
    is left with the signer, and it never finds that a call was paid before.
    """
    return max(int((balance + count * value) // price), 1)


async def _call(session: aiohttp.ClientSession, url: str, body: Mapping[str, Any]) -> Any:
    try:
        async with session.post(
            url,
            data=orjson.dumps(body),
            headers={"Content-Type": "application/json"},
            allow_redirects=False,
        ) as response:
            text = b""
            async for chunk in response.content.iter_any():
                text += chunk
                if len(text) > _LARGEST_ANSWER:
                    raise SignerUnavailableError("the signer's answer is too long")
            status = response.status
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        problem = str(error) or type(error).__name__
        raise SignerUnavailableError(f"the signer does not answer: {problem}") from None
    try:
        answer = orjson.loads(text)
    except orjson.JSONDecodeError:
        answer = None
    if status == _OK:
        return answer
    raise _refusal(status, _reason(answer))


def _reason(answer: object) -> str:
    try:
        message = answer["error"]["message"]  # type: ignore[index]
    except (KeyError, TypeError, IndexError):
        return "it gives no reason"
    return str(message)[:_LONGEST_REASON]


def _refusal(status: int, reason: str) -> LimnerError:
    text = f"the signer refuses with {status}: {reason}"
    return _KINDS.get(status, SignerUnavailableError)(text)
