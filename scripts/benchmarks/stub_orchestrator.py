"""An orchestrator that costs almost nothing: it answers every job at once with the same PNG.

Two ports: GetOrchestrator and Ping by grpclib, and `POST /text-to-image` by a bare protocol that parses only what it
must, in JSON or, to those who take them, as parts. Fee and seeds in its answers are true, so that a gateway which checks them is content. The second port also
answers OpenAI's `POST /v1/images/generations`, with the image in the answer, for gateways that buy from such.
"""

import argparse
import asyncio
import itertools
import struct
import sys
import zlib
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any, cast

import orjson
import pybase64
import uvloop
from grpclib.server import Server, Stream
from typing_extensions import override

from network.capabilities import TEXT_TO_IMAGE, ModelConstraint, node_capabilities
from network.runtime.clock import SystemClock
from network.units import fee, pixels_of
from network.wire import headers, image_parts
from network.wire.codec import AuthToken, OrchestratorInfo, PriceInfo, encode_orchestrator_info
from network.wire.generated import lp_rpc_grpc, lp_rpc_pb2

MODEL = "limner/shapes"
PRICE = Fraction(1000)
CAPACITY = 1000
TOKEN_LIFETIME_SECONDS = 1800
#: A job of this size is answered with an image of about 1.5 MB; all others with a few hundred bytes.
LARGE = (1024, 512)
OPENAI_PATH = b"/v1/images/generations"


def png(width: int, height: int, *, noisy: bool) -> bytes:
    """A valid RGB image: of one colour, or of noise that no compression shrinks."""
    row = bytes(width * 3)
    state = 1
    rows = []
    for _ in range(height):
        if noisy:
            noise = bytearray()
            while len(noise) < width * 3:
                state = zlib.crc32(noise[-64:], state) & 0xFFFFFFFF
                noise += zlib.crc32(struct.pack(">I", state)).to_bytes(4, "big")
            row = bytes(noise[: width * 3])
        rows.append(b"\0" + row)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = zlib.compress(b"".join(rows), 1 if noisy else 9)
    chunks = [_chunk(b"IHDR", header), _chunk(b"IDAT", data), _chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


class Discovery(lp_rpc_grpc.OrchestratorBase):
    """The two calls by which a gateway learns about an orchestrator."""

    def __init__(self, transcoder: str, now: float) -> None:
        everything = ModelConstraint(warm=True, capacity=CAPACITY)
        self._info = OrchestratorInfo(
            transcoder=transcoder,
            address=bytes(20),
            price=PRICE,
            prices=(PriceInfo(PRICE, TEXT_TO_IMAGE, MODEL),),
            capabilities=node_capabilities({MODEL: everything}, version="0.1.0"),
            auth_token=AuthToken(bytes(32), "00000000", int(now) + TOKEN_LIFETIME_SECONDS),
        )

    @override
    async def GetOrchestrator(self, stream: Stream) -> None:
        await stream.recv_message()
        encoded = encode_orchestrator_info(self._info)
        await stream.send_message(lp_rpc_pb2.OrchestratorInfo.FromString(encoded))

    @override
    async def Ping(self, stream: Stream) -> None:
        await stream.send_message(await stream.recv_message())

    @override
    async def EndTranscodingSession(self, stream: Stream) -> None:
        await stream.recv_message()
        await stream.send_message(lp_rpc_pb2.EndTranscodingSessionResponse())


class Answers:
    """The bytes of an answer, encoded once for each size of image; only seed and job id are filled in."""

    def __init__(self) -> None:
        self._pngs: dict[tuple[int, int], bytes] = {}
        self._encoded: dict[tuple[int, int], bytes] = {}
        self._numbers = itertools.count(1)

    def to(self, head: bytes, body: bytes) -> bytes:
        """The answer to a request, whose head is in lower case."""
        request = orjson.loads(body)
        path = head.split(b" ", 2)[1]
        if path == OPENAI_PATH:
            return self._openai(request)
        size = (request["width"], request["height"])
        count, seed = request["num_images_per_prompt"], request["seed"]
        told = (
            f"{headers.JOB_ID}: {next(self._numbers):032x}\r\n"
            f"{headers.FEE}: {fee(pixels_of(*size, count), PRICE)}\r\n"
            f"{headers.PRICE}: {PRICE}\r\n"
        )
        if image_parts.CONTENT_TYPE.encode() in head:
            facts = [{"seed": seed + number, "nsfw": False} for number in range(count)]
            parts = image_parts.encode([(self._png(size), one) for one in facts])
            return _answer(parts, told, image_parts.CONTENT_TYPE)
        image = self._image(size)
        media = [
            b'{"url":"data:image/png;base64,%b","seed":%d,"nsfw":false}' % (image, seed + number)
            for number in range(count)
        ]
        return _answer(b'{"images":[%b]}' % b",".join(media), told)

    def _openai(self, request: Mapping[str, Any]) -> bytes:
        width, _, height = request["size"].partition("x")
        datum = b'{"b64_json":"%b"}' % self._image((int(width), int(height)))
        return _answer(b'{"created":1,"data":[%b]}' % b",".join([datum] * request["n"]))

    def _image(self, size: tuple[int, int]) -> bytes:
        """A PNG of this size in base64."""
        found = self._encoded.get(size)
        if found is None:
            found = self._encoded[size] = pybase64.b64encode(self._png(size))
        return found

    def _png(self, size: tuple[int, int]) -> bytes:
        found = self._pngs.get(size)
        if found is None:
            found = self._pngs[size] = png(*size, noisy=size == LARGE)
        return found


def _answer(content: bytes, told: str = "", media: str = "application/json") -> bytes:
    head = (
        f"HTTP/1.1 200 OK\r\nContent-Type: {media}\r\nContent-Length: {len(content)}\r\n{told}\r\n"
    )
    return head.encode() + content


class JobProtocol(asyncio.Protocol):
    """Just enough HTTP/1.1: one request after the other on a kept connection, bodies by Content-Length."""

    def __init__(self, answers: Answers) -> None:
        self._answers = answers
        self._received = bytearray()
        self._transport: asyncio.WriteTransport | None = None

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are none of asyncio's classes, only their like.
        self._transport = cast("asyncio.WriteTransport", transport)

    @override
    def data_received(self, data: bytes) -> None:
        self._received += data
        while (end := self._received.find(b"\r\n\r\n")) >= 0 and self._transport is not None:
            head = bytes(self._received[:end]).lower()
            length = int(head.partition(b"content-length:")[2].split(b"\r\n")[0] or 0)
            if len(self._received) < end + 4 + length:
                return
            body = bytes(self._received[end + 4 : end + 4 + length])
            del self._received[: end + 4 + length]
            self._transport.write(self._answers.to(head, body))


async def serve(port: int, job_port: int) -> None:
    loop = asyncio.get_running_loop()
    answers = Answers()
    jobs = await loop.create_server(lambda: JobProtocol(answers), "127.0.0.1", job_port)
    job_url = f"http://127.0.0.1:{jobs.sockets[0].getsockname()[1]}"
    discovery = Server([Discovery(job_url, SystemClock().now())])
    await discovery.start("127.0.0.1", port)
    ready = {"event": "ready", "url": f"http://127.0.0.1:{port}", "admin_url": job_url}
    print(orjson.dumps(ready).decode(), flush=True)
    await discovery.wait_closed()


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True, help="gRPC, clear text")
    parser.add_argument("--job-port", type=int, default=0, help="HTTP; 0 takes a free one")
    options = parser.parse_args(arguments)
    uvloop.run(serve(options.port, options.job_port))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
