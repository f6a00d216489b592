"""A unary gRPC call whose reply is bounded before it is read; messages go in and come out as bytes."""

from collections.abc import Awaitable, Callable
from typing import Final

from grpclib.client import Channel
from grpclib.const import Cardinality
from grpclib.encoding.base import CodecBase

from network.errors import WireError

#: Hundreds of models with constraints and prices fit; a reply announced longer is not read at all.
LARGEST_REPLY: Final = 4 * 2**20


class BytesCodec(CodecBase):  # type: ignore[misc]  # grpclib is untyped
    """`network.wire.codec` knows what the bytes mean."""

    __content_subtype__ = "proto"

    def encode(self, message: bytes, message_type: type[bytes]) -> bytes:  # noqa: ARG002
        return message

    def decode(self, data: bytes, message_type: type[bytes]) -> bytes:  # noqa: ARG002
        return data


async def unary(channel: Channel, path: str, message: bytes) -> bytes:
    """Call `path`, such as "/net.Orchestrator/Ping", over a channel with `BytesCodec`.

    Raises WireError for an empty or too long reply, and what grpclib raises.
    """
    async with channel.request(path, Cardinality.UNARY_UNARY, bytes, bytes) as stream:
        await stream.send_message(message, end=True)
        await stream.recv_initial_metadata()
        # grpclib reads as much as the peer announces, up to 4 GiB; this is its only way in.
        wire = stream._stream  # noqa: SLF001
        wire.recv_data = _bounded(wire.recv_data)
        reply = await stream.recv_message()
    if reply is None:
        raise WireError("the reply is empty")
    return bytes(reply)


def _bounded(receive: Callable[[int], Awaitable[bytes]]) -> Callable[[int], Awaitable[bytes]]:
    async def receive_bounded(size: int) -> bytes:
        if size > LARGEST_REPLY:
            raise WireError(f"the reply is {size} bytes long")
        return await receive(size)

    return receive_bounded
