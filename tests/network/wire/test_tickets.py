"""Ticket parameters on the wire: Livepeer's bytes, and nothing that a contract could not hold."""

from dataclasses import replace
from fractions import Fraction

import pybase64
import pytest
from hypothesis import given
from hypothesis import strategies as st

from network.errors import WireError
from network.identity import KeySigner, parse_address
from network.payments.signing import TicketSeries
from network.payments.tickets import CreationRound, TicketParams, rand_hash
from network.units import Wei
from network.wire.codec import Payment, TicketSenderParams, decode_payment, encode_payment
from network.wire.generated import lp_rpc_pb2 as pb
from network.wire.tickets import (
    decode_creation_round,
    decode_ticket_params,
    encode_creation_round,
    encode_ticket_params,
)
from tests.network.payments.test_tickets import KEY, PARAMS, H

QUOTE = TicketParams(
    recipient=parse_address("73AEd7b5dEb30222fa896f399d46cC99c7BEe57F"),
    face_value=Wei(100000000),
    win_prob=5789604461865809771178549250434395392663499233282028201972879200395660,
    recipient_rand_hash=rand_hash(10),
    seed=(3333).to_bytes(2, "big"),
    expiration_block=1041,
    creation=CreationRound(5, H),
)
#: Made by another program from the same values (Livepeer wire, 8.14).
HEADER = (
    "CmUKFHOu17XeswIi+olvOZ1GzJnHvuV/EgQF9eEAGh3Wv5TV5XpCvD0ykHYEaRtMjKCM0uG5w9uMgzChjCIgxlp7"
    "uNY1HBz3DJWjFsxqkoOcmGaC2YvDX5WPSIP50qgqAg0FMgIEERIULHU242BdnBano9exiY5Sk5amXCMaJAgFEiB2"
    "JHeN7cdfizIrn6FjKmENQLheEGx9m/DnQ6nOKRucbyJFCAESQUgjXTxzJWTpiWNsvnnaKupBPDO82/xJWygB7v0X"
    "FH32XXeQ4fTIFzZkGD6Wn8CgUBUM1gL3sqGJdlwtAPOaUjobKgQIZRBk"
)


def test_a_payment_is_livepeers_byte_for_byte() -> None:
    signer = KeySigner(KEY)
    payment = Payment(
        sender=signer.address,
        expected_price=Fraction(101, 100),
        ticket_params=encode_ticket_params(QUOTE, with_creation=False),
        expiration_params=encode_creation_round(QUOTE.creation),
        tickets=(TicketSenderParams(1, TicketSeries(QUOTE, signer.address).sign(signer, 1)),),
    )
    assert encode_payment(payment) == pybase64.b64decode(HEADER)
    received = decode_payment(pybase64.b64decode(HEADER))
    assert received == payment
    assert received.ticket_params is not None
    assert decode_ticket_params(received.ticket_params, received.expiration_params) == QUOTE


@given(PARAMS)
def test_what_is_written_is_read(params: TicketParams) -> None:
    assert decode_ticket_params(encode_ticket_params(params)) == params
    bare = encode_ticket_params(params, with_creation=False)
    assert decode_ticket_params(bare).creation == CreationRound()
    assert decode_ticket_params(bare, encode_creation_round(params.creation)) == params


def test_zero_is_no_bytes_at_all() -> None:
    free = replace(QUOTE, face_value=Wei(0), win_prob=0)
    message = pb.TicketParams.FromString(encode_ticket_params(free))
    assert message.face_value == message.win_prob == b""


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("recipient", b"r" * 19),
        ("recipient", b""),
        ("face_value", b"\1" * 33),
        ("win_prob", b"\1" * 33),
        ("recipient_rand_hash", b"h" * 31),
        ("seed", b"s" * 33),
        ("expiration_block", b"\x80" + bytes(7)),
    ],
)
def test_case_23_what_no_contract_could_hold_is_refused(field: str, value: bytes) -> None:
    message = pb.TicketParams.FromString(encode_ticket_params(QUOTE))
    setattr(message, field, value)
    with pytest.raises(WireError, match=field):
        decode_ticket_params(message.SerializeToString())


def test_case_23_creation_rounds_are_checked_too() -> None:
    negative = pb.TicketExpirationParams(creation_round=-1).SerializeToString()
    with pytest.raises(WireError, match="creation round"):
        decode_creation_round(negative)
    short = pb.TicketExpirationParams(creation_round_block_hash=b"h").SerializeToString()
    with pytest.raises(WireError, match="creation_round_block_hash"):
        decode_creation_round(short)


@given(st.binary(max_size=1100))
def test_any_bytes_are_params_or_a_wire_error(data: bytes) -> None:
    try:
        found = decode_ticket_params(data)
    except WireError:
        return
    assert decode_ticket_params(encode_ticket_params(found)) == found
