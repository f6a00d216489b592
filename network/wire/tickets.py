"""Ticket parameters as Livepeer's protobuf messages and back, every range checked on the way in.

Integers travel as minimal big-endian bytes, zero being none at all. A quote names its creation round
in field 7 of TicketParams; a payment names it in a field of its own (3 of Payment), and leaves the
quote's out.
"""

from typing import Final

from google.protobuf.message import DecodeError

from network.errors import WireError
from network.identity import ADDRESS_BYTES
from network.payments.tickets import CERTAIN, HASH_BYTES, CreationRound, TicketParams
from network.units import Address, Wei
from network.wire.generated import lp_rpc_pb2 as pb

_MAX_BYTES: Final = 1024
_WORD_BYTES: Final = 32
_MAX_SEED_BYTES: Final = 32
#: L1 blocks are int64 in Livepeer's programs.
_LARGEST_BLOCK: Final = 2**63 - 1


def encode_ticket_params(params: TicketParams, *, with_creation: bool = True) -> bytes:
    """TicketParams as a quote carries them; as a payment does `with_creation=False`."""
    message = pb.TicketParams(
        recipient=params.recipient,
        face_value=_bytes(params.face_value),
        win_prob=_bytes(params.win_prob),
        recipient_rand_hash=params.recipient_rand_hash,
        seed=params.seed,
        expiration_block=_bytes(params.expiration_block),
    )
    if with_creation:
        message.expiration_params.CopyFrom(_creation_message(params.creation))
    return message.SerializeToString(deterministic=True)


def decode_ticket_params(data: bytes, creation: bytes | None = None) -> TicketParams:
    """Ticket parameters of a quote, or of a payment whose `expiration_params` are `creation`.

    Raises WireError naming the field for whatever does not fit the contract's types.
    """
    message = pb.TicketParams()
    _parse(message, data)
    own = _creation(message.expiration_params)
    return TicketParams(
        recipient=Address(_exactly("recipient", message.recipient, ADDRESS_BYTES)),
        face_value=Wei(_integer("face_value", message.face_value, CERTAIN)),
        win_prob=_integer("win_prob", message.win_prob, CERTAIN),
        recipient_rand_hash=_exactly(
            "recipient_rand_hash", message.recipient_rand_hash, HASH_BYTES
        ),
        seed=_at_most("seed", message.seed, _MAX_SEED_BYTES),
        expiration_block=_integer("expiration_block", message.expiration_block, _LARGEST_BLOCK),
        creation=own if creation is None else decode_creation_round(creation),
    )


def encode_creation_round(creation: CreationRound) -> bytes:
    """TicketExpirationParams."""
    return _creation_message(creation).SerializeToString(deterministic=True)


def decode_creation_round(data: bytes) -> CreationRound:
    """TicketExpirationParams; raises WireError."""
    message = pb.TicketExpirationParams()
    _parse(message, data)
    return _creation(message)


def _creation_message(creation: CreationRound) -> pb.TicketExpirationParams:
    return pb.TicketExpirationParams(
        creation_round=creation.number, creation_round_block_hash=creation.block_hash
    )


def _creation(message: pb.TicketExpirationParams) -> CreationRound:
    if message.creation_round < 0:
        raise WireError("negative creation round")
    block_hash = message.creation_round_block_hash or bytes(HASH_BYTES)
    return CreationRound(
        message.creation_round, _exactly("creation_round_block_hash", block_hash, HASH_BYTES)
    )


def _parse(message: pb.TicketParams | pb.TicketExpirationParams, data: bytes) -> None:
    if len(data) > _MAX_BYTES:
        raise WireError(f"ticket params of {len(data)} bytes; at most {_MAX_BYTES} are read")
    try:
        message.ParseFromString(data)
    except DecodeError:
        raise WireError("protobuf unmarshal error: no ticket params") from None


def _bytes(value: int) -> bytes:
    return value.to_bytes((value.bit_length() + 7) // 8, "big")


def _integer(name: str, data: bytes, most: int) -> int:
    value = int.from_bytes(_at_most(name, data, _WORD_BYTES), "big")
    if value > most:
        raise WireError(f"{name} is above {most}")
    return value


def _exactly(name: str, data: bytes, size: int) -> bytes:
    if len(data) != size:
        raise WireError(f"{name} of {len(data)} bytes instead of {size}")
    return data


def _at_most(name: str, data: bytes, size: int) -> bytes:
    if len(data) > size:
        raise WireError(f"{name} of {len(data)} bytes; at most {size} fit")
    return data
