"""Tickets against Livepeer's published vectors, and what must hold for any of them."""

from dataclasses import replace
from fractions import Fraction

import pytest
from eth_account import Account
from eth_account.messages import encode_defunct
from hypothesis import given, settings
from hypothesis import strategies as st
from web3 import Web3

from network.errors import SignatureError
from network.identity import KeySigner, keccak, parse_address, verify
from network.payments.signing import TicketSeries
from network.payments.tickets import (
    CERTAIN,
    CreationRound,
    Ticket,
    TicketParams,
    expected_value,
    rand_hash,
    ticket_of,
    wins,
)
from network.units import Address, Wei
from tests.network.payments.vectors import Vector, golden, redeemed

H = bytes.fromhex("7624778dedc75f8b322b9fa1632a610d40b85e106c7d9bf0e743a9ce291b9c6f")
B = bytes.fromhex("41b1a0649752af1b28b3dc29a1556eee781e4a4c3a1f7f53f90fa834de098c4d")
NOTHING = Ticket(Address(bytes(20)), Address(bytes(20)), Wei(0), 0, 0, bytes(32), CreationRound())
KEY = bytes.fromhex("4c0883a69102937d6231471b5dbb6204fe5129617082792ae468d01a3f362318")
WORDS = st.integers(0, CERTAIN)
ADDRESSES = st.binary(min_size=20, max_size=20).map(Address)
PARAMS = st.builds(
    TicketParams,
    recipient=ADDRESSES,
    face_value=WORDS.map(Wei),
    win_prob=WORDS,
    recipient_rand_hash=st.binary(min_size=32, max_size=32),
    seed=st.binary(max_size=32),
    expiration_block=st.integers(0, 2**63 - 1),
    creation=st.builds(
        CreationRound, st.integers(0, 2**63 - 1), st.binary(min_size=32, max_size=32)
    ),
)
NONCES = st.integers(0, 2**32 - 1)


@pytest.mark.parametrize(
    ("ticket", "digest"),
    [
        (replace(NOTHING, sender_nonce=4294967295), "e1393fc7f6de093780674022f96cb8e3872235167d037c04d554e58c0e63d280"),
        (replace(NOTHING, sender_nonce=1), "ce0918ba94518293e9712effbe5fca4f1f431089833a5b8c257cb1e024595f68"),
        (replace(NOTHING, face_value=Wei(1), win_prob=500), "87ef13f2d37e4d5352a01d3c77b8179d80e0887f1953bfabfd0bfd7b0f689ddd"),
        (replace(NOTHING, face_value=Wei(500), win_prob=1), "aa4b35071043587992ac8b9dd1b2cf1d8311130e6458cf0b2342484e21af5f5b"),
        (replace(NOTHING, recipient=parse_address("73AEd7b5dEb30222fa896f399d46cC99c7BEe57F")), "81e353ae39046e2b77b9f996abbaeed527fda559b61ef90f299c4499dd508ccc"),
        (replace(NOTHING, recipient_rand_hash=B), "be5eaf9a49a39540b9bb02f1a21904f61324a29819e2c032824bfaa10c100b17"),
        (replace(NOTHING, creation=CreationRound(10, B)), "e502907c16036ab3d11b78c5a2e93c20f3d6415c67f91de4ed01348182b3b2e2"),
    ],
)  # fmt: skip
def test_hashes_are_those_of_livepeer(ticket: Ticket, digest: str) -> None:
    assert ticket.hash.hex() == digest


def test_aux_data_is_empty_only_where_both_parts_are_zero() -> None:
    five = (5).to_bytes(32, "big")
    assert CreationRound(0, H).aux_data == bytes(32) + H
    assert CreationRound(5).aux_data == five + bytes(32)
    assert CreationRound(5, H).aux_data == five + H
    assert CreationRound().aux_data == b""


@pytest.mark.parametrize("vector", golden() + redeemed(), ids=lambda v: v.hash.hex()[:8])
def test_published_tickets_hold_in_every_part(vector: Vector) -> None:
    ticket = vector.ticket
    assert ticket.hash == vector.hash
    assert rand_hash(vector.recipient_rand) == ticket.recipient_rand_hash
    verify(ticket.sender, ticket.hash, vector.signature)
    drawn = keccak(vector.signature + vector.recipient_rand.to_bytes(32, "big"))
    assert int.from_bytes(drawn, "big") == vector.win_value
    won = vector.win_value < ticket.win_prob
    assert wins(vector.signature, vector.recipient_rand, ticket.win_prob) is won
    if vector.key:
        assert KeySigner(vector.key).sign(ticket.hash) == vector.signature


def test_the_ticket_derived_from_published_parameters() -> None:
    ticket = Ticket(
        recipient=parse_address("73AEd7b5dEb30222fa896f399d46cC99c7BEe57F"),
        sender=KeySigner(KEY).address,
        face_value=Wei(100000000),
        win_prob=5789604461865809771178549250434395392663499233282028201972879200395660,
        sender_nonce=1,
        recipient_rand_hash=rand_hash(10),
        creation=CreationRound(5, H),
    )
    assert ticket.hash.hex() == "6c3b14c9579c20ba6c92e9bfe1c33fe6a96ab097e17f2303169ff21926374ba8"
    signature = KeySigner(KEY).sign(ticket.hash)
    assert signature.hex() == (
        "48235d3c732564e989636cbe79da2aea413c33bcdbfc495b2801eefd17147df6"
        "5d7790e1f4c8173664183e969fc0a050150cd602f7b2a189765c2d00f39a523a1b"
    )
    assert not wins(signature, 10, ticket.win_prob)


