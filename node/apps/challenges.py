"""What is asked of those who call without a payment: terms for just this call (Livepeer wire, 7.2).

Nothing is remembered of a challenge. Its session's id says what the call costs, under MACs for the payer
and for the request; the auth token says until when, and the quoted tickets are good at this price only.
"""

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Final, Protocol

import structlog

from network.capabilities import Capabilities
from network.chain.model import ChainError
from network.runtime.clock import Clock
from network.units import Address, Wei
from network.wire.codec import encode_orchestrator_info
from network.wire.headers import encode_header
from network.wire.session import OrchestratorInfo
from node.apps.refusal import Refusal, insufficient_capacity
from node.discovery.sessions import LIFETIME_SECONDS, Sessions
from node.payments.quoting import NoQuote

_RANDOM_BYTES: Final = 4
_MAC_BYTES: Final = 8
#: When it was made and random digits, MACs of the price and of the request, the cost in wei: at most 64
#: characters in all, as attempt ids have.
_SESSION_ID: Final = re.compile(
    r"([0-9a-f]{8})([0-9a-f]{8})([0-9a-f]{16})([0-9a-f]{16})([0-9a-f]{1,16})", re.ASCII
)
_DOMAIN: Final = b"session of one call"
#: Payers that are not proven: whoever names one has the chain asked about it.
_MOST_AT_ONCE: Final = 64

log = structlog.get_logger(__name__)


def subject_of(route: str, body: bytes) -> bytes:
    """Return what a call asks for, in 32 bytes."""
    return hashlib.sha256(route.encode() + b"\0" + body).digest()


@dataclass(frozen=True, slots=True)
class CallSession:
    """What a session's id says: the price in wei that was promised, and the MAC of what for."""

    cost: Wei
    _stem: bytes
    _promise: str
    _secret: bytes

    def covers(self, subject: bytes) -> bool:
        """Tell whether the promise was made for this request, whatever it costs by now."""
        return hmac.compare_digest(self._promise, _mac(self._secret, self._stem, subject))


@dataclass(frozen=True, slots=True)
class CallSessions:
    """Makes and reads ids of sessions that are good for one call."""

    secret: bytes

    def new(self, payer: Address, cost: Wei, subject: bytes, now: float) -> str:
        """Return a fresh id; who knows it may ask what became of the call. `now` in unix seconds."""
        made = f"{int(now) & 0xFFFFFFFF:08x}{secrets.token_hex(_RANDOM_BYTES)}"
        price = f"{cost:x}"
        stem = _stem(payer, made, price)
        return f"{made}{_mac(self.secret, stem)}{_mac(self.secret, stem, subject)}{price}"

    def read(self, session_id: str, payer: Address, now: float) -> CallSession | None:
        """Return a session that `payer` was given lately, None for whatever else this is."""
        found = _SESSION_ID.fullmatch(session_id)
        if found is None:
            return None
        when, random, seal, promise, price = found.groups()
        stem = _stem(payer, when + random, price)
        # Renewing a session must not keep an old price for ever.
        is_over = now > int(when, 16) + LIFETIME_SECONDS
        if is_over or not hmac.compare_digest(seal, _mac(self.secret, stem)):
            return None
        return CallSession(Wei(int(price, 16)), stem, promise, self.secret)


def _stem(payer: Address, made: str, price: str) -> bytes:
    return b"|".join((_DOMAIN, payer.hex().encode(), made.encode(), price.encode()))


def _mac(secret: bytes, stem: bytes, subject: bytes = b"") -> str:
    return hmac.digest(secret, stem + b"|" + subject, hashlib.sha256)[:_MAC_BYTES].hex()


class CallQuotes(Protocol):
    """Makes out tickets for calls (`node.payments.till`)."""

    def unpayable(self, cost: Wei) -> str:
        """Why nobody could pay `cost`; "" where it could be paid."""
        ...

    async def quote_call(self, sender: Address, cost: Wei) -> bytes | NoQuote:
        """Ticket parameters, encoded. Raises ChainError."""
        ...


@dataclass(frozen=True, slots=True)
class Challenge:
    """What a payer needs to pay; `payment_params` is a base64 OrchestratorInfo."""

    payment_params: str
    session_id: str


@dataclass(slots=True)
class Challenger:
    """Makes challenges in the node's name."""

    quotes: CallQuotes
    sessions: Sessions
    service_uri: str
    address: Address
    clock: Clock
    _asking: int = field(default=0, init=False)

    def session(self, session_id: str, payer: Address) -> CallSession | None:
        """Return a session that `payer` was given lately."""
        return self._calls.read(session_id, payer, self.clock.now())

    async def challenge(self, payer: Address, cost: Wei, subject: bytes) -> Challenge:
        """Return terms for one call, which costs `payer` so much. Raises Refusal."""
        session_id = self._calls.new(payer, cost, subject, self.clock.now())
        return await self._terms(payer, cost, session_id)

    async def renewed(self, payer: Address, session_id: str) -> Challenge | None:
        """Return new terms for an earlier session, None where there was none. Raises Refusal."""
        found = self.session(session_id, payer)
        return None if found is None else await self._terms(payer, found.cost, session_id)

    @property
    def _calls(self) -> CallSessions:
        return CallSessions(self.sessions.secret)

    async def _terms(self, payer: Address, cost: Wei, session_id: str) -> Challenge:
        reason = self.quotes.unpayable(cost)
        if reason:
            raise Refusal(400, reason, "unpayable")
        if self._asking >= _MOST_AT_ONCE:
            raise insufficient_capacity("too_many_challenges")
        self._asking += 1
        try:
            params = await self.quotes.quote_call(payer, cost)
        except ChainError as error:
            log.warning("nothing is quoted", why=str(error))
            raise insufficient_capacity("chain_unavailable") from None
        finally:
            self._asking -= 1
        if isinstance(params, NoQuote):
            raise Refusal(503, params.reason, "no_quote", {"Retry-After": "5"})
        info = OrchestratorInfo(
            transcoder=self.service_uri,
            address=self.address,
            price=Fraction(cost),
            prices=(),
            capabilities=Capabilities(bits=frozenset()),
            auth_token=self.sessions.issue(payer, self.clock.now(), session_id),
            ticket_params=params,
        )
        return Challenge(encode_header(encode_orchestrator_info(info)), session_id)
