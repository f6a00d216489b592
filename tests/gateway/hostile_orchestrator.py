"""An orchestrator whose every answer is an attack, byte by byte, and who counts what it could send."""

import asyncio
import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Final

import orjson

from tests.gateway.stub_orchestrator import StubModel, StubOrchestrator, running

#: What the kernels of both ends hold of a loopback connection that nobody reads from.
_SEND_BUFFER: Final = 64 * 1024
_LENGTH: Final = re.compile(rb"content-length: *([0-9]+)", re.IGNORECASE)


@dataclass
class Call:
    """One connection of the gateway's, after its first request."""

    method: str
    path: str
    body: dict[str, Any]
    #: Where the attacker listens, and where a server that must not be contacted does.
    own: str
    canary: str
    _reader: asyncio.StreamReader
    _writer: asyncio.StreamWriter
    #: Bytes that the gateway's side took off our hands.
    sent: int = 0

    async def send(self, data: bytes) -> None:
        """Raises ConnectionError once the gateway has hung up."""
        if self._writer.is_closing():
            raise ConnectionResetError
        self._writer.write(data)
        await self._writer.drain()
        self.sent += len(data)

    async def answer(
        self,
        body: bytes,
        *headers: str,
        status: str = "200 OK",
        media: str = "application/json",
    ) -> None:
        lines = [f"HTTP/1.1 {status}", f"Content-Type: {media}", *headers]
        if not any(line.lower().startswith(("content-length", "transfer-")) for line in headers):
            lines.append(f"Content-Length: {len(body)}")
        await self.send("\r\n".join([*lines, "", ""]).encode("latin-1") + body)

    async def endless(self, piece: bytes, pause: float = 0.0) -> None:
        """`piece` for ever, which is until the gateway hangs up."""
        while True:
            await self.send(piece)
            await asyncio.sleep(pause)

    async def hang(self) -> None:
        """Until the gateway hangs up."""
        await self._reader.read()


Attack = Callable[[Call], Awaitable[None]]


@dataclass
class Hostile:
    """Its word is good, its work is not. `model` is what it alone offers at a low price."""

    model: str
    attack: Attack
    canary: str = ""
    stub: StubOrchestrator = field(init=False)
    calls: list[Call] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.stub = StubOrchestrator({self.model: StubModel(Fraction(1))})

    @property
    def sent(self) -> int:
        """Over all its connections."""
        return sum(call.sent for call in self.calls)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        buffer_little(writer)
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            length = _LENGTH.search(head)
            raw = await reader.readexactly(int(length[1])) if length else b"{}"
            own = str(self.stub.transcoder)
            method, path, _ = head.split(b"\r\n")[0].decode("latin-1").split(" ")
            call = Call(method, path, orjson.loads(raw), own, self.canary, reader, writer)
            self.calls.append(call)
            await self.attack(call)
        with suppress(ConnectionError):
            writer.close()
            await writer.wait_closed()


def buffer_little(writer: asyncio.StreamWriter) -> None:
    """What was sent is then about what the other side took."""
    peer: socket.socket = writer.get_extra_info("socket")
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)


@dataclass
class Canary:
    """Listens, and tells whether anybody came."""

    url: str = ""
    visits: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        del reader
        self.visits += 1
        writer.close()


@asynccontextmanager
async def listening(
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[str]:
    """Yields its address; every connection is ended with the block."""
    tasks: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(_awaited(serve(reader, writer)))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _awaited(serving: Awaitable[None]) -> None:
    await serving


@asynccontextmanager
async def attacking(hostiles: list[Hostile]) -> AsyncIterator[list[Hostile]]:
    """Serve them all until the block is left."""
    async with AsyncExitStack() as stack:
        for hostile in hostiles:
            hostile.stub.transcoder = await stack.enter_async_context(listening(hostile.serve))
            await stack.enter_async_context(running(hostile.stub))
        yield hostiles
