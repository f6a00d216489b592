"""Who proves what to whom; nothing that is signed here is of use anywhere else."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from network.errors import SignatureError, WireError
from network.identity import KeySigner, keccak, personal_digest, session_request_signature
from network.link.handshake import (
    Challenge,
    Claim,
    Role,
    Terms,
    Welcome,
    claimed_account,
    read,
    write,
)
from network.link.news import ModelNews, News, read_news, write_news

NODE, GATEWAY, OTHER = (KeySigner(bytes([number]) * 32) for number in (1, 2, 3))
TERMS = Terms(NODE.address, GATEWAY.address, "ab" * 32, "cd" * 32, b"\x05" * 32)


def test_both_prove_themselves() -> None:
    TERMS.check("node", TERMS.proof("node", NODE))
    TERMS.check("gateway", TERMS.proof("gateway", GATEWAY))


@pytest.mark.parametrize(
    "other",
    [
        {"node": OTHER.address},
        {"gateway": OTHER.address},
        {"node_nonce": "00" * 32},
        {"gateway_nonce": "00" * 32},
        {"certificate": bytes(32)},
    ],
)
def test_a_proof_holds_for_nothing_else(other: dict[str, Any]) -> None:
    elsewhere = msgspec.structs.replace(TERMS, **other)
    for role, signer in (("node", NODE), ("gateway", GATEWAY)):
        with pytest.raises(SignatureError):
            elsewhere.check(role, TERMS.proof(role, signer))  # type: ignore[arg-type]


def test_a_proof_is_not_sent_back_as_the_other_sides() -> None:
    same = Terms(NODE.address, NODE.address, "ab" * 32, "cd" * 32, b"\x05" * 32)
    with pytest.raises(SignatureError):
        same.check("gateway", same.proof("node", NODE))


def test_what_is_signed_is_no_message_of_the_network() -> None:
    """Tickets, segments, sessions and pings are signed as 32 bytes, whose digest differs."""
    roles: tuple[Role, ...] = ("node", "gateway")
    for role in roles:
        sentence = TERMS.sentence(role)
        assert len(sentence) > 300
        assert personal_digest(sentence) != personal_digest(keccak(sentence))
    assert bytes.fromhex(TERMS.proof("node", NODE)) != session_request_signature(NODE)


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_bytes_are_a_greeting_or_refused(body: bytes) -> None:
    text = body.decode("utf-8", "replace")
    for kind in (Challenge, Claim, Welcome):
        with pytest.raises(WireError):
            read(kind, text)  # type: ignore[type-var]
    with pytest.raises(WireError):
        read_news(body)


def test_greetings_are_read_back() -> None:
    claim = Claim("0x" + NODE.address.hex(), "ab" * 32, TERMS.proof("node", NODE), jobs=False)
    assert read(Claim, write(claim)) == claim
    assert claimed_account(claim) == NODE.address
    welcome = Welcome(TERMS.proof("gateway", GATEWAY), 10.0)
    assert read(Welcome, write(welcome)) == welcome


@pytest.mark.parametrize(
    "text",
    [
        '{"nonce":"' + "a" * 63 + '"}',
        '{"nonce":"' + "G" * 64 + '"}',
        '{"nonce":"' + "a" * 64 + '","x":"' + "y" * 3000 + '"}',
        "[" * 1000,
        "null",
    ],
)
def test_malformed_challenges_are_refused(text: str) -> None:
    with pytest.raises(WireError):
        read(Challenge, text)


@pytest.mark.parametrize("silence", [0.0, -1.0, 1e9, float("nan")])
def test_nobody_makes_a_node_wait_for_ever(silence: float) -> None:
    with pytest.raises(WireError):
        read(Welcome, write(Welcome("0" * 130, silence)))


def test_a_claim_with_a_wrong_checksum_names_nobody() -> None:
    claim = Claim("0x" + "aB" * 20, "ab" * 32, "00" * 65)
    with pytest.raises(SignatureError):
        claimed_account(claim)


@given(
    st.dictionaries(
        st.text(min_size=1, max_size=20),
        st.builds(ModelNews, st.booleans(), st.integers(0, 1000), st.integers(0, 1000)),
        max_size=5,
    ),
    st.text(max_size=64),
)
def test_news_are_read_back(models: dict[str, ModelNews], terms: str) -> None:
    news = News(models, terms)
    assert read_news(write_news(news)) == news


def test_news_of_too_many_models_are_not_written() -> None:
    many = {f"{number:0200}": ModelNews(True, 1, 1) for number in range(1000)}  # noqa: FBT003
    with pytest.raises(WireError):
        write_news(News(many, ""))


def test_news_out_of_bounds_are_refused() -> None:
    for body in (
        b'{"models":{"m":[true,-1,0]},"terms":""}',
        b'{"models":{"m":[true,1]},"terms":""}',
        b'{"models":{"":[true,1,1]},"terms":""}',
        b'{"models":{"m":[true,1e3,0]},"terms":""}',
        b'{"models":{}}',
    ):
        with pytest.raises(WireError):
            read_news(body)
