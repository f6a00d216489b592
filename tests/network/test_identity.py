"""Signatures and keystores, held against the reference's vectors and eth-account."""

import contextlib

import pytest
from eth_account import Account
from eth_account.messages import encode_defunct
from hypothesis import given
from hypothesis import strategies as st
from web3 import Web3

from network.errors import SignatureError
from network.identity import (
    KeySigner,
    auth_token,
    checksum,
    keccak,
    parse_address,
    random_session_id,
    recover,
    session_request_signature,
    sign_hashed,
    verify,
    verify_hashed,
    verify_session_request,
)
from network.units import Address

KEY = bytes.fromhex("4c0883a69102937d6231471b5dbb6204fe5129617082792ae468d01a3f362318")
ADDRESS = parse_address("0x2c7536E3605D9C16a7a3D7b1898e529396a65c23")
SIGNED = parse_address("3BadDb1eeE2105893136A3F96c8a963E9C6309d6")
MESSAGE = bytes.fromhex("b7da355477356fc4c47fcabcf232dc77a6db9b07b7e48b76261cc55cc8fbabb3")
SIGNATURE = bytes.fromhex(
    "206443228e8f784bc3a122de0d85eb3ebff82d6a79cca26c7eeb907099a6404f"
    "6dff57bc6828f28bd6cd073c89d94cf3364204679ed8365fa45b5ee6af19a9841c"
)
HIGH_S = bytes.fromhex(
    "e742ff452d41413616a5bf43fe15dd88294e983d3d36206c2712f39083d638bd"
    "e0a0fc89be718fbc1033e1d30d78be1c68081562ed2e97af876f286f3453231d1b"
)
#: Cheap to open; the strength is not what these tests are about.

keys = st.integers(1, 2**255).map(lambda number: number.to_bytes(32, "big"))


def test_the_references_signature_is_valid() -> None:
    assert recover(MESSAGE, SIGNATURE) == SIGNED
    verify(SIGNED, MESSAGE, SIGNATURE)


@pytest.mark.parametrize(
    ("signature", "reason"),
    [
        (SIGNATURE[:64], "invalid signature length"),
        (b"", "invalid signature length"),
        (SIGNATURE + b"\0", "invalid signature length"),
        (HIGH_S, "signature s value too high"),
        (SIGNATURE[:64] + b"\x00", "signature v value must be 27 or 28"),
        (SIGNATURE[:64] + b"\x1d", "signature v value must be 27 or 28"),
        (bytes(64) + b"\x1b", "invalid signature"),
        (b"\xff" * 32 + SIGNATURE[32:], "invalid signature"),
    ],
)
def test_a_malformed_signature_is_refused_in_the_references_words(
    signature: bytes, reason: str
) -> None:
    with pytest.raises(SignatureError, match=f"^{reason}$"):
        recover(MESSAGE, signature)


def test_another_accounts_signature_is_refused() -> None:
    with pytest.raises(SignatureError, match="another account"):
        verify(ADDRESS, MESSAGE, SIGNATURE)
    with pytest.raises(SignatureError):
        verify(SIGNED, MESSAGE + b"\0", SIGNATURE)


@given(st.binary(max_size=80), st.binary(min_size=65, max_size=65))
def test_arbitrary_signatures_raise_nothing_but_signature_errors(
    message: bytes, signature: bytes
) -> None:
    with contextlib.suppress(SignatureError):
        assert len(recover(message, signature)) == 20


@given(keys, st.binary(max_size=200))
def test_signing_agrees_with_eth_account(key: bytes, message: bytes) -> None:
    signer = KeySigner(key)
    account = Account.from_key(key)
    signature = signer.sign(message)
    assert checksum(signer.address) == account.address
    assert signature == bytes(account.sign_message(encode_defunct(message)).signature)
    assert recover(message, signature) == signer.address
    assert Account.recover_message(encode_defunct(message), signature=signature) == account.address


@given(keys, st.binary(max_size=200))
def test_hashed_signing_signs_the_hash(key: bytes, data: bytes) -> None:
    signer = KeySigner(key)
    signature = sign_hashed(signer, data)
    assert signature == signer.sign(keccak(data))
    verify_hashed(signer.address, data, signature)
    with pytest.raises(SignatureError):
        verify(signer.address, data, signature)


@given(st.binary(max_size=400))
def test_keccak_agrees_with_web3(data: bytes) -> None:
    assert keccak(data) == bytes(Web3.keccak(data))


@given(st.binary(min_size=20, max_size=20).map(Address))
def test_addresses_print_and_read_as_web3_has_them(address: Address) -> None:
    text = checksum(address)
    assert text == Web3.to_checksum_address(address)
    assert parse_address(text) == address
    assert parse_address(text.lower()) == address
    assert parse_address(text[2:].upper()) == address


@pytest.mark.parametrize(
    "text", ["", "0x", "0x1234", "zz" * 20, "0x" + "12 " * 20, "0x" + "1" * 41, "limner"]
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not an address"):
        parse_address(text)


def test_a_mistyped_checksum_is_noticed() -> None:
    with pytest.raises(ValueError, match="wrong checksum"):
        parse_address("0x2C7536E3605D9C16a7a3D7b1898e529396a65c23")


def test_the_session_request_signature_is_the_references() -> None:
    signer = KeySigner(KEY)
    assert signer.address == ADDRESS
    assert keccak(checksum(ADDRESS).encode()).hex() == (
        "ffb011b0bd95db11b1f74b60c50582c11e588e3db3a046b72316c221599bcfe6"
    )
    signature = session_request_signature(signer)
    assert signature.hex() == (
        "662f6ce6e23e70c7db9bdcc7b0d91bdf58d8743ba347ab0b9aa060154644c551"
        "22dd6afcc20a6cba9cab1d565a6b1dc36be9a9314e0317b943f8b0f1a726e2971b"
    )
    verify_session_request(ADDRESS, signature)
    with pytest.raises(SignatureError):
        verify_session_request(SIGNED, signature)


@pytest.mark.parametrize(
    ("secret", "session", "expiration", "token"),
    [
        (b"foo", "bar", 100, "e896e58f32128ad59566fbef0ae8d4b702f6f08cdfe3f17b544696016f5e5423"),
        (
            b"foo",
            "notbar",
            100,
            "d4c0245683c524772f0756cba7f24ba62e0c8773eb8d3927a95ab3a986ce2d17",
        ),
        (b"foo", "bar", 200, "cfc21015f594e4c3b32bbaf771fe075825a6d0f2ef8e976d726e8d6d2e050cf2"),
        (
            b"notfoo",
            "bar",
            100,
            "d3e615702ffe5e438458307c2be8999279dc652e0199e97fbd3d01ef0ce71fa6",
        ),
    ],
)
def test_auth_tokens_are_the_references(
    secret: bytes, session: str, expiration: int, token: str
) -> None:
    assert auth_token(secret, session, expiration).hex() == token


def test_a_session_id_is_eight_hex_digits() -> None:
    assert random_session_id(bytes([1, 0xAB, 3, 4])) == "01ab0304"


def test_a_signer_does_not_print_its_key() -> None:
    assert KEY.hex() not in repr(KeySigner(KEY))
