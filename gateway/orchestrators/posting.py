"""`POST` over kept HTTP/1.1 connections: the way of every job, and so the leanest there is.

A client for every purpose takes several times as long as all the rest of a job's way through the
gateway. llhttp parses; what is ours is the pool, and how little is believed of an answer.
"""

import asyncio
import ssl
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final, NamedTuple, cast

import httptools
from typing_extensions import override
from yarl import URL

from gateway.orchestrators.answers import (
    OrchestratorFailed,
    OrchestratorLost,
    OrchestratorUnreachable,
    printable,
)
from gateway.orchestrators.connecting import Connector, linked_account, no_links
from gateway.orchestrators.reach import MayBePrivate, anything, check_reached, public_addresses
from network.link.transport import LinkLostError
from network.units import Address
from network.wire import image_parts

_OK: Final = 200
_LONGEST_REFUSAL: Final = 4096
_LARGEST_HEAD: Final = 128 * 1024
_DESK_BYTES: Final = 256 * 1024
#: A chunk of one byte takes this many on the wire.
_FRAMING: Final = 6
#: Seconds for a body once it has begun: a slow drip is a fault, a slow link is not.
_BODY_SECONDS: Final = 30.0
_CONNECT_SECONDS: Final = 3.0
#: Seconds for which an idle connection is kept; servers of this network keep theirs longer.
_IDLE_SECONDS: Final = 50.0


class Origin(NamedTuple):
    """Where a connection leads."""

    host: str
    port: int
    is_tls: bool
    #: The connection goes over the link that this account dialled.
    linked: Address | None = None

    @classmethod
    def of(cls, url: URL) -> "Origin":
        """Raises OrchestratorFailed for what is no address of HTTP."""
        account = linked_account(str(url))
        if account is not None:
            return cls(url.host or "", 0, is_tls=False, linked=account)
        if url.host is None or url.port is None or url.scheme not in {"http", "https"}:
            raise OrchestratorFailed("its service URI leads nowhere")
        return cls(url.host, url.port, url.scheme == "https")


@dataclass(slots=True)
class PostAnswer:
    """What came back: images with status 200 whole, of anything else the first kilobytes."""

    status: int
    #: Names in lower case.
    headers: Mapping[str, str]
    body: bytes | bytearray

    @property
    def is_delivery(self) -> bool:
        """Whether it says to be images, in JSON or as parts."""
        return _is_delivery(self.status, self.headers)

    @property
    def has_parts(self) -> bool:
        return self.headers.get("content-type", "") == image_parts.CONTENT_TYPE


