"""One port for all: HTTP/1.1 by aiohttp and HTTP/2 by grpclib, each with bounds of our own.

Over TLS, ALPN says who speaks HTTP/2; in clear text the first bytes do, because such clients begin
with a preface that no HTTP/1.1 request can be. Some offer both over TLS, and speak HTTP/2 whatever was
agreed: the preface counts there, too.
"""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final, cast

import structlog
from aiohttp import web
from grpclib.config import Configuration as GrpcConfiguration
from grpclib.const import Handler as GrpcMethod
from grpclib.encoding.base import CodecBase
from grpclib.protocol import H2Protocol
from grpclib.server import Server as GrpcServer
from typing_extensions import override

from node.api.http2 import HttpHandler, allow_long_heads

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
#: One header field; a payment of 600 tickets is 58 KB of base64 (Livepeer wire, 1.3).
MAX_HEADER_BYTES: Final = 256 * 1024
MAX_REQUEST_LINE_BYTES: Final = 8 * 1024
#: A whole request head, and the slack beyond the body until the next one is complete.
_MOST_HEAD_BYTES: Final = 512 * 1024
_HANDSHAKE_SECONDS: Final = 10.0
_GOODBYE_SECONDS: Final = 2.0
_BACKLOG: Final = 1024
#: What a connection of HTTP/2 may send per second in the long run, besides requests that were answered.
_H2_BYTES_PER_SECOND: Final = 64 * 1024
#: What it may have sent that nobody has read yet: grpclib keeps that in memory.
_H2_WINDOWS: Final = GrpcConfiguration(
    http2_connection_window_size=1024 * 1024, http2_stream_window_size=512 * 1024
)

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ListenerLimits:
    """Bounds of connections; times in seconds."""

    max_connections: int = 1024
    max_body_bytes: int = 256 * 1024
    header_timeout: float = 15.0
    idle_timeout: float = 600.0


class RawCodec(CodecBase):  # type: ignore[misc]  # grpclib has no types
    """Leaves protobuf to `network.wire.codec`, which bounds what it reads."""

    __content_subtype__ = "proto"

    @override
    def encode(self, message: object, message_type: object) -> bytes:
        return cast("bytes", message)

    @override
    def decode(self, data: bytes, message_type: object) -> bytes:
        return data


class _Service:
    def __init__(self, methods: Mapping[str, GrpcMethod]) -> None:
        self._methods = methods

    def __mapping__(self) -> Mapping[str, GrpcMethod]:
        return self._methods


class Connections:
    """The open connections of a listener, and the factories of their protocols."""

    def __init__(self, methods: Mapping[str, GrpcMethod], limits: ListenerLimits) -> None:
        self.limits = limits
        self._grpc = GrpcServer([_Service(methods)], codec=RawCodec(), config=_H2_WINDOWS)
        self._http: web.Server | None = None
        self._open: set[asyncio.Transport] = set()
        self._doormen: dict[asyncio.BaseProtocol, _Doorman] = {}

    def __len__(self) -> int:
        return len(self._open)

    def serve(self, http: web.Server) -> None:
        """Give HTTP/1.1 connections to `http`."""
        self._http = http

    def heard(self, protocol: asyncio.BaseProtocol | None) -> None:
        """Note that a whole request head has arrived at aiohttp's `protocol`."""
        doorman = self._doormen.get(protocol) if protocol is not None else None
        if doorman is not None:
            doorman.heard()

    def admit(self, transport: asyncio.Transport) -> bool:
        """Count a connection in; False when there are as many as may be."""
        if len(self._open) >= self.limits.max_connections:
            return False
        self._open.add(transport)
        return True

    def forget(
        self, transport: asyncio.Transport | None, protocol: asyncio.BaseProtocol | None
    ) -> None:
        """Count a connection out."""
        if transport is not None:
            self._open.discard(transport)
        if protocol is not None:
            self._doormen.pop(protocol, None)

    def start_http(self, doorman: "_Doorman") -> asyncio.Protocol:
        """Return aiohttp's side of a connection."""
        if self._http is None:
            raise RuntimeError("the listener serves no HTTP application yet")
        protocol = self._http()
        self._doormen[protocol] = doorman
        return protocol

    def start_http2(self) -> asyncio.Protocol:
        """Return grpclib's side of a connection, which aiohttp shares."""
        if self._http is None:
            raise RuntimeError("the listener serves no HTTP application yet")
        # grpclib has no public way to serve a connection that somebody else accepted.
        inner = self._grpc._protocol_factory()  # noqa: SLF001
        bounded = _BoundedHttp2(inner, self.limits)
        inner.handler = HttpHandler(inner.handler, self._http, bounded.refill)
        return bounded

    async def close(self) -> None:
        """Let answers under way go out for a moment, then cut every connection."""
        if self._http is not None:
            await self._http.shutdown(_GOODBYE_SECONDS)
        for transport in tuple(self._open):
            transport.abort()


