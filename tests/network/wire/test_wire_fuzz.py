"""Whatever bytes come in, a decoder answers with a bounded value or with WireError, and nothing else."""

from contextlib import suppress
from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from network.capabilities import Capabilities, job_capabilities
from network.errors import WireError
from network.identity import KeySigner, session_request_signature
from network.payments.tickets import CreationRound, TicketParams
from network.units import Address, ModelId, Wei
from network.wire import codec
from network.wire.headers import decode_header, encode_header, segment_credentials
from network.wire.session import (
    AuthToken,
    OrchestratorInfo,
    OrchestratorRequest,
    Payment,
    TicketSenderParams,
)
from network.wire.tickets import (
    decode_ticket_params,
    encode_creation_round,
    encode_ticket_params,
)
from tests.network.wire.protobuf_mutations import (
    BYTES,
    GROUP_END,
    GROUP_START,
    VARINT,
    field,
    mutated,
    nested,
    varint,
)

SIGNER = KeySigner(b"\x11" * 32)
PARAMS = TicketParams(
    Address(b"r" * 20),
    Wei(10**12),
    2**200,
    b"h" * 32,
    b"s" * 32,
    1041,
    CreationRound(5, b"b" * 32),
)
WANTED = job_capabilities(ModelId("m"), "0.9.1", min_version="0.9.0")
TOKEN = AuthToken(b"t" * 32, "5e551077", 2_000_000_000)
PAYMENT = codec.encode_payment(
    Payment(
        SIGNER.address,
        Fraction(101, 100),
        encode_ticket_params(PARAMS, with_creation=False),
        encode_creation_round(PARAMS.creation),
        tuple(TicketSenderParams(nonce, bytes(65)) for nonce in range(1, 4)),
    )
)
SEGMENT = segment_credentials(SIGNER, ModelId("m"), WANTED, TOKEN)
REQUEST = codec.encode_orchestrator_request(
    OrchestratorRequest(SIGNER.address, session_request_signature(SIGNER), WANTED)
)
INFO = codec.encode_orchestrator_info(
    OrchestratorInfo(
        "https://127.0.0.1:8935",
        SIGNER.address,
        Fraction(101, 100),
        (),
        WANTED,
        TOKEN,
        nodes=("https://127.0.0.1:8936",),
        ticket_params=encode_ticket_params(PARAMS),
    )
)


def check_capabilities(found: Capabilities | None) -> None:
    if found is None:
        return
    assert len(found.bits) <= 64 * codec.MAX_WORDS
    assert len(found.capacities) <= codec.MAX_CAPACITIES
    assert len(found.mandatories) <= 64 * codec.MAX_WORDS
    assert sum(map(len, found.models.values())) <= codec.MAX_MODELS
    texts = [found.version, found.min_version, *(m for ms in found.models.values() for m in ms)]
    assert all(len(text) <= codec.MAX_TEXT for text in texts)


@given(mutated([PAYMENT]))
def test_payments(data: bytes) -> None:
    with suppress(WireError):
        found = codec.decode_payment(data)
        assert len(data) <= codec.MAX_CREDENTIALS_BYTES
        assert len(found.tickets) <= codec.MAX_TICKETS
        assert len(found.sender) in {0, 20}
        if found.ticket_params is not None:
            with suppress(WireError):
                params = decode_ticket_params(found.ticket_params, found.expiration_params)
                assert 0 <= params.face_value < 2**256
                assert len(params.seed) <= 32


@given(mutated([SEGMENT]))
def test_credentials(data: bytes) -> None:
    with suppress(WireError):
        found = codec.decode_segment_credentials(data)
        check_capabilities(found.capabilities)
        assert found.seq >= 0
        if found.auth_token is not None:
            assert len(found.auth_token.session_id) <= codec.MAX_TEXT


@given(mutated([REQUEST]))
def test_questions(data: bytes) -> None:
    with suppress(WireError):
        check_capabilities(codec.decode_orchestrator_request(data).capabilities)


