"""The number whose hash a quote shows and whose value decides who wins; the recipient's secret."""

import hashlib
import hmac
from fractions import Fraction
from typing import Final

from network.payments.tickets import CreationRound
from network.units import Address, Wei

SECRET_BYTES: Final = 32
SEED_BYTES: Final = 32
_LENGTH_BYTES: Final = 4


def recipient_rand(
    secret: bytes,
    *,
    seed: bytes,
    sender: Address,
    face_value: Wei,
    win_prob: int,
    expiration_block: int,
    price: Fraction,
    creation: CreationRound,
) -> int:
    """HMAC-SHA256 over everything that a quote promises, as an integer below 2**256.

    The recipient keeps nothing per quote: a payer that changes any of the values comes to another
    number, whose hash is not the one in its ticket. Each value is preceded by its length, so that no
    two sets of values have the same bytes; Livepeer joins them bare, and may do so, for the derivation
    never leaves the recipient.
    """
    parts = (
        seed,
        sender,
        _integer(face_value),
        _integer(win_prob),
        _integer(expiration_block),
        _integer(price.numerator),
        _integer(price.denominator),
        creation.aux_data,
    )
    message = b"".join(len(part).to_bytes(_LENGTH_BYTES, "big") + part for part in parts)
    return int.from_bytes(hmac.digest(secret, message, hashlib.sha256), "big")


def _integer(value: int) -> bytes:
    return value.to_bytes((value.bit_length() + 7) // 8, "big")
