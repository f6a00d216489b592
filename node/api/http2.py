"""Ordinary requests over HTTP/2: each is one exchange of HTTP/1.1 with aiohttp, in memory.

Clients that offer HTTP/1.1 as well get that. The few that speak nothing but HTTP/2 are served as
Livepeer's nodes serve them (wire, 1.2): gRPC by its content type, everything else by the same routes.
"""

import asyncio
import re
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import httptools
import structlog
from grpclib.protocol import AbstractHandler, H2Protocol, Stream
from h2.errors import ErrorCodes
from h2.exceptions import H2Error
from h2.settings import SettingCodes
from typing_extensions import override

#: Bytes of a request's head as HPACK counts them.
MAX_HEAD_BYTES: Final = 128 * 1024
_PIECE: Final = 64 * 1024
#: Bytes of an answer that wait for the client before aiohttp is asked to pause.
_MOST_WAITING: Final = 256 * 1024
_FINAL: Final = 200
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]+", re.ASCII)
_METHOD: Final = re.compile(r"[A-Z]{1,20}", re.ASCII)
_TARGET: Final = re.compile(r"/[!-~]*")
_VALUE: Final = re.compile(r"[\t -~]*")
_LENGTH: Final = re.compile(r"[0-9]{1,18}", re.ASCII)
#: They are about one connection of HTTP/1.1, and mean nothing here.
_HOP_BY_HOP: Final = frozenset(
    {"connection", "keep-alive", "proxy-connection", "te", "transfer-encoding", "upgrade"}
)

log = structlog.get_logger(__name__)

_Headers = Sequence[tuple[str, str]]


class Request(NamedTuple):
    """A request as HTTP/1.1 has it. `length` of the body; None where it is not told."""

    head: bytes
    method: str
    length: int | None


def request_of(headers: _Headers) -> Request | None:
    """None for what no HTTP/1.1 request could say: it must not become two."""
    pseudo = [(name, value) for name, value in headers if name.startswith(":")]
    fields = list(headers[len(pseudo) :])
    told = dict(pseudo)
    if len(told) < len(pseudo) or not all(map(_is_field, fields)):
        return None
    method, target = told.get(":method", ""), told.get(":path", "")
    host = told.get(":authority") or next((v for n, v in fields if n == "host"), "")
    if not (_METHOD.fullmatch(method) and _TARGET.fullmatch(target) and _VALUE.fullmatch(host)):
        return None
    lengths = [value for name, value in fields if name == "content-length"]
    if len(lengths) > 1 or not all(map(_LENGTH.fullmatch, lengths)):
        return None
    kept = [f"{n}: {v}" for n, v in fields if n not in _HOP_BY_HOP and n != "host"]
    lines = [f"{method} {target} HTTP/1.1", f"host: {host}", "connection: close", *kept, "", ""]
    length = int(lengths[0]) if lengths else None
    return Request("\r\n".join(lines).encode("ascii"), method, length)


def _is_field(field: tuple[str, str]) -> bool:
    name, value = field
    return bool(_TOKEN.fullmatch(name) and _VALUE.fullmatch(value))


class HttpHandler(AbstractHandler):  # type: ignore[misc]  # grpclib is untyped
    """Gives gRPC calls to grpclib's handler, and everything else to aiohttp."""

    def __init__(
        self,
        grpc: AbstractHandler,
        start_http: Callable[[], asyncio.Protocol],
        served: Callable[[], None],
    ) -> None:
        """`served` hears of each request that was answered."""
        self._grpc = grpc
        self._start_http = start_http
        self._served = served
        self._loop = asyncio.get_running_loop()
        self._tasks: dict[Stream, asyncio.Task[None]] = {}

    @override
    def accept(self, stream: Stream, headers: Any, release_stream: Callable[[], None]) -> None:
        if any(n == "content-type" and v.startswith("application/grpc") for n, v in headers):
            self._grpc.accept(stream, headers, release_stream)
            return
        task = self._loop.create_task(self._answer(stream, headers))
        self._tasks[stream] = task

        def done(task: asyncio.Task[None]) -> None:
            self._tasks.pop(stream, None)
            release_stream()
            if not task.cancelled() and task.exception() is not None:
                log.error("request over HTTP/2 failed", exc_info=task.exception())

        task.add_done_callback(done)

    @override
    def cancel(self, stream: Stream) -> None:
        task = self._tasks.get(stream)
        if task is not None:
            task.cancel()
        else:
            self._grpc.cancel(stream)

    @override
    def close(self) -> None:
        self._grpc.close()
        for task in self._tasks.values():
            task.cancel()

    async def _answer(self, stream: Stream, headers: _Headers) -> None:
        try:
            request = request_of(headers)
            if request is None:
                await stream.reset(ErrorCodes.PROTOCOL_ERROR)
                return
            if request.length is None and await stream.recv_data(1):
                await _refuse(stream, 411, "say how long the body is, in Content-Length")
                return
            exchange = _Exchange(self._start_http(), request)
            try:
                await exchange.run(stream)
            finally:
                exchange.close()
            self._served()
        except (H2Error, AssertionError):
            # The client closed the stream, or sent what grpclib asserts that nobody sends.
            log.debug("broken stream of HTTP/2", exc_info=True)