def test_expected_values_are_exact() -> None:
    assert round(expected_value(Wei(1000), CERTAIN // 2)) == 500
    assert expected_value(Wei(1000), 0) == 0
    assert expected_value(Wei(1000), CERTAIN) == 1000
    assert expected_value(Wei(0), 999) == 0
    assert expected_value(Wei(1), CERTAIN // 4) == Fraction(CERTAIN // 4, CERTAIN)


def test_winning_is_strictly_below_the_probability() -> None:
    vector = golden()[0]
    assert wins(vector.signature, vector.recipient_rand, vector.win_value + 1)
    assert not wins(vector.signature, vector.recipient_rand, vector.win_value)


@given(params=PARAMS, nonce=NONCES, sender=ADDRESSES)
def test_the_hash_is_the_contracts_packing(
    params: TicketParams, nonce: int, sender: Address
) -> None:
    packed = Web3.solidity_keccak(
        ["address", "address", "uint256", "uint256", "uint256", "bytes32", "bytes"],
        [
            Web3.to_checksum_address(params.recipient),
            Web3.to_checksum_address(sender),
            params.face_value,
            params.win_prob,
            nonce,
            params.recipient_rand_hash,
            params.creation.aux_data,
        ],
    )
    assert TicketSeries(params, sender).hash(nonce) == bytes(packed)
    assert ticket_of(params, sender, nonce).hash == bytes(packed)


@settings(max_examples=30)
@given(params=PARAMS, nonce=NONCES)
def test_what_is_signed_can_be_checked_and_is_what_other_wallets_sign(
    params: TicketParams, nonce: int
) -> None:
    signer = KeySigner(KEY)
    series = TicketSeries(params, signer.address)
    signature = series.sign(signer, nonce)
    series.check(nonce, signature)
    theirs = Account.sign_message(encode_defunct(primitive=series.hash(nonce)), KEY)
    assert signature == bytes(theirs.signature)


@settings(max_examples=60)
@given(params=PARAMS, nonce=NONCES, bit=st.integers(0, 65 * 8 - 1))
def test_case_6_a_signature_with_any_bit_changed_is_refused(
    params: TicketParams, nonce: int, bit: int
) -> None:
    signer = KeySigner(KEY)
    series = TicketSeries(params, signer.address)
    changed = bytearray(series.sign(signer, nonce))
    changed[bit // 8] ^= 1 << bit % 8
    with pytest.raises(SignatureError):
        series.check(nonce, bytes(changed))


def test_case_6_the_second_signature_that_anybody_can_make_is_refused() -> None:
    order = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
    vector = golden()[0]
    s = order - int.from_bytes(vector.signature[32:64], "big")
    twin = vector.signature[:32] + s.to_bytes(32, "big") + bytes([55 - vector.signature[64]])
    with pytest.raises(SignatureError, match="s value too high"):
        verify(vector.ticket.sender, vector.hash, twin)


@settings(max_examples=40)
@given(params=PARAMS, other=PARAMS, nonce=NONCES, other_nonce=NONCES)
def test_a_signature_holds_for_its_own_ticket_only(
    params: TicketParams, other: TicketParams, nonce: int, other_nonce: int
) -> None:
    signer = KeySigner(KEY)
    signature = TicketSeries(params, signer.address).sign(signer, nonce)
    series = TicketSeries(other, signer.address)
    if series.hash(other_nonce) == TicketSeries(params, signer.address).hash(nonce):
        series.check(other_nonce, signature)
        return
    with pytest.raises(SignatureError):
        series.check(other_nonce, signature)


@pytest.mark.parametrize("nonce", [-1, 2**32])
def test_case_23_a_nonce_that_does_not_travel_is_refused(nonce: int) -> None:
    params = TicketParams(
        Address(bytes(20)), Wei(1), 1, bytes(32), b"", 1, CreationRound(1, bytes(32))
    )
    with pytest.raises(ValueError, match="nonce"):
        TicketSeries(params, Address(bytes(20))).hash(nonce)


def test_tickets_win_as_often_as_their_probability_says() -> None:
    """20,000 tickets, 4 sigma; keys, numbers and nonces are fixed, so that chance decides once."""
    signer, count, odds = KeySigner(KEY), 20_000, Fraction(1, 7)
    rand = 12345
    params = TicketParams(
        Address(b"r" * 20),
        Wei(7000),
        int(CERTAIN * odds),
        rand_hash(rand),
        b"",
        1,
        CreationRound(3, H),
    )
    series = TicketSeries(params, signer.address)
    won = sum(series.is_winner(series.sign(signer, nonce), rand) for nonce in range(1, count + 1))
    deviation = abs(won - count * odds)
    assert deviation**2 <= 16 * count * odds * (1 - odds), f"{won} of {count} won"
