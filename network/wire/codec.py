"""Livepeer's protobuf messages as values, with every size bounded on the way in.

`decode_*` raise WireError for whatever is not such a message within bounds, and nothing
else; their work is linear in the bytes given, which are bounded first. `encode_*` are
deterministic, so that equal values have equal bytes.
"""

from collections.abc import Iterable, Sized
from fractions import Fraction
from typing import Final, TypeVar

from google.protobuf.message import DecodeError, Message

from network.capabilities import Capabilities, ModelConstraint, bits_of, bitstring
from network.errors import WireError
from network.units import LARGEST_PRICE_TERM
from network.wire.generated import lp_rpc_pb2 as pb
from network.wire.session import (
    AuthToken,
    Gpu,
    Hardware,
    OrchestratorInfo,
    OrchestratorRequest,
    Payment,
    PriceInfo,
    SegmentCredentials,
    TicketSenderParams,
)

__all__ = [
    "MAX_CREDENTIALS_BYTES",
    "MAX_INFO_BYTES",
    "MAX_REQUEST_BYTES",
    "AuthToken",
    "Gpu",
    "Hardware",
    "OrchestratorInfo",
    "OrchestratorRequest",
    "Payment",
    "PriceInfo",
    "SegmentCredentials",
    "TicketSenderParams",
    "decode_capabilities",
    "decode_orchestrator_info",
    "decode_orchestrator_request",
    "decode_payment",
    "decode_segment_credentials",
    "encode_capabilities",
    "encode_orchestrator_info",
    "encode_orchestrator_request",
    "encode_payment",
    "encode_segment_credentials",
]

#: Bounds in bytes; 600 tickets in a payment come to 43 KB.
MAX_REQUEST_BYTES: Final = 64 * 1024
MAX_CREDENTIALS_BYTES: Final = 96 * 1024
MAX_INFO_BYTES: Final = 1024 * 1024

#: Bounds in entries or characters.
MAX_WORDS: Final = 16
MAX_CAPACITIES: Final = 64 * MAX_WORDS
MAX_MODELS: Final = 4096
MAX_PRICES: Final = 4096
MAX_TICKETS: Final = 1024
MAX_GPUS: Final = 256
MAX_NODES: Final = 256
MAX_TEXT: Final = 512

_ADDRESS_SIZES: Final = (0, 20)

_M = TypeVar("_M", bound=Message)


def encode_capabilities(capabilities: Capabilities) -> bytes:
    """Alone, as remote signers are told them."""
    return _bytes_of(_capabilities_message(capabilities))


def decode_capabilities(data: bytes) -> Capabilities:
    return _capabilities(_parsed(pb.Capabilities(), data, MAX_REQUEST_BYTES))


def encode_orchestrator_request(request: OrchestratorRequest) -> bytes:
    message = pb.OrchestratorRequest(
        address=request.address,
        sig=request.signature,
        ignoreCapacityCheck=request.ignore_capacity_check,
    )
    if request.capabilities is not None:
        message.capabilities.CopyFrom(_capabilities_message(request.capabilities))
    return _bytes_of(message)


def decode_orchestrator_request(data: bytes) -> OrchestratorRequest:
    message = _parsed(pb.OrchestratorRequest(), data, MAX_REQUEST_BYTES)
    has_capabilities = message.HasField("capabilities")
    return OrchestratorRequest(
        address=_address(message.address),
        signature=message.sig,
        capabilities=_capabilities(message.capabilities) if has_capabilities else None,
        ignore_capacity_check=message.ignoreCapacityCheck,
    )


def encode_orchestrator_info(info: OrchestratorInfo) -> bytes:
    message = pb.OrchestratorInfo(
        transcoder=info.transcoder,
        address=info.address,
        capabilities=_capabilities_message(info.capabilities),
        hardware=[_hardware_message(hardware) for hardware in info.hardware],
        capabilities_prices=[
            _price_message(entry.price, entry.capability, entry.constraint)
            for entry in info.prices
        ],
        nodes=info.nodes,
    )
    if info.price is not None:
        message.price_info.CopyFrom(_price_message(info.price))
    if info.auth_token is not None:
        message.auth_token.CopyFrom(_token_message(info.auth_token))
    if info.ticket_params is not None:
        message.ticket_params.ParseFromString(info.ticket_params)
        message.ticket_params.SetInParent()
    return _bytes_of(message)


