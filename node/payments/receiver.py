"""What a payment's tickets are worth here.

They are checked in the order, and refused in the words, of Livepeer's orchestrators (wire, 4.6). Pure
but for the nonces that it remembers.
"""

import hmac
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Final

from network.chain.model import SignedTicket
from network.errors import SignatureError
from network.identity import ADDRESS_BYTES, checksum
from network.payments.checks import PARAMS_EXPIRED, unlocks_soon
from network.payments.rand import recipient_rand
from network.payments.signing import TicketSeries
from network.payments.tickets import TicketParams, rand_hash, ticket_of
from network.units import Address
from network.wire.session import TicketSenderParams

#: As go-livepeer: more tickets than this are not made for one quote.
MOST_NONCES: Final = 600
#: L1 blocks for which tickets of an expired quote are still taken, for no credit: the payer may have
#: sent them in time. Nonces are remembered for as long, and older tickets are not looked at.
GRACE_BLOCKS: Final = 50


@dataclass(frozen=True, slots=True)
class Offered:
    """Tickets as they came in; `price` is the expected price, which the quote was for."""

    sender: Address
    params: TicketParams
    price: Fraction
    tickets: Sequence[TicketSenderParams]


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What the chain says at this moment.

    `withdraw_round` is the sender's, 0 if it stays. Tickets made before `oldest_creation` are too old to
    be redeemed.
    """

    l1_block: int
    last_initialized_round: int
    withdraw_round: int
    oldest_creation: int = 0


@dataclass(frozen=True, slots=True)
class Winner:
    """A ticket to be redeemed once its quote has expired."""

    signed: SignedTicket
    ticket_hash: bytes
    params_expiration_block: int


@dataclass(frozen=True, slots=True)
class Takings:
    """What a payment brought. `refusal`, unless empty, goes to the sender, who keeps the credit."""

    sender: Address
    credit: Fraction = Fraction(0)
    rand_hash: bytes = b""
    nonces: tuple[int, ...] = ()
    expiration_block: int = 0
    winners: tuple[Winner, ...] = ()
    refusal: str = ""


@dataclass(slots=True)
class _Seen:
    expiration_block: int
    nonces: set[int] = field(default_factory=set)


class Receiver:
    """Takes tickets for one recipient."""

    def __init__(self, secret: bytes, recipient: Address, *, max_tickets: int) -> None:
        """`secret` is that of the quotes; `max_tickets` are looked at in one payment."""
        self._secret = secret
        self._recipient = recipient
        self._max_tickets = max_tickets
        self._seen: dict[bytes, _Seen] = {}
        self._block = 0

    def remember(self, seen: Iterable[tuple[bytes, int, int]]) -> None:
        """Take up what an earlier process saw: recipientRandHash, nonce, expiration block."""
        for hash_, nonce, block in seen:
            self._seen.setdefault(hash_, _Seen(block)).nonces.add(nonce)

    def advance(self, l1_block: int) -> None:
        """Drop the nonces of quotes whose tickets are not looked at any more; time never goes back.

        An endpoint that lags would else bring quotes back to life whose number is known by now, and
        payers could pick nonces that lose.
        """
        if l1_block <= self._block:
            return
        self._block = l1_block
        last = l1_block - GRACE_BLOCKS
        for hash_ in [h for h, seen in self._seen.items() if seen.expiration_block <= last]:
            del self._seen[hash_]

    def take(self, offered: Offered, now: Circumstances) -> Takings:
        """Judge every ticket of a payment; one that is refused may have brought something all the same."""
        self.advance(now.l1_block)
        params = offered.params
        rand = self._rand(offered)
        fatal = self._fatal(offered, rand, now)
        value = params.expected_value
        if fatal or value == 0:
            # Tickets for free work bring nothing, and cost nothing to make: they leave no trace.
            return Takings(offered.sender, refusal=fatal)
        series = TicketSeries(params, offered.sender)
        credited, refusal = 0, ""
        nonces: list[int] = []
        winners: list[Winner] = []
        for ticket in offered.tickets:
            fault = _bad_signature(series, ticket) or self._replayed(offered, ticket.nonce)
            if not fault:
                self._see(params, ticket.nonce)
                nonces.append(ticket.nonce)
                if series.is_winner(ticket.signature, rand):
                    winners.append(_winner(offered, ticket, rand))
                if params.expiration_block <= self._block:
                    # Its number may be known by now: it may still pay us, but is worth no credit.
                    fault = PARAMS_EXPIRED
            refusal = refusal or fault
            if not refusal:
                credited += 1
        return Takings(
            sender=offered.sender,
            credit=credited * value,
            rand_hash=params.recipient_rand_hash,
            nonces=tuple(nonces),
            expiration_block=params.expiration_block,
            winners=tuple(winners),
            refusal=refusal,
        )

    def _rand(self, offered: Offered) -> int:
        params = offered.params
        return recipient_rand(
            self._secret,
            seed=params.seed,
            sender=offered.sender,
            face_value=params.face_value,
            win_prob=params.win_prob,
            expiration_block=params.expiration_block,
            price=offered.price,
            creation=params.creation,
        )

    def _fatal(self, offered: Offered, rand: int, now: Circumstances) -> str:
        """Everything that is cheap to see comes before the first signature is looked at."""
        if len(offered.tickets) > self._max_tickets:
            return f"{len(offered.tickets)} tickets in a payment; at most {self._max_tickets}"
        if unlocks_soon(now.withdraw_round, now.last_initialized_round):
            who = checksum(offered.sender)
            return f"deposit and reserve for sender {who} is set to unlock soon"
        params = offered.params
        is_old = params.expiration_block <= self._block - GRACE_BLOCKS
        if is_old or params.creation.number < now.oldest_creation:
            return PARAMS_EXPIRED
        return self._not_ours(offered, rand)

    def _not_ours(self, offered: Offered, rand: int) -> str:
        if offered.params.recipient != self._recipient:
            return "invalid ticket recipient"
        if offered.sender == bytes(ADDRESS_BYTES):
            return "invalid ticket sender"
        if not hmac.compare_digest(rand_hash(rand), offered.params.recipient_rand_hash):
            return "invalid recipientRand for ticket recipientRandHash"
        return ""

    def _replayed(self, offered: Offered, nonce: int) -> str:
        seen = self._seen.get(offered.params.recipient_rand_hash)
        if seen is None:
            return ""
        # Addresses are put into words only where something is wrong: their checksum takes as long as
        # a fifth of a signature's check.
        if nonce in seen.nonces:
            who = checksum(offered.sender)
            return f"invalid ticket senderNonce: already seen sender={who} nonce={nonce}"
        if len(seen.nonces) >= MOST_NONCES:
            return f"invalid ticket senderNonce: too many values sender={checksum(offered.sender)}"
        return ""

    def _see(self, params: TicketParams, nonce: int) -> None:
        seen = self._seen.setdefault(params.recipient_rand_hash, _Seen(params.expiration_block))
        seen.nonces.add(nonce)


def _bad_signature(series: TicketSeries, ticket: TicketSenderParams) -> str:
    try:
        series.check(ticket.nonce, ticket.signature)
    except (SignatureError, ValueError):
        return "invalid ticket signature"
    return ""


def _winner(offered: Offered, ticket: TicketSenderParams, rand: int) -> Winner:
    made = ticket_of(offered.params, offered.sender, ticket.nonce)
    signed = SignedTicket(made, ticket.signature, rand)
    return Winner(signed, made.hash, offered.params.expiration_block)