class _BoundedHttp2(asyncio.Protocol):
    """A grpclib connection with an allowance of bytes and an end to idleness."""

    def __init__(self, inner: H2Protocol, limits: ListenerLimits) -> None:
        self._inner = inner
        self._idle_timeout = limits.idle_timeout
        self._loop = asyncio.get_running_loop()
        self._heard_at = self._loop.time()
        self._most = float(limits.max_body_bytes + 2 * _MOST_HEAD_BYTES)
        self._allowance = self._most
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._timer = self._loop.call_later(self._idle_timeout, self._check_idle)
        self._inner.connection_made(transport)
        allow_long_heads(self._inner)

    def refill(self) -> None:
        """Note that a request was answered."""
        self._allowance = self._most

    @override
    def data_received(self, data: bytes) -> None:
        now = self._loop.time()
        refill = (now - self._heard_at) * _H2_BYTES_PER_SECOND
        self._allowance = min(self._most, self._allowance + refill) - len(data)
        self._heard_at = now
        if self._allowance < 0:
            self._abort()
            return
        try:
            self._inner.data_received(data)
        except Exception:
            log.debug("broken HTTP/2 connection", exc_info=True)
            self._abort()

    @override
    def eof_received(self) -> bool | None:
        return bool(self._inner.eof_received())

    @override
    def pause_writing(self) -> None:
        self._inner.pause_writing()

    @override
    def resume_writing(self) -> None:
        self._inner.resume_writing()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._transport = None
        self._inner.connection_lost(exc)

    def _check_idle(self) -> None:
        left = self._heard_at + self._idle_timeout - self._loop.time()
        if left <= 0:
            self._abort()
        else:
            self._timer = self._loop.call_later(left, self._check_idle)

    def _abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()


class _Doorman(asyncio.Protocol):
    """Finds out what a new connection speaks, hands everything on, and keeps an eye on it.

    aiohttp bounds a header field and the pause between requests, but neither how long a client
    may dribble out its first head nor how large all of a head may be.
    """

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._transport: asyncio.Transport | None = None
        self._inner: asyncio.Protocol | None = None
        self._is_h2 = False
        self._seen = b""
        self._allowance = _MOST_HEAD_BYTES
        self._timer: asyncio.TimerHandle | None = None

    def heard(self) -> None:
        """Note that a request head is complete."""
        self._allowance = self._connections.limits.max_body_bytes + 2 * _MOST_HEAD_BYTES
        self._stop_timer()

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        if not self._connections.admit(self._transport):
            self._transport.abort()
            return
        loop = asyncio.get_running_loop()
        limit = self._connections.limits.header_timeout
        self._timer = loop.call_later(limit, self._transport.abort)
        tls = transport.get_extra_info("ssl_object")
        if tls is not None and tls.selected_alpn_protocol() == "h2":
            self._hand_over(is_h2=True)

    @override
    def data_received(self, data: bytes) -> None:
        if self._inner is None:
            self._seen += data
            # "P" may begin the preface or a POST; wait for as much as tells them apart.
            if len(self._seen) >= len(PREFACE) or not PREFACE.startswith(self._seen):
                self._hand_over(is_h2=self._seen.startswith(PREFACE))
            return
        if not self._is_h2:
            self._allowance -= len(data)
            if self._allowance < 0 and self._transport is not None:
                self._transport.abort()
                return
        self._inner.data_received(data)

    @override
    def eof_received(self) -> bool | None:
        return self._inner.eof_received() if self._inner is not None else None

    @override
    def pause_writing(self) -> None:
        if self._inner is not None:
            self._inner.pause_writing()

    @override
    def resume_writing(self) -> None:
        if self._inner is not None:
            self._inner.resume_writing()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        self._connections.forget(self._transport, self._inner)
        if self._inner is not None:
            self._inner.connection_lost(exc)

    def _hand_over(self, *, is_h2: bool) -> None:
        if self._transport is None:
            return
        self._is_h2 = is_h2
        if is_h2:
            self._stop_timer()
            self._inner = self._connections.start_http2()
        else:
            self._inner = self._connections.start_http(self)
        self._inner.connection_made(self._transport)
        seen, self._seen = self._seen, b""
        if seen:
            self.data_received(seen)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def connection_factory(connections: Connections) -> Callable[[], asyncio.Protocol]:
    """Return what makes the protocol of a connection, wherever that comes from."""
    return lambda: _Doorman(connections)


@dataclass(frozen=True, slots=True)
class Listener:
    """A running listener."""

    port: int
    stop_accepting: Callable[[], None]
    connections: Connections


@asynccontextmanager
async def open_listener(
    connections: Connections, sock: socket.socket, context: ssl.SSLContext | None
) -> AsyncIterator[Listener]:
    """Accept connections on a bound socket, over TLS where a context is given.

    At the end the connections still open get a moment to send what they have, and are then cut.
    """
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: _Doorman(connections),
        sock=sock,
        ssl=context,
        ssl_handshake_timeout=_HANDSHAKE_SECONDS if context is not None else None,
        backlog=_BACKLOG,
    )
    try:
        yield Listener(sock.getsockname()[1], server.close, connections)
    finally:
        server.close()
        await connections.close()


async def bound_socket(host: str, port: int) -> socket.socket:
    """Return a TCP socket bound to `host` and `port` (0: a free one). Raises OSError."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, kind, protocol, _, address = found[0]
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setblocking(False)  # noqa: FBT003  the standard library's own
        sock.bind(address)
    except OSError:
        sock.close()
        raise
    return sock
