"""`POST` over kept HTTP/1.1 connections: the way of every job, and so the leanest there is.

A client for every purpose takes several times as long as all the rest of a job's way through the
gateway. llhttp parses; what is ours is the pool, and how little is believed of an answer.
"""

import asyncio
import ssl
from collections import deque
from functools import partial
from typing import Final, NamedTuple, cast

from typing_extensions import override
from yarl import URL

from gateway.orchestrators.answer_reader import AnswerReader, PostAnswer
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

_DESK_BYTES: Final = 256 * 1024
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


class _Connection(asyncio.BaseProtocol):
    """One connection; it carries one exchange at a time."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.WriteTransport | None = None
        self._exchange: AnswerReader | None = None
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

    def _current(self) -> AnswerReader | None:
        """The exchange that what arrives now belongs to."""
        exchange = self._exchange
        if exchange is None or exchange.answer.done():
            self.abort()  # it speaks without being asked
            return None
        return exchange

    def _feed(self, exchange: AnswerReader, data: memoryview) -> None:
        try:
            exchange.feed(data)
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
        self._exchange = exchange = AnswerReader(most, self._loop.create_future())
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


class _SocketConnection(_Connection, asyncio.BufferedProtocol):
    """One over a socket: bytes are read to where they belong."""

    def __init__(self, desk: memoryview) -> None:
        """`desk` is where bytes arrive that have no place yet; all connections may share one."""
        super().__init__()
        self._desk = desk

    @override
    def get_buffer(self, sizehint: int) -> memoryview:
        del sizehint
        room = None if self._exchange is None else self._exchange.room
        return self._desk if room is None else room

    @override
    def buffer_updated(self, nbytes: int) -> None:
        exchange = self._current()
        if exchange is None:
            return
        if exchange.room is None:
            self._feed(exchange, self._desk[:nbytes])
        else:
            exchange.filled(nbytes)


class _LinkedConnection(_Connection, asyncio.Protocol):
    """One over a link, which hands over bytes that it has already."""

    @override
    def data_received(self, data: bytes) -> None:
        exchange = self._current()
        if exchange is None:
            return
        view, room = memoryview(data), exchange.room
        if room is None:
            self._feed(exchange, view)
            return
        count = min(len(room), len(view))
        room[:count] = view[:count]
        exchange.filled(count)
        if count < len(view):
            self.abort()  # it goes on after its answer


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
                return self._over_link(origin.linked, _LinkedConnection)[1]
            async with asyncio.timeout(_CONNECT_SECONDS):
                transport, connection = await self._loop.create_connection(
                    partial(_SocketConnection, self._desk),
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


def _named(error: Exception) -> str:
    return printable(f"{type(error).__name__} {error}", 200)
