"""Tickets: their hash, what they are worth, and when they win. Pure.

Formats and formulas are those of Livepeer's TicketBroker contract: the hash is keccak256 over the
packed fields, a ticket wins if keccak256(signature, recipientRand) is below its win probability, and
a win probability is a numerator over 2**256 - 1.
"""

from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from network.identity import keccak
from network.units import Address, Wei

#: A win probability of this is certainty but for one value in 2**256; also the largest uint256.
CERTAIN: Final = 2**256 - 1
#: Nonces travel as uint32.
LARGEST_NONCE: Final = 2**32 - 1
HASH_BYTES: Final = 32
_NO_HASH: Final = bytes(HASH_BYTES)


@dataclass(frozen=True, slots=True)
class CreationRound:
    """The round that a ticket was made in, and the hash of the L1 block that the round names.

    It binds a ticket to one chain and to a lifetime of `ticketValidityPeriod` rounds.
    """

    number: int = 0
    block_hash: bytes = _NO_HASH

    @property
    def aux_data(self) -> bytes:
        """64 bytes as the contract wants them; empty where both parts are zero, as in Livepeer."""
        if self.number == 0 and self.block_hash == _NO_HASH:
            return b""
        return self.number.to_bytes(32, "big") + self.block_hash


@dataclass(frozen=True, slots=True)
class TicketParams:
    """What a recipient asks tickets to say; every field but `recipient` is its choice per quote.

    `face_value` in wei, `win_prob` over `CERTAIN`, `expiration_block` an L1 block.
    """

    recipient: Address
    face_value: Wei
    win_prob: int
    recipient_rand_hash: bytes
    seed: bytes
    expiration_block: int
    creation: CreationRound

    @property
    def expected_value(self) -> Fraction:
        """Wei that one ticket is worth, exactly."""
        return expected_value(self.face_value, self.win_prob)


@dataclass(frozen=True, slots=True)
class Ticket:
    """A promise of `face_value` if it wins; worth nothing without its sender's signature."""

    recipient: Address
    sender: Address
    face_value: Wei
    win_prob: int
    sender_nonce: int
    recipient_rand_hash: bytes
    creation: CreationRound

    @property
    def hash(self) -> bytes:
        """32 bytes that name the ticket on chain and that its sender signs."""
        head, tail = hash_parts(
            self.recipient,
            self.sender,
            face_value=self.face_value,
            win_prob=self.win_prob,
            recipient_rand_hash=self.recipient_rand_hash,
            creation=self.creation,
        )
        return keccak(head + self.sender_nonce.to_bytes(32, "big") + tail)

    @property
    def expected_value(self) -> Fraction:
        """Wei that the ticket is worth before it is drawn, exactly."""
        return expected_value(self.face_value, self.win_prob)


def hash_parts(
    recipient: Address,
    sender: Address,
    *,
    face_value: Wei,
    win_prob: int,
    recipient_rand_hash: bytes,
    creation: CreationRound,
) -> tuple[bytes, bytes]:
    """What stands before and after the nonce in the bytes that a ticket's hash covers."""
    head = recipient + sender + face_value.to_bytes(32, "big") + win_prob.to_bytes(32, "big")
    return head, recipient_rand_hash + creation.aux_data


def ticket_of(params: TicketParams, sender: Address, nonce: int) -> Ticket:
    """The ticket that `sender` signs for `params`."""
    return Ticket(
        recipient=params.recipient,
        sender=sender,
        face_value=params.face_value,
        win_prob=params.win_prob,
        sender_nonce=nonce,
        recipient_rand_hash=params.recipient_rand_hash,
        creation=params.creation,
    )


def expected_value(face_value: Wei, win_prob: int) -> Fraction:
    return Fraction(face_value * win_prob, CERTAIN)


def rand_hash(recipient_rand: int) -> bytes:
    """keccak256 of the number in 32 bytes: what is on the wire until the ticket is redeemed."""
    return keccak(recipient_rand.to_bytes(32, "big"))


def wins(signature: bytes, recipient_rand: int, win_prob: int) -> bool:
    """Whether the ticket with this signature won; known to the recipient alone until it tells."""
    drawn = keccak(signature + recipient_rand.to_bytes(32, "big"))
    return int.from_bytes(drawn, "big") < win_prob
