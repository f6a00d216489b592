"""net.Orchestrator over gRPC: the node's terms, and proof that it is alive."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Protocol

import structlog
from google.protobuf.message import DecodeError
from grpclib.const import Cardinality, Status
from grpclib.const import Handler as GrpcMethod
from grpclib.exceptions import GRPCError

from network.errors import SignatureError, WireError
from network.wire.codec import (
    MAX_REQUEST_BYTES,
    decode_orchestrator_request,
    encode_orchestrator_info,
)
from network.wire.generated import lp_rpc_pb2 as pb
from node.discovery.advertiser import Advertiser, NoTermsError

_MAX_PING_MESSAGE: Final = 1024
_CHECK_FAILED: Final = "Invalid orchestrator request: orchestrator req sig check failed"

log = structlog.get_logger(__name__)


class _Stream(Protocol):
    _stream: Any

    async def recv_message(self) -> bytes | None: ...

    async def send_message(self, message: bytes) -> None: ...


def grpc_methods(terms: Advertiser, refused: Callable[[str], None]) -> Mapping[str, GrpcMethod]:
    """Return the service's methods by path. `refused` hears a reason for each refusal."""

    async def get_orchestrator(stream: _Stream) -> None:
        data = await _received(stream)
        try:
            request = decode_orchestrator_request(data)
        except WireError as error:
            refused("malformed_info_request")
            raise GRPCError(Status.INVALID_ARGUMENT, str(error)) from None
        try:
            info = await terms.info(request)
        except SignatureError as error:
            # Gateways match this sentence (Livepeer wire, 2.5); which part of it failed is
            # nothing to a stranger.
            refused("unknown_gateway")
            log.info("refused a gateway", address=request.address.hex(), reason=str(error))
            raise GRPCError(Status.UNKNOWN, _CHECK_FAILED) from None
        except NoTermsError as error:
            refused("no_terms")
            raise GRPCError(Status.UNKNOWN, str(error)) from None
        await stream.send_message(encode_orchestrator_info(info))

    async def ping(stream: _Stream) -> None:
        data = await _received(stream)
        try:
            message = pb.PingPong.FromString(data[: _MAX_PING_MESSAGE + 1])
            signature = terms.ping(message.value)
        except (DecodeError, ValueError) as error:
            raise GRPCError(Status.INVALID_ARGUMENT, str(error)) from None
        await stream.send_message(pb.PingPong(value=signature).SerializeToString())

    return {
        "/net.Orchestrator/GetOrchestrator": _unary(get_orchestrator),
        "/net.Orchestrator/Ping": _unary(ping),
    }


def _unary(method: Callable[[_Stream], Awaitable[None]]) -> GrpcMethod:
    return GrpcMethod(method, Cardinality.UNARY_UNARY, bytes, bytes)


async def _received(stream: _Stream) -> bytes:
    # grpclib reads as much as the client announces, up to 4 GiB; this is its only way in.
    wire = stream._stream  # noqa: SLF001
    wire.recv_data = _bounded(wire.recv_data)
    data = await stream.recv_message()
    if data is None:
        raise GRPCError(Status.INVALID_ARGUMENT, "no message")
    return data


def _bounded(receive: Callable[[int], Awaitable[bytes]]) -> Callable[[int], Awaitable[bytes]]:
    async def receive_bounded(size: int) -> bytes:
        if size > MAX_REQUEST_BYTES:
            text = f"message of {size} bytes; at most {MAX_REQUEST_BYTES} are read"
            raise GRPCError(Status.RESOURCE_EXHAUSTED, text)
        return await receive(size)

    return receive_bounded
