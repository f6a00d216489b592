"""A link under way: streams over one WebSocket, from the handshake until it is lost."""

import asyncio
import socket as sockets
from collections.abc import Callable
from typing import Any, Final, NoReturn, Protocol, TypeVar

import aiohttp
import structlog
from aiohttp import web

from network.errors import WireError
from network.link.multiplexer import Arrived, Broken, Ended, Multiplexer, Opened, Told
from network.link.transport import LinkLostError, StreamTransport

P = TypeVar("P", bound=asyncio.Protocol)

#: Signs of life in the time after which the other side is taken for dead.
_BEATS: Final = 4
_CLOSE_SECONDS: Final = 2.0
#: Bytes that wait in the kernel: what is queued there can be overtaken by nothing.
_KERNEL_QUEUE: Final = 64 * 1024

_log = structlog.get_logger(__name__)


class WebSocket(Protocol):
    """What aiohttp's two kinds of WebSocket have in common."""

    async def send_bytes(self, data: bytes) -> None: ...

    async def receive(self) -> aiohttp.WSMessage: ...


class Link:
    """One side of a link whose handshake is over. `run` it; that ends with the link."""

    def __init__(
        self,
        websocket: WebSocket,
        *,
        opens: bool,
        silence_seconds: float,
        serve: Callable[[], asyncio.Protocol] | None = None,
        on_push: Callable[[bytes], None] | None = None,
        peer: str = "",
    ) -> None:
        """`opens`: this is the gateway's side. `serve` makes the protocols of streams that the other

        side opens; without it they are refused. `peer` names the other side to protocols.
        """
        self._websocket = websocket
        self._silence = silence_seconds
        self._serve = serve
        self._on_push = on_push
        self.peer = peer
        self.multiplexer = Multiplexer(opens=opens)
        self._transports: dict[int, StreamTransport] = {}
        self._news = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._heard_at = self._loop.time()
        self._why_lost = ""
        self._closing = asyncio.Event()

    def __len__(self) -> int:
        """How many streams are open."""
        return len(self._transports)

    @property
    def is_lost(self) -> bool:
        return bool(self._why_lost)

    async def run(self) -> str:
        """Carry streams until the link is lost; tells why. At the end all streams are lost."""
        why = "it was closed on this side"
        try:
            async with asyncio.TaskGroup() as group:
                for job in (self._read, self._write, self._watch):
                    group.create_task(job())
        except* LinkLostError as lost:
            why = str(lost.exceptions[0])
        finally:
            self._lose(why)
        return why

    def close(self, why: str) -> None:
        """Break it off at once."""
        self._lose(why)
        self._closing.set()

    def open_stream(self, factory: Callable[[], P]) -> tuple[asyncio.Transport, P]:
        """As `loop.create_connection`, but at once. Raises LinkLostError, OSError when there are too many."""
        if self._why_lost:
            raise LinkLostError(self._why_lost)
        stream = self.multiplexer.open()
        if stream is None:
            raise OSError("the link carries as many connections as it may")
        protocol = factory()
        transport = self._admit(stream, protocol)
        self.wake()
        return transport, protocol

    def push(self, data: bytes) -> None:
        """Tell the gateway news."""
        self.multiplexer.push(data)
        self.wake()

    # What transports ask for

    def wake(self) -> None:
        self._news.set()

    def forget(self, stream: int) -> None:
        self._transports.pop(stream, None)

    # Inside

    def _admit(self, stream: int, protocol: asyncio.Protocol) -> StreamTransport:
        transport = StreamTransport(self, stream, {"peername": (self.peer, 0)})
        self._transports[stream] = transport
        transport.begin(protocol)
        return transport

    async def _read(self) -> NoReturn:
        while True:
            message = await self._websocket.receive()
            if message.type is not aiohttp.WSMsgType.BINARY:
                raise LinkLostError(_ending(message))
            self._heard_at = self._loop.time()
            try:
                self._take(message.data)
            except WireError as error:
                raise LinkLostError(f"it broke the rules: {error}") from None

    def _take(self, message: bytes) -> None:
        match self.multiplexer.take(message):
            case None:
                pass
            case Opened(stream):
                if self._serve is None:
                    self.multiplexer.reset(stream)
                else:
                    self._admit(stream, self._serve())
            case Told(data):
                if self._on_push is not None:
                    self._on_push(data)
            case event:
                self._take_of(self._transports.get(event.stream), event)
        # Credits, refusals: whatever the message was answered with, or lets go on.
        self.wake()

    def _take_of(self, transport: StreamTransport | None, event: Arrived | Ended | Broken) -> None:
        match event:
            case Arrived(stream, data):
                if transport is None:  # closed here, and not yet ended there
                    self.multiplexer.consumed(stream, len(data))
                else:
                    transport.arrived(data)
            case Ended() if transport is not None:
                transport.ended()
            case Broken() if transport is not None:
                transport.lost(ConnectionResetError("the other side broke the connection"))
            case _:
                pass

    async def _write(self) -> NoReturn:
        while True:
            item = self.multiplexer.next_message()
            if item is None:
                self._news.clear()
                await self._news.wait()
                continue
            stream, message = item
            try:
                await self._websocket.send_bytes(message)
            except (OSError, RuntimeError) as error:
                raise LinkLostError(f"the connection broke: {type(error).__name__}") from None
            if (transport := self._transports.get(stream)) is not None:
                transport.sent()
            # A fast line never makes the writer wait; others have a turn all the same.
            await asyncio.sleep(0)

    async def _watch(self) -> NoReturn:
        while True:
            try:
                async with asyncio.timeout(self._silence / _BEATS):
                    await self._closing.wait()
            except TimeoutError:
                pass
            else:
                raise LinkLostError(self._why_lost)
            if self._loop.time() - self._heard_at > self._silence:
                raise LinkLostError(f"nothing was heard for {self._silence:g} s")
            self.multiplexer.beat()
            self.wake()

    def _lose(self, why: str) -> None:
        self._why_lost = self._why_lost or why
        for transport in tuple(self._transports.values()):
            transport.lost(LinkLostError(f"the link is gone: {self._why_lost}"))


async def close_websocket(
    websocket: aiohttp.ClientWebSocketResponse | web.WebSocketResponse,
    why: str,
    code: int = aiohttp.WSCloseCode.OK,
) -> None:
    """Say goodbye, to a dead line not for long."""
    try:
        async with asyncio.timeout(_CLOSE_SECONDS):
            await websocket.close(code=code, message=why.encode("ascii", "replace")[:120])
    except (TimeoutError, OSError, RuntimeError):
        _log.debug("link_not_closed_properly", why=why)


def keep_kernel_queue_short(transport_info: Callable[[str], Any]) -> None:
    """Let a small stream's bytes overtake a large one's: they wait with us, not in the socket."""
    option = getattr(sockets, "TCP_NOTSENT_LOWAT", None)
    sock = transport_info("socket")
    if option is not None and sock is not None:
        sock.setsockopt(sockets.IPPROTO_TCP, option, _KERNEL_QUEUE)


def _ending(message: aiohttp.WSMessage) -> str:
    if message.type is aiohttp.WSMsgType.CLOSE:
        said = "".join(c for c in str(message.extra or "") if c.isprintable())[:120]
        return f"it was closed on the other side: {said or message.data}"
    if message.type is aiohttp.WSMsgType.TEXT:
        return "it broke the rules: a text message"
    return "the connection broke"
