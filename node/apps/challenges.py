"""What is asked of those who call without a payment: terms for just this call (Livepeer wire, 7.2).

Nothing is remembered of a challenge. Its session's id says what the call costs, under a MAC for the
payer; the auth token says until when, and the quoted tickets are good at this price only.
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
from node.discovery.sessions import Sessions
from node.payments.quoting import NoQuote

_RANDOM_BYTES: Final = 12
_MAC_BYTES: Final = 12
#: Random digits, the MAC's, and the cost in wei: at most 64 characters in all, as attempt ids have.
_SESSION_ID: Final = re.compile(r"([0-9a-f]{24})([0-9a-f]{24})([0-9a-f]{1,16})", re.ASCII)
_DOMAIN: Final = b"session of one call"
#: Payers that are not proven: whoever names one has the chain asked about it.
_MOST_AT_ONCE: Final = 64

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class CallSessions:
    """Makes and reads ids of sessions that are good for one call."""

    secret: bytes

    def new(self, payer: Address, cost: Wei) -> str:
        """Return a fresh id; who knows it may ask what became of the call."""
        nonce = secrets.token_hex(_RANDOM_BYTES)
        price = f"{cost:x}"
        return f"{nonce}{self._mac(payer, nonce, price)}{price}"

    def cost(self, session_id: str, payer: Address) -> Wei | None:
        """Return what the call costs, None where `payer` was never given this id."""
        found = _SESSION_ID.fullmatch(session_id)
        if found is None:
            return None
        nonce, mac, price = found.groups()
        is_ours = hmac.compare_digest(mac, self._mac(payer, nonce, price))
        return Wei(int(price, 16)) if is_ours else None

    def _mac(self, payer: Address, nonce: str, price: str) -> str:
        message = b"|".join((_DOMAIN, payer.hex().encode(), nonce.encode(), price.encode()))
        return hmac.digest(self.secret, message, hashlib.sha256)[:_MAC_BYTES].hex()


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

    @property
    def calls(self) -> CallSessions:
        """The sessions of its challenges."""
        return CallSessions(self.sessions.secret)

    async def challenge(self, payer: Address, cost: Wei) -> Challenge:
        """Return terms for a new session of one call that costs `payer` so much. Raises Refusal."""
        return await self._terms(payer, cost, self.calls.new(payer, cost))

    async def renewed(self, payer: Address, session_id: str) -> Challenge | None:
        """Return new terms for an earlier session, None where there was none. Raises Refusal."""
        cost = self.calls.cost(session_id, payer)
        return None if cost is None else await self._terms(payer, cost, session_id)

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