class _Exchange(asyncio.Transport):
    """One request, and what aiohttp writes in answer. httptools calls the methods that begin with `on_`."""

    def __init__(self, http: asyncio.Protocol, request: Request) -> None:
        super().__init__({"peername": ("", 0)})
        self._http = http
        self._request = request
        self._loop = asyncio.get_running_loop()
        self._parser: httptools.HttpResponseParser | None = httptools.HttpResponseParser(self)
        self._head: list[tuple[str, str]] = []
        self._pieces: deque[bytes] = deque()
        self._waiting = 0
        self._has_head = self._is_whole = self._is_closed = self._is_paused = False
        self._news = asyncio.Event()
        self._may_read = asyncio.Event()
        self._may_read.set()

    async def run(self, stream: Stream) -> None:
        """Until the answer is with the client. Raises H2Error where that went away."""
        self._http.connection_made(self)
        self._http.data_received(self._request.head)
        upload = self._loop.create_task(self._send_body(stream))
        try:
            await self._pass_on(stream)
        finally:
            upload.cancel()
            await asyncio.wait((upload,))

    async def _send_body(self, stream: Stream) -> None:
        left = self._request.length or 0
        while left and not self._is_closed:
            await self._may_read.wait()
            try:
                piece = await stream.recv_data(min(left, _PIECE))
            except AssertionError:  # grpclib's word for a body that ends too soon
                piece = b""
            if not piece:
                self.close()
                return
            left -= len(piece)
            if not self._is_closed:
                self._http.data_received(piece)

    async def _pass_on(self, stream: Stream) -> None:
        is_begun = False
        while True:
            while not (self._has_head or self._is_closed):
                await self._next_news()
            if not self._has_head:
                await stream.reset(ErrorCodes.INTERNAL_ERROR)
                return
            if not is_begun:
                is_begun = True
                await stream.send_headers(self._head)
            while self._pieces:
                piece = self._pieces.popleft()
                await stream.send_data(piece)
                self._waiting -= len(piece)
                self._resume()
            if self._is_whole:
                await stream.end()
                return
            if self._is_closed:
                # Cut off: the client must not take it for all there is.
                await stream.reset(ErrorCodes.INTERNAL_ERROR)
                return
            await self._next_news()

    async def _next_news(self) -> None:
        await self._news.wait()
        self._news.clear()

    def _resume(self) -> None:
        if self._is_paused and self._waiting < _MOST_WAITING // 2:
            self._is_paused = False
            self._http.resume_writing()

    # What aiohttp does with its connection

    @override
    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._parser is None or self._is_whole:
            return
        self._parser.feed_data(data)
        if self._waiting > _MOST_WAITING and not self._is_paused:
            self._is_paused = True
            self._http.pause_writing()
        self._news.set()

    @override
    def is_closing(self) -> bool:
        return self._is_closed

    @override
    def close(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            self._parser = None
            self._news.set()
            self._may_read.set()
            self._loop.call_soon(self._http.connection_lost, None)

    @override
    def abort(self) -> None:
        self.close()

    @override
    def pause_reading(self) -> None:
        self._may_read.clear()

    @override
    def resume_reading(self) -> None:
        self._may_read.set()

    # The answer

    def on_header(self, name: bytes, value: bytes) -> None:
        lower = name.decode("latin-1").lower()
        if not self._has_head and lower not in _HOP_BY_HOP:
            self._head.append((lower, value.decode("latin-1")))

    def on_headers_complete(self) -> None:
        if self._parser is None:
            return
        status = self._parser.get_status_code()
        if status < _FINAL:  # "100 Continue"
            self._head.clear()
            return
        self._head.insert(0, (":status", str(status)))
        self._has_head = True
        self._is_whole = self._request.method == "HEAD"

    def on_body(self, body: bytes) -> None:
        self._pieces.append(body)
        self._waiting += len(body)

    def on_message_complete(self) -> None:
        self._is_whole = self._has_head


async def _refuse(stream: Stream, status: int, text: str) -> None:
    body = f"{text}\n".encode()
    told = [
        (":status", str(status)),
        ("content-type", "text/plain; charset=utf-8"),
        ("content-length", str(len(body))),
    ]
    await stream.send_headers(told)
    await stream.send_data(body, end_stream=True)


def allow_long_heads(protocol: H2Protocol) -> None:
    """After `connection_made`: a payment of 600 tickets is one header of 58 KB."""
    state = protocol.connection._connection  # noqa: SLF001  grpclib has no option for it
    state.decoder.max_header_list_size = MAX_HEAD_BYTES
    state.update_settings({SettingCodes.MAX_HEADER_LIST_SIZE: MAX_HEAD_BYTES})
    protocol.connection.flush()