def decode_orchestrator_info(data: bytes) -> OrchestratorInfo:
    message = _parsed(pb.OrchestratorInfo(), data, MAX_INFO_BYTES)
    _at_most(MAX_PRICES, "capabilities_prices", message.capabilities_prices)
    _at_most(MAX_MODELS, "hardware", message.hardware)
    _at_most(MAX_NODES, "nodes", message.nodes)
    return OrchestratorInfo(
        transcoder=_text("transcoder", message.transcoder),
        address=_address(message.address),
        price=_price(message.price_info) if message.HasField("price_info") else None,
        prices=tuple(
            PriceInfo(_price(entry), entry.capability, _text("price constraint", entry.constraint))
            for entry in message.capabilities_prices
        ),
        capabilities=_capabilities(message.capabilities),
        auth_token=_token(message.auth_token) if message.HasField("auth_token") else None,
        hardware=tuple(_hardware(entry) for entry in message.hardware),
        nodes=tuple(_text("node", node) for node in message.nodes),
        ticket_params=_raw(message, "ticket_params", message.ticket_params),
    )


def encode_segment_credentials(credentials: SegmentCredentials) -> bytes:
    message = pb.SegData(
        manifestId=credentials.manifest_id,
        seq=credentials.seq,
        hash=credentials.hash,
        profiles=credentials.profiles,
        sig=credentials.signature,
        duration=credentials.duration,
    )
    if credentials.capabilities is not None:
        message.capabilities.CopyFrom(_capabilities_message(credentials.capabilities))
    if credentials.auth_token is not None:
        message.auth_token.CopyFrom(_token_message(credentials.auth_token))
    return _bytes_of(message)


def decode_segment_credentials(data: bytes) -> SegmentCredentials:
    message = _parsed(pb.SegData(), data, MAX_CREDENTIALS_BYTES)
    if message.seq < 0:
        raise WireError("negative sequence number")
    has_capabilities = message.HasField("capabilities")
    return SegmentCredentials(
        manifest_id=message.manifestId,
        hash=message.hash,
        profiles=message.profiles,
        signature=message.sig,
        capabilities=_capabilities(message.capabilities) if has_capabilities else None,
        auth_token=_token(message.auth_token) if message.HasField("auth_token") else None,
        duration=message.duration,
        seq=message.seq,
    )


def encode_payment(payment: Payment) -> bytes:
    message = pb.Payment(
        sender=payment.sender,
        ticket_sender_params=[
            pb.TicketSenderParams(sender_nonce=ticket.nonce, sig=ticket.signature)
            for ticket in payment.tickets
        ],
    )
    if payment.expected_price is not None:
        message.expected_price.CopyFrom(_price_message(payment.expected_price))
    if payment.ticket_params is not None:
        message.ticket_params.ParseFromString(payment.ticket_params)
        message.ticket_params.SetInParent()
    if payment.expiration_params is not None:
        message.expiration_params.ParseFromString(payment.expiration_params)
        message.expiration_params.SetInParent()
    return _bytes_of(message)


def decode_payment(data: bytes) -> Payment:
    """An empty message, as an off-chain gateway sends, is the empty payment."""
    message = _parsed(pb.Payment(), data, MAX_CREDENTIALS_BYTES)
    _at_most(MAX_TICKETS, "ticket_sender_params", message.ticket_sender_params)
    return Payment(
        sender=_address(message.sender),
        expected_price=_expected_price(message),
        ticket_params=_raw(message, "ticket_params", message.ticket_params),
        expiration_params=_raw(message, "expiration_params", message.expiration_params),
        tickets=tuple(
            TicketSenderParams(ticket.sender_nonce, ticket.sig)
            for ticket in message.ticket_sender_params
        ),
    )


def _parsed(message: _M, data: bytes, most: int) -> _M:
    if len(data) > most:
        raise WireError(f"message of {len(data)} bytes; at most {most} are read")
    try:
        message.ParseFromString(data)
    except DecodeError:
        raise WireError("protobuf unmarshal error: not a message of this kind") from None
    return message


def _bytes_of(message: Message) -> bytes:
    return message.SerializeToString(deterministic=True)


def _raw(parent: Message, name: str, message: Message) -> bytes | None:
    return _bytes_of(message) if parent.HasField(name) else None


def _at_most(most: int, name: str, entries: Sized) -> None:
    if len(entries) > most:
        raise WireError(f"{len(entries)} entries of {name}; at most {most} are read")


def _text(name: str, text: str) -> str:
    if len(text) > MAX_TEXT:
        raise WireError(f"{name} of {len(text)} characters; at most {MAX_TEXT} are read")
    return text


def _address(data: bytes) -> bytes:
    if len(data) not in _ADDRESS_SIZES:
        raise WireError(f"address of {len(data)} bytes instead of 20")
    return data


def _price(message: pb.PriceInfo) -> Fraction:
    if message.pixelsPerUnit == 0:
        raise WireError("pixels per unit is 0")
    if message.pixelsPerUnit < 0 or message.pricePerUnit < 0:
        raise WireError("negative price")
    return Fraction(message.pricePerUnit, message.pixelsPerUnit)


