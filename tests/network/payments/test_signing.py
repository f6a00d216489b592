"""Signatures over tickets: each holds for one ticket only, and other libraries judge them as we do."""

from dataclasses import replace
from typing import Any, Final

import pytest
from eth_account import Account
from eth_account.messages import encode_defunct
from eth_keys.exceptions import BadSignature
from eth_utils.exceptions import ValidationError
from hypothesis import given, settings
from hypothesis import strategies as st

from network.errors import SignatureError
from network.identity import KeySigner, recover
from network.payments.signing import TicketSeries
from network.payments.tickets import CreationRound, TicketParams
from network.units import Address, Wei
from tests.network.payments.test_tickets import NONCES, PARAMS

SIGNER: Final = KeySigner(b"\x21" * 32)
HALF_ORDER: Final = 0x7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF5D576E7357A4501DDFE92F46681B20A0
NUMBERS: Final = st.integers(0, 2**256 - 1) | st.sampled_from(
    (0, 1, HALF_ORDER, HALF_ORDER + 1, 2 * HALF_ORDER, 2 * HALF_ORDER + 1, 2**256 - 1)
)


def _flipped(params: TicketParams, bit: int) -> TicketParams:
    """One bit of what the hash covers, the nonce aside, is another one."""
    creation = params.creation

    def flip(data: bytes) -> bytes:
        number = int.from_bytes(data, "big") ^ 1 << bit % (8 * len(data))
        return number.to_bytes(len(data), "big")

    changes: tuple[dict[str, Any], ...] = (
        {"recipient": Address(flip(params.recipient))},
        {"face_value": Wei(params.face_value ^ 1 << bit)},
        {"win_prob": params.win_prob ^ 1 << bit},
        {"recipient_rand_hash": flip(params.recipient_rand_hash)},
        {"creation": replace(creation, number=creation.number ^ 1 << bit % 63)},
        {"creation": replace(creation, block_hash=flip(creation.block_hash))},
    )
    return replace(params, **changes[bit % len(changes)])


@settings(max_examples=100)
@given(params=PARAMS, nonce=NONCES, bit=st.integers(0, 255))
def test_case_6_a_ticket_with_any_bit_changed_is_refused(
    params: TicketParams, nonce: int, bit: int
) -> None:
    series = TicketSeries(params, SIGNER.address)
    signature = series.sign(SIGNER, nonce)
    series.check(nonce, signature)
    for other, number in (
        (TicketSeries(_flipped(params, bit), SIGNER.address), nonce),
        (series, nonce ^ 1 << bit % 32),
        (TicketSeries(params, KeySigner(b"\x22" * 32).address), nonce),
    ):
        with pytest.raises(SignatureError):
            other.check(number, signature)


def _by_eth_account(digest: bytes, signature: bytes) -> str:
    try:
        return str(Account.recover_message(encode_defunct(primitive=digest), signature=signature))
    except (BadSignature, ValidationError):
        return ""


def _by_us(digest: bytes, signature: bytes) -> tuple[str, str]:
    """The account, or why there is none."""
    try:
        return "0x" + recover(digest, signature).hex(), ""
    except SignatureError as error:
        return "", str(error)


@given(
    digest=st.binary(min_size=32, max_size=32), r=NUMBERS, s=NUMBERS, v=st.sampled_from((27, 28))
)
def test_case_6_where_eth_account_is_as_strict_it_says_the_same(
    digest: bytes, r: int, s: int, v: int
) -> None:
    signature = r.to_bytes(32, "big") + s.to_bytes(32, "big") + bytes([v])
    theirs, (ours, refusal) = _by_eth_account(digest, signature), _by_us(digest, signature)
    if refusal == "signature s value too high":
        # It takes these, as the contract does not.
        assert s > HALF_ORDER
    else:
        assert s <= HALF_ORDER
        assert ours == theirs.lower()


@given(params=PARAMS, nonce=NONCES)
def test_signing_twice_gives_the_same_bytes(params: TicketParams, nonce: int) -> None:
    """A payment that is sent again is the same payment; nothing is drawn anew."""
    series = TicketSeries(params, SIGNER.address)
    assert series.sign(SIGNER, nonce) == series.sign(SIGNER, nonce)


def test_a_ticket_of_no_round_is_signed_over_fewer_bytes() -> None:
    """Livepeer leaves the round out where both of its parts are zero: such a ticket is never redeemed."""
    params = TicketParams(Address(bytes(20)), Wei(1), 1, bytes(32), b"", 1, CreationRound())
    series = TicketSeries(params, SIGNER.address)
    other = TicketSeries(replace(params, creation=CreationRound(1)), SIGNER.address)
    assert series.hash(1) != other.hash(1)
    series.check(1, series.sign(SIGNER, 1))