@given(mutated([INFO]))
def test_answers(data: bytes) -> None:
    with suppress(WireError):
        found = codec.decode_orchestrator_info(data)
        check_capabilities(found.capabilities)
        assert len(found.prices) <= codec.MAX_PRICES
        assert len(found.nodes) <= codec.MAX_NODES


@given(st.one_of(st.text(max_size=60), mutated([PAYMENT]).map(encode_header)))
def test_headers(text: str) -> None:
    with suppress(WireError):
        assert len(decode_header(text)) <= len(text)


#: Of a message of each kind that is read, what it must not be made of.
_CAPABILITIES = {
    "words": field(1, BYTES, b"\xff" * 9 + b"\x01" + bytes(16)),
    "capacities": b"".join(
        field(3, BYTES, field(1, VARINT, varint(key))) for key in range(codec.MAX_CAPACITIES + 1)
    ),
    "capabilities": field(
        5,
        BYTES,
        b"".join(
            field(2, BYTES, field(1, VARINT, varint(key)))
            for key in range(codec.MAX_CAPACITIES + 1)
        ),
    ),
    "models": field(
        5,
        BYTES,
        b"".join(
            field(
                2,
                BYTES,
                field(1, VARINT, varint(key))
                + field(
                    2,
                    BYTES,
                    b"".join(
                        field(1, BYTES, field(1, BYTES, b"%d" % model))
                        for model in range(codec.MAX_MODELS // 4 + 1)
                    ),
                ),
            )
            for key in range(4)
        ),
    ),
    "version": field(4, BYTES, b"9" * (codec.MAX_TEXT + 1)),
    "not unicode": field(4, BYTES, b"\xff\xfe"),
}


@pytest.mark.parametrize("what", _CAPABILITIES)
def test_capabilities_of_too_much_are_refused_wherever_they_stand(what: str) -> None:
    hostile = _CAPABILITIES[what]
    with pytest.raises(WireError):
        codec.decode_capabilities(hostile)
    with pytest.raises(WireError):
        codec.decode_segment_credentials(SEGMENT + field(7, BYTES, hostile))
    with pytest.raises(WireError):
        codec.decode_orchestrator_request(REQUEST + field(3, BYTES, hostile))


def test_a_thousand_tickets_more_than_anybody_sends_are_not_read() -> None:
    ticket = field(4, BYTES, field(1, VARINT, varint(1)))
    assert len(codec.decode_payment(ticket * codec.MAX_TICKETS).tickets) == codec.MAX_TICKETS
    with pytest.raises(WireError, match="1025 entries of ticket_sender_params"):
        codec.decode_payment(ticket * (codec.MAX_TICKETS + 1))


@pytest.mark.parametrize("depth", [101, 10_000])
def test_what_is_nested_beyond_reason_is_no_message(depth: int) -> None:
    """Fields that nobody knows are not looked into; groups are, down to a hundred of them."""
    unknown = codec.decode_payment(nested([99], depth))
    assert unknown == Payment()
    with pytest.raises(WireError):
        codec.decode_payment(field(99, GROUP_START) * depth + field(99, GROUP_END) * depth)


def test_the_largest_message_is_read_and_a_larger_one_is_not() -> None:
    filler = field(100, BYTES, bytes(codec.MAX_CREDENTIALS_BYTES - len(PAYMENT) - 6))
    assert codec.decode_payment(PAYMENT + filler).sender == SIGNER.address
    with pytest.raises(WireError, match="bytes; at most"):
        codec.decode_payment(PAYMENT + filler + bytes(7))


def test_six_hundred_tickets_are_one_payment() -> None:
    tickets = tuple(TicketSenderParams(nonce, bytes(65)) for nonce in range(1, 601))
    payment = replace(codec.decode_payment(PAYMENT), tickets=tickets)
    text = encode_header(codec.encode_payment(payment))
    assert 57_000 < len(text) < 58_500
    assert codec.decode_payment(decode_header(text)) == payment
