"""Dials one gateway, proves the node's account to it, and starts over whenever the link is lost."""

import asyncio
import hashlib
import random
import secrets
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

import aiohttp
import structlog
from yarl import URL

from network.errors import LimnerError, SignatureError, WireError
from network.identity import Signer, checksum
from network.link import handshake
from network.link.connection import Link, close_websocket, keep_kernel_queue_short
from network.link.frames import LARGEST_MESSAGE, SUBPROTOCOL
from network.link.handshake import Challenge, Claim, Terms, Welcome
from network.runtime.clock import Clock
from network.units import Address

_HANDSHAKE_SECONDS: Final = 10.0
_GOODBYE_SECONDS: Final = 2.0
_LONGEST_URI: Final = 300
#: Seconds before a new attempt: the first, doubled for each failure, and the most.
_FIRST_PAUSE: Final = 0.5
_LONGEST_PAUSE: Final = 30.0
#: A link that lasted so long was none of a row of failures.
_LASTED: Final = 30.0

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Destination:
    """A gateway that the operator trusts. `jobs`: it may send jobs; otherwise it only gets news."""

    url: URL
    account: Address
    jobs: bool = True
    #: Where this node can be called, if jobs come directly.
    own_uri: str = ""
    #: Demand a certificate that an authority of this machine's has issued, too.
    verify_tls: bool = False


class LinkRefusedError(LimnerError):
    """The gateway did not take the link, or is not who it should be; the message says which."""


class Dialer:
    """Keeps one link up; `run` is a job of a supervisor."""

    def __init__(
        self,
        destination: Destination,
        signer: Signer,
        *,
        serve: Callable[[], asyncio.Protocol],
        clock: Clock,
        randomness: random.Random,
        on_linked: Callable[[Link], None],
    ) -> None:
        """`serve` makes the protocol of a connection that the gateway opens."""
        self.destination = destination
        self._signer = signer
        self._serve = serve if destination.jobs else None
        self._clock = clock
        self._randomness = randomness
        self._on_linked = on_linked
        #: The link that is up.
        self.link: Link | None = None
        self._since = 0.0
        self._failures = 0
        self._problem = "not linked yet"

    def state(self) -> dict[str, object]:
        """For `/status`."""
        link = self.link
        return {
            "gateway": checksum(self.destination.account),
            "url": str(self.destination.url),
            "linked": link is not None,
            "takes_jobs": self.destination.jobs,
            "since": None if link is None else round(self._since, 3),
            "connections": 0 if link is None else len(link),
            "problem": "" if link is not None else self._problem,
        }

    async def run(self) -> None:
        """Link, again and again, until cancelled."""
        while True:
            began = self._clock.monotonic()
            try:
                self._problem = await self._dial()
            except (
                LinkRefusedError,
                WireError,
                aiohttp.ClientError,
                OSError,
                ValueError,
            ) as error:
                self._problem = str(error) or type(error).__name__
            if self._clock.monotonic() - began >= _LASTED:
                self._failures = 0
            pause = self._pause()
            _log.warning(
                "not_linked",
                gateway=checksum(self.destination.account),
                url=str(self.destination.url),
                reason=self._problem,
                again_in=round(pause, 1),
            )
            await asyncio.sleep(pause)

    def _pause(self) -> float:
        """Nodes that lost their gateway together must not come back together."""
        pause = min(_FIRST_PAUSE * 2.0 ** min(self._failures, 16), _LONGEST_PAUSE)
        self._failures += 1
        return pause * self._randomness.uniform(0.5, 1.5)

    async def _dial(self) -> str:
        """Tells why the link was lost. Raises LinkRefusedError, WireError, ClientError, OSError."""
        async with self._websocket() as websocket:
            async with asyncio.timeout(_HANDSHAKE_SECONDS):
                welcome = await self._greet(websocket)
            keep_kernel_queue_short(websocket.get_extra_info)
            link = Link(
                websocket,
                opens=False,
                silence_seconds=welcome.silence_seconds,
                serve=self._serve,
                peer=checksum(self.destination.account),
            )
            self.link, self._since = link, self._clock.now()
            _log.info("linked", gateway=link.peer, url=str(self.destination.url))
            self._on_linked(link)
            why = "the node stops"
            try:
                why = await link.run()
            finally:
                self.link = None
                await close_websocket(websocket, why)
            return why

    @asynccontextmanager
    async def _websocket(self) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
        tls = await asyncio.to_thread(_tls, verify=self.destination.verify_tls)
        connector = aiohttp.TCPConnector(ssl=tls, force_close=True)
        timeout = aiohttp.ClientTimeout(total=_HANDSHAKE_SECONDS)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
            try:
                async with asyncio.timeout(_HANDSHAKE_SECONDS):
                    websocket = await session.ws_connect(
                        self.destination.url,
                        protocols=[SUBPROTOCOL],
                        max_msg_size=LARGEST_MESSAGE,
                        timeout=aiohttp.ClientWSTimeout(ws_close=_GOODBYE_SECONDS),
                    )
            except TimeoutError:
                raise LinkRefusedError(f"no answer within {_HANDSHAKE_SECONDS:g} s") from None
            try:
                yield websocket
            finally:
                await close_websocket(websocket, "")

    async def _greet(self, websocket: aiohttp.ClientWebSocketResponse) -> Welcome:
        """Raises LinkRefusedError, WireError."""
        shown = websocket.get_extra_info("ssl_object")
        if shown is None:
            raise LinkRefusedError("the gateway does not speak TLS")
        certificate = hashlib.sha256(shown.getpeercert(binary_form=True)).digest()
        challenge = handshake.read(Challenge, await _text(websocket))
        nonce = secrets.token_hex(handshake.NONCE_BYTES)
        terms = Terms(
            self._signer.address, self.destination.account, nonce, challenge.nonce, certificate
        )
        claim = Claim(
            checksum(terms.node),
            nonce,
            terms.proof("node", self._signer),
            self.destination.jobs,
            self.destination.own_uri[:_LONGEST_URI],
        )
        await websocket.send_str(handshake.write(claim))
        welcome = handshake.read(Welcome, await _text(websocket))
        try:
            terms.check("gateway", welcome.signature)
        except SignatureError as error:
            account = checksum(self.destination.account)
            raise LinkRefusedError(f"it did not prove that it is {account}: {error}") from None
        return welcome


async def _text(websocket: aiohttp.ClientWebSocketResponse) -> str:
    message = await websocket.receive()
    if message.type is aiohttp.WSMsgType.TEXT:
        return str(message.data)
    if message.type is aiohttp.WSMsgType.CLOSE:
        said = "".join(c for c in str(message.extra or "") if c.isprintable())[:120]
        raise LinkRefusedError(f"the gateway refused: {said or message.data}")
    raise LinkRefusedError("the gateway broke off the handshake")


def _tls(*, verify: bool) -> ssl.SSLContext:
    """Reads the machine's authorities where they count."""
    if verify:
        return ssl.create_default_context()
    # Who the gateway is, its signature over its certificate tells.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
