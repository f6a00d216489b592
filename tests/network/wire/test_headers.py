"""Header encoding and the signed credentials of a job, by the reference's vectors."""

import base64
import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from network.capabilities import job_capabilities
from network.errors import SignatureError, WireError
from network.identity import KeySigner, keccak, session_request_signature
from network.units import Address, ModelId
from network.wire.codec import (
    AuthToken,
    OrchestratorRequest,
    decode_segment_credentials,
    encode_orchestrator_request,
)
from network.wire.headers import (
    MAX_HEADER,
    NO_SEGMENT_HASH,
    decode_header,
    encode_header,
    flatten,
    manifest_id,
    profile_ids,
    segment_credentials,
    verify_segment,
)

SIGNER = KeySigner(
    bytes.fromhex("4c0883a69102937d6231471b5dbb6204fe5129617082792ae468d01a3f362318")
)
TURBO = ModelId("stabilityai/sdxl-turbo")
TOKEN = AuthToken(bytes(32), "01ab0304", 1_900_000_000)


@given(st.binary(max_size=2000))
def test_headers_are_standard_base64(data: bytes) -> None:
    text = encode_header(data)
    assert text == base64.b64encode(data).decode()
    assert decode_header(text) == data


@pytest.mark.parametrize(
    "text",
    [
        "a",
        "abc",
        "ab=c",
        "a b=",
        "YWJj\n",
        "YWJj-_==",
        "\u00e9\u00e9\u00e9\u00e9",
        "====",
        "YQ=",
        "\ud800",
    ],
)
def test_what_is_no_strict_base64_is_refused(text: str) -> None:
    with pytest.raises(WireError, match=r"^base64 decode error: "):
        decode_header(text)


@given(st.text(max_size=60))
def test_arbitrary_headers_raise_nothing_but_wire_errors(text: str) -> None:
    with contextlib.suppress(WireError):
        decode_header(text)


def test_a_header_is_measured_before_it_is_read() -> None:
    assert len(decode_header("A" * MAX_HEADER)) == MAX_HEADER // 4 * 3
    with pytest.raises(WireError, match="characters"):
        decode_header("A" * (MAX_HEADER + 4))


def test_a_video_segment_flattens_as_in_the_reference() -> None:
    flat = flatten(
        b"abcdef",
        1234,
        b"browns".ljust(32, b"\0"),
        profile_ids("P144p30fps16x9", "P240p30fps16x9"),
    )
    assert keccak(flat).hex() == "08a398e7e7a5a545b0b07d9e7e1eab52b4131e0df1621bd53ee6e7550a15465b"


def test_a_text_to_image_job_flattens_and_signs_as_in_the_reference() -> None:
    flat = flatten(manifest_id(TURBO), 0, NO_SEGMENT_HASH)
    assert flat.hex() == (
        "32375f73746162696c69747961692f7364786c2d747572626f"
        + "0" * 64
        + "c5d2460186f7233c927e7db2dcc703c0e500b653ca82273b7bfad8045d85a470"
    )
    assert keccak(flat).hex() == "2c573d58a1d9cf460f70d6a90dede7cc9b16dd000b66c184eda70c70d1583f85"
    encoded = segment_credentials(SIGNER, TURBO, job_capabilities(TURBO, "0.1.0"), TOKEN)
    credentials = decode_segment_credentials(encoded)
    assert credentials.signature.hex() == (
        "0fb7aef5b1203f3df636ff7c8d14b09677ef9b4d94b9d0593595f792a81f7fe6"
        "5102b6d989424408050a6158c3b9982c3bbc6ccc32bd17d2be08a8e56080f4e21b"
    )
    assert credentials.manifest_id == b"27_stabilityai/sdxl-turbo"
    assert credentials.profiles == b"invalid"
    assert credentials.auth_token == TOKEN
    verify_segment(credentials, SIGNER.address)


def test_credentials_of_another_account_are_refused() -> None:
    encoded = segment_credentials(SIGNER, TURBO, job_capabilities(TURBO, ""), None)
    with pytest.raises(SignatureError):
        verify_segment(decode_segment_credentials(encoded), Address(bytes(20)))


def test_an_off_chain_gateway_sends_unsigned_credentials() -> None:
    encoded = segment_credentials(None, TURBO, job_capabilities(TURBO, ""), TOKEN)
    credentials = decode_segment_credentials(encoded)
    assert credentials.signature == b""
    with pytest.raises(SignatureError, match="invalid signature length"):
        verify_segment(credentials, SIGNER.address)


def test_a_session_request_is_the_references_bytes() -> None:
    signature = session_request_signature(SIGNER)
    request = OrchestratorRequest(SIGNER.address, signature)
    expected = "0a14" + SIGNER.address.hex() + "1241" + signature.hex()
    assert encode_orchestrator_request(request).hex() == expected
