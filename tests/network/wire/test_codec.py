"""What is encoded reads back; what is not a message, or too much of one, is refused."""

import contextlib
from collections.abc import Callable
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from network.capabilities import Capabilities, bits_of, job_capabilities
from network.errors import WireError
from network.units import ModelId
from network.wire import codec
from network.wire.codec import (
    OrchestratorInfo,
    OrchestratorRequest,
    Payment,
    SegmentCredentials,
    decode_orchestrator_info,
    decode_orchestrator_request,
    decode_payment,
    decode_segment_credentials,
    encode_orchestrator_info,
    encode_orchestrator_request,
    encode_payment,
    encode_segment_credentials,
)
from network.wire.generated import lp_rpc_pb2 as pb
from network.wire.headers import decode_header
from tests.network.wire import values

DECODERS: tuple[tuple[Callable[[bytes], object], int], ...] = (
    (decode_orchestrator_info, codec.MAX_INFO_BYTES),
    (decode_orchestrator_request, codec.MAX_REQUEST_BYTES),
    (decode_segment_credentials, codec.MAX_CREDENTIALS_BYTES),
    (decode_payment, codec.MAX_CREDENTIALS_BYTES),
)

#: The Livepeer-Payment header of the reference's end-to-end vector.
PAYMENT_HEADER = (
    "CmUKFHOu17XeswIi+olvOZ1GzJnHvuV/EgQF9eEAGh3Wv5TV5XpCvD0ykHYEaRtMjKCM0uG5w9uMgzChjCIgxlp7uNY1"
    "HBz3DJWjFsxqkoOcmGaC2YvDX5WPSIP50qgqAg0FMgIEERIULHU242BdnBano9exiY5Sk5amXCMaJAgFEiB2JHeN7cdf"
    "izIrn6FjKmENQLheEGx9m/DnQ6nOKRucbyJFCAESQUgjXTxzJWTpiWNsvnnaKupBPDO82/xJWygB7v0XFH32XXeQ4fTI"
    "FzZkGD6Wn8CgUBUM1gL3sqGJdlwtAPOaUjobKgQIZRBk"
)


@given(values.infos)
def test_an_orchestrators_answer_reads_back(info: OrchestratorInfo) -> None:
    data = encode_orchestrator_info(info)
    assert decode_orchestrator_info(data) == info
    assert encode_orchestrator_info(decode_orchestrator_info(data)) == data


@given(values.requests)
def test_a_session_request_reads_back(request: OrchestratorRequest) -> None:
    assert decode_orchestrator_request(encode_orchestrator_request(request)) == request


@given(values.credentials)
def test_credentials_read_back(credentials: SegmentCredentials) -> None:
    assert decode_segment_credentials(encode_segment_credentials(credentials)) == credentials


@given(values.payments)
def test_a_payment_reads_back(payment: Payment) -> None:
    assert decode_payment(encode_payment(payment)) == payment


@given(st.binary(max_size=600))
def test_arbitrary_bytes_raise_nothing_but_wire_errors(data: bytes) -> None:
    for decode, _ in DECODERS:
        with contextlib.suppress(WireError):
            decode(data)


@given(
    values.infos.map(encode_orchestrator_info)
    | values.credentials.map(encode_segment_credentials),
    st.data(),
)
def test_damaged_messages_raise_nothing_but_wire_errors(data: bytes, draw: st.DataObject) -> None:
    damaged = bytearray(data)
    for _ in range(draw.draw(st.integers(1, 5))):
        if damaged:
            place = draw.draw(st.integers(0, len(damaged) - 1))
            damaged[place] = draw.draw(st.integers(0, 255))
    for decode, _ in DECODERS:
        with contextlib.suppress(WireError):
            decode(bytes(damaged[: draw.draw(st.integers(0, len(damaged)))]))


@pytest.mark.parametrize(("decode", "most"), DECODERS)
def test_a_message_is_measured_before_it_is_read(
    decode: Callable[[bytes], object], most: int
) -> None:
    with pytest.raises(WireError, match=f"{most + 1} bytes"):
        decode(bytes(most + 1))