class _Exchange:
    """One answer being read. httptools calls the methods that begin with `on_`."""

    def __init__(self, most: int, answer: "asyncio.Future[PostAnswer]") -> None:
        self._most = most
        self.answer = answer
        self._parser: httptools.HttpResponseParser | None = httptools.HttpResponseParser(self)
        self._read = 0
        self._head: dict[str, str] = {}
        self._status = 0
        self._has_head = False
        self._is_whole = False
        self._may_be_followed = False
        self._chunks: list[bytes] = []
        self._size = 0
        #: Where the rest of a body of known length goes, past the parser.
        self._body: bytearray | None = None

    @property
    def is_in_body(self) -> bool:
        """Whether the head has come and the body has not."""
        return self._has_head and not self._is_whole

    @property
    def may_be_followed(self) -> bool:
        """Whether the connection can carry another exchange."""
        return self._may_be_followed

    def close(self) -> None:
        """Read no further."""
        # The parser and this object hold each other: left alone, they would wait for the collector.
        self._parser = None

    @property
    def room(self) -> memoryview | None:
        """Where the next bytes belong, if that is known; to be told of by `filled`."""
        return None if self._body is None else memoryview(self._body)[self._size :]

    def filled(self, count: int) -> None:
        """So many bytes were put into `room`."""
        self._size += count
        if self._body is not None and self._size == len(self._body):
            self._is_whole = True
            self.conclude()

    def feed(self, data: memoryview) -> None:
        """Take what arrived. Raises OrchestratorFailed."""
        if self._parser is None:
            return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            shown = printable(f"{type(error).__name__} {error}", 200)
            raise OrchestratorFailed(f"its answer is not the HTTP we know: {shown}") from None
        self._read += len(data)
        if not self._has_head:
            if self._read > _LARGEST_HEAD:
                raise OrchestratorFailed(f"its answer's head is above {_LARGEST_HEAD} bytes")
            return
        if _is_delivery(self._status, self._head):
            self._refuse_too_much()
        elif self._size >= _LONGEST_REFUSAL or self._read > _LARGEST_HEAD + _LONGEST_REFUSAL:
            self.conclude()
        if self._is_whole:
            self.conclude()
        else:
            self._make_room()

    def _make_room(self) -> None:
        """Images are megabytes: no copy is made of what is still to come of a body of known length."""
        length = self._head.get("content-length", "")
        is_framed = "transfer-encoding" in self._head
        if is_framed or not length.isdigit() or not _is_delivery(self._status, self._head):
            return
        parser, self._parser = self._parser, None
        self._may_be_followed = parser is not None and parser.should_keep_alive()
        self._body = bytearray(int(length))
        self._body[: self._size] = b"".join(self._chunks)
        self._chunks.clear()

    def conclude(self) -> None:
        """Answer with what is there."""
        if not self.answer.done():
            body = self._body if self._body is not None else b"".join(self._chunks)
            self._body = None
            self._chunks.clear()
            if not _is_delivery(self._status, self._head):
                body = body[:_LONGEST_REFUSAL]
            self.answer.set_result(PostAnswer(self._status, self._head, body))

    def end(self) -> bool:
        """The connection ended; whether that is how this answer was meant to end."""
        has_length = "content-length" in self._head or "transfer-encoding" in self._head
        if self._has_head and not has_length:
            self.conclude()
        return self.answer.done()

    def _refuse_too_much(self) -> None:
        announced = self._head.get("content-length", "")
        if announced.isdigit() and int(announced) > self._most:
            raise OrchestratorFailed(f"its answer of {announced} bytes is larger than asked for")
        # What frames the body counts as well: chunks of one byte, and trailers without end.
        if self._size > self._most or self._read > _FRAMING * self._most + _LARGEST_HEAD:
            raise OrchestratorFailed(f"its answer is larger than the {self._most} bytes asked for")

    def on_message_begin(self) -> None:
        if self._is_whole:  # it speaks without being asked: whose answer would the next one be?
            self._may_be_followed = False

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._has_head:  # trailers tell nothing
            self._head[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        if self._parser is not None and not self._is_whole:
            self._status = self._parser.get_status_code()
            self._has_head = self._status >= _OK

    def on_body(self, body: bytes) -> None:
        if not self._is_whole:
            self._chunks.append(body)
            self._size += len(body)

    def on_message_complete(self) -> None:
        if self._is_whole:
            return
        if self._has_head and self._parser is not None:
            self._is_whole = True
            # Only known here: what decides it is cleared for the next message.
            self._may_be_followed = self._parser.should_keep_alive()
        else:  # an interim answer, 1xx, which nobody asked for
            self._head.clear()


class _Connection(asyncio.BufferedProtocol):
    """One connection; it carries one exchange at a time."""

    def __init__(self, desk: memoryview) -> None:
        """`desk` is where bytes arrive that have no place yet; all connections may share one."""
        self._desk = desk
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.WriteTransport | None = None
        self._exchange: _Exchange | None = None
        self._drip: asyncio.TimerHandle | None = None
        #: Of the loop's clock; meaningful while idle.
        self.idle_since = 0.0

    @property
    def is_open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are none of asyncio's classes, only their like.
        self._transport = cast("asyncio.WriteTransport", transport)

    @override
    def get_buffer(self, sizehint: int) -> memoryview:
        del sizehint
        room = None if self._exchange is None else self._exchange.room
        return self._desk if room is None else room

    @override
    def buffer_updated(self, nbytes: int) -> None:
        exchange = self._exchange
        if exchange is None or exchange.answer.done():
            self.abort()  # it speaks without being asked
            return
        if exchange.room is not None:
            exchange.filled(nbytes)
            return
        try:
            exchange.feed(self._desk[:nbytes])
        except OrchestratorFailed as error:
            exchange.answer.set_exception(error)
            return
        if exchange.is_in_body and self._drip is None:
            self._drip = self._loop.call_later(_BODY_SECONDS, self._give_up_body)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        exchange = self._exchange
        if exchange is not None and not exchange.answer.done() and not exchange.end():
            why = "it closed the connection" if exc is None else _named(exc)
            failed = OrchestratorLost if isinstance(exc, LinkLostError) else OrchestratorFailed
            exchange.answer.set_exception(failed(f"the connection broke: {why}"))

    async def post(self, request: bytes, most: int) -> PostAnswer:
        """Raises OrchestratorFailed. After any exception the connection is of no more use."""
        if self._transport is None:
            raise OrchestratorFailed("the connection broke: it was never open")
        self._exchange = exchange = _Exchange(most, self._loop.create_future())
        try:
            self._transport.write(request)
            return await exchange.answer
        finally:
            if self._drip is not None:
                self._drip.cancel()
                self._drip = None
            self._exchange = None
            exchange.close()
            if not exchange.may_be_followed:
                self.abort()

    def abort(self) -> None:
        """Close without waiting: the other side sees it, and frees the job's place."""
        if self._transport is not None:
            self._transport.abort()

    def _give_up_body(self) -> None:
        exchange = self._exchange
        if exchange is not None and not exchange.answer.done():
            exchange.answer.set_exception(
                OrchestratorFailed(f"its answer did not arrive within {_BODY_SECONDS:g} s")
            )


class Poster:
    """The connections to all orchestrators."""

    def __init__(
        self,
        tls: ssl.SSLContext,
        may_be_private: MayBePrivate = anything,
        connect: Connector = no_links,
    ) -> None:
        """`connect` leads to orchestrators that cannot be called."""
        self._tls = tls
        self._may_be_private = may_be_private
        self._over_link = connect
        self._loop = asyncio.get_running_loop()
        # What is put there is taken away before anything else happens.
        self._desk = memoryview(bytearray(_DESK_BYTES))
        #: By origin, the longest idle first.
        self._idle: dict[Origin, deque[_Connection]] = {}
        self._busy: set[_Connection] = set()

    @property
    def idle(self) -> int:
        """How many connections are kept."""
        return sum(map(len, self._idle.values()))

    async def post(self, origin: Origin, request: bytes, most: int) -> PostAnswer:
        """Send a whole request; of the answer's body `most` bytes are taken.

        Cancelling closes the connection. Raises OrchestratorFailed, OrchestratorUnreachable.
        """
        connection = self._take(origin) or await self._connect(origin)
        self._busy.add(connection)
        try:
            answer = await connection.post(request, most)
        finally:
            self._busy.discard(connection)
            if connection.is_open:
                self._keep(origin, connection)
        return answer

    def close(self) -> None:
        for connection in (*self._busy, *(one for idle in self._idle.values() for one in idle)):
            connection.abort()
        self._idle.clear()

    def _take(self, origin: Origin) -> _Connection | None:
        """The connection used last, which is the least likely to be closed by its other end."""
        idle = self._idle.get(origin)
        while idle:
            connection = idle.pop()
            if connection.is_open and not self._is_stale(connection):
                return connection
            connection.abort()
        self._idle.pop(origin, None)
        return None

    def _keep(self, origin: Origin, connection: _Connection) -> None:
        connection.idle_since = self._loop.time()
        idle = self._idle.setdefault(origin, deque())
        idle.append(connection)
        if self._is_stale(idle[0]):
            idle.popleft().abort()

    def _is_stale(self, connection: _Connection) -> bool:
        return self._loop.time() - connection.idle_since > _IDLE_SECONDS

    async def _connect(self, origin: Origin) -> _Connection:
        try:
            if origin.linked is not None:
                return self._over_link(origin.linked, partial(_Connection, self._desk))[1]
            async with asyncio.timeout(_CONNECT_SECONDS):
                transport, connection = await self._loop.create_connection(
                    partial(_Connection, self._desk),
                    await self._address(origin),
                    origin.port,
                    ssl=self._tls if origin.is_tls else None,
                    server_hostname=origin.host if origin.is_tls else None,
                )
        except TimeoutError:
            raise OrchestratorUnreachable(f"no connection within {_CONNECT_SECONDS:g} s") from None
        except (OSError, ValueError) as error:  # ValueError: a host that is no name
            raise OrchestratorUnreachable(f"no connection: {_named(error)}") from None
        try:
            check_reached(origin.host, transport, self._may_be_private)
        except OrchestratorUnreachable:
            connection.abort()
            raise
        return connection

    async def _address(self, origin: Origin) -> str:
        """What to connect to: a name that may mean a neighbour of ours is looked up before."""
        if self._may_be_private(origin.host):
            return origin.host
        return (await public_addresses(origin.host, origin.port))[0]


def _is_delivery(status: int, head: Mapping[str, str]) -> bool:
    told = head.get("content-type", "")
    return status == _OK and ("json" in told.lower() or told == image_parts.CONTENT_TYPE)


def _named(error: Exception) -> str:
    return printable(f"{type(error).__name__} {error}", 200)
