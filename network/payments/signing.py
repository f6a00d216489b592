"""Making and checking many tickets that differ by their nonce alone.

What the tickets share is packed once: a payment of a hundred tickets costs a hundred hashes and
signatures, and nothing else.
"""

from typing import Final

from network.identity import Signer, keccak, verify
from network.payments.tickets import LARGEST_NONCE, TicketParams, hash_parts, wins
from network.units import Address

_NONCE_BYTES: Final = 32


class TicketSeries:
    """The tickets of one sender for one quote."""

    __slots__ = ("_head", "_tail", "params", "sender")

    def __init__(self, params: TicketParams, sender: Address) -> None:
        self.params: Final = params
        self.sender: Final = sender
        self._head, self._tail = hash_parts(
            params.recipient,
            sender,
            face_value=params.face_value,
            win_prob=params.win_prob,
            recipient_rand_hash=params.recipient_rand_hash,
            creation=params.creation,
        )

    def hash(self, nonce: int) -> bytes:
        """Hash of the ticket with this nonce. Raises ValueError for one that is no uint32."""
        if not 0 <= nonce <= LARGEST_NONCE:
            raise ValueError(f"ticket nonce {nonce} is not in 0..2**32-1")
        return keccak(self._head + nonce.to_bytes(_NONCE_BYTES, "big") + self._tail)

    def sign(self, signer: Signer, nonce: int) -> bytes:
        """The sender's signature over one ticket: 65 bytes, v 27 or 28, low s."""
        return signer.sign(self.hash(nonce))

    def check(self, nonce: int, signature: bytes) -> None:
        """Raise SignatureError unless the sender signed the ticket, exactly as the contract judges it."""
        verify(self.sender, self.hash(nonce), signature)

    def is_winner(self, signature: bytes, recipient_rand: int) -> bool:
        return wins(signature, recipient_rand, self.params.win_prob)