def too_many() -> list[pb.OrchestratorInfo]:
    words = pb.Capabilities(bitstring=[0] * (codec.MAX_WORDS + 1))
    demands = pb.Capabilities(mandatories=[0] * (codec.MAX_WORDS + 1))
    counts = pb.Capabilities(capacities=dict.fromkeys(range(codec.MAX_CAPACITIES + 1), 1))
    long_version = pb.Capabilities(version="v" * (codec.MAX_TEXT + 1))
    crowded = pb.Capabilities()
    for capability in (27, 28):
        for number in range(codec.MAX_MODELS // 2 + 1):
            crowded.constraints.PerCapability[capability].models[f"m{number}"].warm = True
    price = pb.PriceInfo(pixelsPerUnit=1)
    hardware = pb.HardwareInformation()
    for number in range(codec.MAX_GPUS + 1):
        hardware.gpu_info[str(number)].name = "x"
    return [
        pb.OrchestratorInfo(capabilities=words),
        pb.OrchestratorInfo(capabilities=demands),
        pb.OrchestratorInfo(capabilities=counts),
        pb.OrchestratorInfo(capabilities=long_version),
        pb.OrchestratorInfo(capabilities=crowded),
        pb.OrchestratorInfo(capabilities_prices=[price] * (codec.MAX_PRICES + 1)),
        pb.OrchestratorInfo(nodes=["n"] * (codec.MAX_NODES + 1)),
        pb.OrchestratorInfo(hardware=[hardware]),
        pb.OrchestratorInfo(transcoder="t" * (codec.MAX_TEXT + 1)),
        pb.OrchestratorInfo(address=bytes(21)),
        pb.OrchestratorInfo(auth_token=pb.AuthToken(token=bytes(codec.MAX_TEXT + 1))),
    ]


def test_every_list_and_text_is_bounded() -> None:
    for message in too_many():
        with pytest.raises(WireError):
            decode_orchestrator_info(message.SerializeToString())


def test_a_payment_has_a_bounded_number_of_tickets() -> None:
    ticket = pb.TicketSenderParams(sender_nonce=1)
    message = pb.Payment(ticket_sender_params=[ticket] * (codec.MAX_TICKETS + 1))
    with pytest.raises(WireError, match="ticket_sender_params"):
        decode_payment(message.SerializeToString())


@pytest.mark.parametrize(
    ("per_unit", "units", "reason"),
    [
        (0, 0, "pixels per unit is 0"),
        (7, 0, "pixels per unit is 0"),
        (-7, 2, "negative"),
        (7, -2, "negative"),
    ],
)
def test_a_price_that_is_none_is_refused(per_unit: int, units: int, reason: str) -> None:
    price = pb.PriceInfo(pricePerUnit=per_unit, pixelsPerUnit=units)
    with pytest.raises(WireError, match=reason):
        decode_payment(pb.Payment(expected_price=price).SerializeToString())
    with pytest.raises(WireError, match=reason):
        decode_orchestrator_info(pb.OrchestratorInfo(price_info=price).SerializeToString())


def test_a_price_is_a_ratio() -> None:
    price = pb.PriceInfo(pricePerUnit=7, pixelsPerUnit=2)
    info = decode_orchestrator_info(pb.OrchestratorInfo(price_info=price).SerializeToString())
    assert info.price == Fraction(7, 2)


@pytest.mark.parametrize("price", [Fraction(2**63), Fraction(1, 2**63), Fraction(-1)])
def test_a_price_beyond_64_bits_is_not_written(price: Fraction) -> None:
    with pytest.raises(ValueError, match="64-bit"):
        encode_payment(Payment(b"", price))


def test_the_empty_payment_is_an_empty_message() -> None:
    assert encode_payment(Payment()) == b""
    assert decode_payment(b"") == Payment()
    assert not Payment().has_tickets


def test_absent_capacities_mean_one_of_each_bit() -> None:
    message = pb.Capabilities(bitstring=[15])
    info = decode_orchestrator_info(pb.OrchestratorInfo(capabilities=message).SerializeToString())
    assert info.capabilities == Capabilities(
        bits=bits_of([15]), capacities={0: 1, 1: 1, 2: 1, 3: 1}
    )


def test_a_text_to_image_job_is_one_word_of_bits() -> None:
    request = OrchestratorRequest(b"", b"", job_capabilities(ModelId("limner/shapes"), "0.1.0"))
    message = pb.OrchestratorRequest.FromString(encode_orchestrator_request(request))
    assert list(message.capabilities.bitstring) == [201351167]
    assert message.capabilities.capacities[27] == 1
    assert "limner/shapes" in message.capabilities.constraints.PerCapability[27].models


def test_the_references_payment_reads() -> None:
    data = decode_header(PAYMENT_HEADER)
    payment = decode_payment(data)
    assert payment.sender.hex() == "2c7536e3605d9c16a7a3d7b1898e529396a65c23"
    assert payment.expected_price == Fraction(101, 100)
    assert payment.has_tickets
    assert [ticket.nonce for ticket in payment.tickets] == [1]
    assert encode_payment(payment) == data


def test_fields_that_are_not_read_do_no_harm() -> None:
    # A video gateway's SegData has profiles and storage that mean nothing here.
    storage = pb.OSInfo(storageType=pb.OSInfo.S3, s3info=pb.S3OSInfo(host="h"))
    message = pb.SegData(manifestId=b"m", storage=[storage])
    unknown = b"\xaa\x06\x02hi"  # field 101, length-delimited
    read = decode_segment_credentials(message.SerializeToString() + unknown)
    assert read.manifest_id == b"m"
