"""Where nodes come in: one WebSocket each, a handshake in time, and only those that are named."""

import asyncio
import secrets
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import structlog
from aiohttp import WSCloseCode, WSMsgType, web
from aiohttp.web_protocol import RequestHandler
from typing_extensions import override

from gateway.link.switchboard import Joined, Switchboard
from network.errors import SignatureError, WireError
from network.identity import Signer, checksum
from network.link import handshake
from network.link.connection import Link, close_websocket, keep_kernel_queue_short
from network.link.frames import LARGEST_MESSAGE, SUBPROTOCOL
from network.link.handshake import Challenge, Claim, Terms, Welcome
from network.runtime.clock import Clock
from network.units import Address

PATH: Final = "/link"
_MOST_HEAD_BYTES: Final = 8 * 1024
_GOODBYE_SECONDS: Final = 2.0
_OPTIONS: Final[dict[str, Any]] = {
    "access_log": None,
    "max_line_size": _MOST_HEAD_BYTES,
    "max_field_size": _MOST_HEAD_BYTES,
    "lingering_time": 0.0,
}
_CLOSING: Final = "the gateway stops"

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Doorkeeping:
    """Bounds against strangers. Times in seconds."""

    #: From the TLS handshake until the account is proven.
    handshake_seconds: float = 10.0
    #: Connections that have proven nothing yet; of more, the oldest is cut.
    most_strangers: int = 64
    silence_seconds: float = 10.0


class _Connection(RequestHandler):
    """A stranger until `trust` is called."""

    __slots__ = ("_timer",)
    _timer: asyncio.TimerHandle | None

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._timer = None
        if isinstance(self._manager, _Server):
            self._timer = self._manager.let_in(self)

    @override
    def connection_lost(self, exc: BaseException | None) -> None:
        self.trust()
        super().connection_lost(exc)

    def trust(self) -> None:
        """It may stay as long as it likes."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if isinstance(self._manager, _Server):
            self._manager.strangers.pop(self, None)

    def cut(self) -> None:
        if self.transport is not None:
            self.transport.abort()


class _Server(web.Server):
    def __init__(self, door: "Door", keeping: Doorkeeping) -> None:
        super().__init__(door.handle)
        self._keeping = keeping
        #: The oldest first.
        self.strangers: dict[_Connection, None] = {}

    def let_in(self, connection: _Connection) -> asyncio.TimerHandle:
        if len(self.strangers) >= self._keeping.most_strangers:
            next(iter(self.strangers)).cut()
        self.strangers[connection] = None
        loop = asyncio.get_running_loop()
        return loop.call_later(self._keeping.handshake_seconds, connection.cut)

    @override
    def __call__(self) -> RequestHandler:
        return _Connection(self, loop=self._loop, **_OPTIONS)


class Door:
    """Greets whoever comes to `PATH`; carries the links of those who are named."""

    def __init__(
        self,
        switchboard: Switchboard,
        *,
        signer: Signer,
        shown: Callable[[ssl.SSLObject], bytes],
        nodes: frozenset[Address],
        keeping: Doorkeeping,
        clock: Clock,
        on_push: Callable[[Joined, bytes], None],
    ) -> None:
        """`shown` tells the SHA-256 of the certificate that a connection was shown.

        `on_push` may raise WireError.
        """
        self._switchboard = switchboard
        self._signer = signer
        self._shown = shown
        self._nodes = nodes
        self._keeping = keeping
        self._clock = clock
        self._on_push = on_push

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """The handler of every request."""
        websocket = web.WebSocketResponse(
            protocols=[SUBPROTOCOL],
            max_msg_size=LARGEST_MESSAGE,
            compress=False,
            timeout=_GOODBYE_SECONDS,
        )
        if request.path != PATH or not websocket.can_prepare(request).ok:
            return web.Response(
                status=404, text="Nodes link here by WebSocket, and nobody else.\n"
            )
        await websocket.prepare(request)
        try:
            claim, account = await self._greet(websocket)
        except WireError as error:
            _log.warning("link_refused", remote=request.remote, reason=str(error))
            await close_websocket(websocket, str(error), WSCloseCode.POLICY_VIOLATION)
            return websocket
        await self._carry(request, websocket, claim, account)
        return websocket

    async def _greet(self, websocket: web.WebSocketResponse) -> tuple[Claim, Address]:
        """Raises WireError; the connection's own time-out ends what takes too long."""
        nonce = secrets.token_hex(handshake.NONCE_BYTES)
        await websocket.send_str(handshake.write(Challenge(nonce)))
        message = await websocket.receive()
        if message.type is not WSMsgType.TEXT:
            raise WireError("no claim came")
        claim = handshake.read(Claim, message.data)
        account = handshake.claimed_account(claim)
        certificate = self._shown(websocket.get_extra_info("ssl_object"))
        terms = Terms(account, self._signer.address, claim.nonce, nonce, certificate)
        if account not in self._nodes:
            raise SignatureError(f"links.nodes does not name {checksum(account)}")
        terms.check("node", claim.signature)
        welcome = Welcome(terms.proof("gateway", self._signer), self._keeping.silence_seconds)
        await websocket.send_str(handshake.write(welcome))
        return claim, account

    async def _carry(
        self,
        request: web.BaseRequest,
        websocket: web.WebSocketResponse,
        claim: Claim,
        account: Address,
    ) -> None:
        if isinstance(request.protocol, _Connection):
            request.protocol.trust()
        keep_kernel_queue_short(websocket.get_extra_info)
        node = checksum(account)
        link = Link(
            websocket,
            opens=True,
            silence_seconds=self._keeping.silence_seconds,
            on_push=lambda body: self._on_push(joined, body),
            peer=node,
        )
        joined = Joined(
            account, link, claim.jobs, request.remote or "", self._clock.now(), claim.uri
        )
        _log.info("node_linked", node=node, remote=joined.remote, takes_jobs=joined.takes_jobs)
        why = "the gateway stopped carrying it"
        try:
            self._switchboard.join(joined)
            why = await link.run()
        finally:
            self._switchboard.leave(joined, why)
            _log.warning("node_link_lost", node=node, reason=why)
        await close_websocket(websocket, why)
        if request.transport is not None:
            # What a dead line did not take would wait there for as long as TCP has patience.
            request.transport.abort()


@asynccontextmanager
async def open_door(
    door: Door,
    switchboard: Switchboard,
    *,
    host: str,
    port: int,
    tls: ssl.SSLContext,
    keeping: Doorkeeping,
) -> AsyncIterator[int]:
    """Take links on a port (0: a free one), which is yielded. At the end all of them are closed.

    Raises OSError when the address cannot be had.
    """
    loop = asyncio.get_running_loop()
    server = _Server(door, keeping)
    listener = await loop.create_server(
        server, host, port, ssl=tls, ssl_handshake_timeout=keeping.handshake_seconds
    )
    try:
        bound: tuple[Any, ...] = listener.sockets[0].getsockname()
        yield bound[1]
    finally:
        listener.close()
        switchboard.close(_CLOSING)
        await server.shutdown(_GOODBYE_SECONDS)
        await listener.wait_closed()