def _expected_price(message: pb.Payment) -> Fraction | None:
    if not message.HasField("expected_price"):
        return None
    try:
        return _price(message.expected_price)
    except WireError as error:
        # In go-livepeer's words, whose typing is not ours.
        raise WireError(f"invalid expected price sent with payment err={error}") from None


def _price_message(price: Fraction, capability: int = 0, constraint: str = "") -> pb.PriceInfo:
    if not 0 <= price.numerator <= LARGEST_PRICE_TERM >= price.denominator:
        raise ValueError(f"price {price} does not fit into 64-bit terms")
    return pb.PriceInfo(
        pricePerUnit=price.numerator,
        pixelsPerUnit=price.denominator,
        capability=capability,
        constraint=constraint,
    )


def _token(message: pb.AuthToken) -> AuthToken:
    if len(message.token) > MAX_TEXT:
        raise WireError(f"auth token of {len(message.token)} bytes")
    return AuthToken(message.token, _text("session id", message.session_id), message.expiration)


def _token_message(token: AuthToken) -> pb.AuthToken:
    return pb.AuthToken(
        token=token.token, session_id=token.session_id, expiration=token.expiration
    )


def _bits(name: str, words: Iterable[int]) -> frozenset[int]:
    kept = list(words)
    _at_most(MAX_WORDS, name, kept)
    return bits_of(kept)


def _capabilities(message: pb.Capabilities) -> Capabilities:
    bits = _bits("bitstring", message.bitstring)
    _at_most(MAX_CAPACITIES, "capacities", message.capacities)
    _at_most(MAX_CAPACITIES, "PerCapability", message.constraints.PerCapability)
    models: dict[int, dict[str, ModelConstraint]] = {}
    left = MAX_MODELS
    for capability, constraint in message.constraints.PerCapability.items():
        _at_most(left, "models", constraint.models)
        left -= len(constraint.models)
        models[capability] = {
            _text("model id", model_id): _model(model)
            for model_id, model in constraint.models.items()
        }
    return Capabilities(
        bits=bits,
        mandatories=_bits("mandatories", message.mandatories),
        # An absent map means one of each (go-livepeer before capacities).
        capacities=dict(message.capacities) or dict.fromkeys(sorted(bits), 1),
        version=_text("version", message.version),
        min_version=_text("minVersion", message.constraints.minVersion),
        models=models,
    )


def _capabilities_message(capabilities: Capabilities) -> pb.Capabilities:
    message = pb.Capabilities(
        bitstring=bitstring(capabilities.bits),
        mandatories=bitstring(capabilities.mandatories),
        capacities=capabilities.capacities,
        version=capabilities.version,
    )
    message.constraints.minVersion = capabilities.min_version
    for capability, models in capabilities.models.items():
        constraint = message.constraints.PerCapability[capability]
        for model_id, model in models.items():
            constraint.models[model_id].CopyFrom(_model_message(model))
    return message


def _model(message: pb.Capabilities.CapabilityConstraints.ModelConstraint) -> ModelConstraint:
    return ModelConstraint(
        warm=message.warm,
        capacity=message.capacity,
        runner_version=_text("runnerVersion", message.runnerVersion),
        capacity_in_use=message.capacityInUse,
    )


def _model_message(
    model: ModelConstraint,
) -> pb.Capabilities.CapabilityConstraints.ModelConstraint:
    return pb.Capabilities.CapabilityConstraints.ModelConstraint(
        warm=model.warm,
        capacity=model.capacity,
        runnerVersion=model.runner_version,
        capacityInUse=model.capacity_in_use,
    )


def _hardware(message: pb.HardwareInformation) -> Hardware:
    _at_most(MAX_GPUS, "gpu_info", message.gpu_info)
    return Hardware(
        pipeline=_text("pipeline", message.pipeline),
        model_id=_text("model id", message.model_id),
        gpus={_text("GPU key", key): _gpu(gpu) for key, gpu in message.gpu_info.items()},
    )


def _gpu(message: pb.GPUComputeInfo) -> Gpu:
    return Gpu(
        id=_text("GPU id", message.id),
        name=_text("GPU name", message.name),
        major=message.major,
        minor=message.minor,
        memory_free=message.memory_free,
        memory_total=message.memory_total,
    )


def _hardware_message(hardware: Hardware) -> pb.HardwareInformation:
    message = pb.HardwareInformation(pipeline=hardware.pipeline, model_id=hardware.model_id)
    for key, gpu in hardware.gpus.items():
        message.gpu_info[key].CopyFrom(
            pb.GPUComputeInfo(
                id=gpu.id,
                name=gpu.name,
                major=gpu.major,
                minor=gpu.minor,
                memory_free=gpu.memory_free,
                memory_total=gpu.memory_total,
            )
        )
    return message
