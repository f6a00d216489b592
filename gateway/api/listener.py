"""HTTP listeners that speak our error envelope even when the request is no HTTP."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import structlog
from aiohttp import web
from aiohttp.http_exceptions import LineTooLong
from aiohttp.web_protocol import RequestHandler
from typing_extensions import override

from gateway.api.answers import problem_answer
from gateway.api.exchange import new_request_id
from network.errors import Problem
from network.wire import problems

_log = structlog.get_logger(__name__)

#: Bytes of one header line; generous enough for a JWT or a long traceparent.
_MAX_LINE_BYTES: Final = 16 * 1024
#: Seconds for which the unread rest of a refused request's body is read and thrown away.
_LINGER_SECONDS: Final = 2.0
_FULL: Final = (
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\nConnection: close\r\n"
    b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
)

RequestHandling = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class _Connection(RequestHandler):
    """aiohttp's protocol, with our answers to what is wrong before a handler is reached."""

    __slots__ = ()

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        manager = self._manager
        if isinstance(manager, _Server) and manager.is_full:
            _turn_away(transport)
            self._force_close = True
            return
        super().connection_made(transport)

    @override
    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer a request that could not be parsed (400, 431) or handled (500)."""
        del message  # aiohttp's own words may quote the request
        if request.writer.output_size > 0:
            raise ConnectionError("an answer was under way; no other can follow it")
        if status < 500:  # noqa: PLR2004
            response = problem_answer(_unreadable(exc))
        else:
            _log.error("connection_failed", status=status, exc_info=exc)
            response = problem_answer(problems.internal())
        response.headers["X-Request-Id"] = new_request_id()
        response.force_close()
        return response

    @override
    def log_exception(self, *args: Any, **kw: Any) -> None:
        _log.error("connection_failed", detail=str(args[0]), exc_info=kw.get("exc_info", True))


class _Server(web.Server):
    def __init__(self, handler: RequestHandling, *, max_connections: int, **options: Any) -> None:
        super().__init__(handler, handler_cancellation=True)
        self._options = options
        self._max_connections = max_connections

    @property
    def is_full(self) -> bool:
        return len(self._connections) >= self._max_connections

    @override
    def __call__(self) -> RequestHandler:
        return _Connection(self, loop=self._loop, **self._options)


@asynccontextmanager
async def listen(
    handler: RequestHandling,
    *,
    host: str,
    port: int,
    tls: ssl.SSLContext | None = None,
    max_connections: int,
    keepalive_seconds: float,
    shutdown_seconds: float,
) -> AsyncIterator[str]:
    """Serve `handler` and yield the listener's URL; port 0 takes a free one.

    A client that closes its connection cancels its handler. At exit: no new connections, requests
    under way may finish within `shutdown_seconds`, then they are cancelled. Raises OSError when
    the address cannot be had.
    """
    loop = asyncio.get_running_loop()
    server = _Server(
        handler,
        max_connections=max_connections,
        keepalive_timeout=keepalive_seconds,
        max_line_size=_MAX_LINE_BYTES,
        max_field_size=_MAX_LINE_BYTES,
        lingering_time=_LINGER_SECONDS,
        access_log=None,
        auto_decompress=False,
    )
    listener = await loop.create_server(server, host, port, ssl=tls, backlog=1024)
    try:
        bound = listener.sockets[0].getsockname()
        shown = f"[{host}]" if ":" in host else host
        yield f"{'https' if tls else 'http'}://{shown}:{bound[1]}"
    finally:
        listener.close()
        server.pre_shutdown()
        # aiohttp gives a handler the time-out twice: to finish, and to notice its cancellation.
        await server.shutdown(shutdown_seconds)
        await listener.wait_closed()


def _turn_away(transport: asyncio.BaseTransport) -> None:
    body = problems.no_capacity(5.0, "The gateway has as many connections as it takes.").body()
    if isinstance(transport, asyncio.Transport):
        transport.write(_FULL % (len(body), body))
    transport.close()


def _unreadable(error: BaseException | None) -> Problem:
    if isinstance(error, LineTooLong):
        return Problem(
            431,
            f"A line of the request's head is longer than {_MAX_LINE_BYTES} bytes.",
            "invalid_request_error",
            "header_too_large",
        )
    return problems.bad_request("The request is not valid HTTP/1.1.", "malformed_request")
