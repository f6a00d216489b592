"""A gateway that does what go-livepeer 0.9.1 does (wire, 2.4, 3.1, 3.2, 3.6, 3.7, 4.7, 4.8 and 6).

It finds orchestrators, pays them, sends jobs, and decides by their words whom it suspends. What is drawn
by lot there (one of several sessions) is taken in order here.
"""

import asyncio
import base64
import io
import secrets
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Final, Self
from urllib.parse import urlsplit

import httpx
import orjson
from grpclib.client import Channel
from grpclib.const import Cardinality
from grpclib.exceptions import GRPCError, StreamTerminatedError
from PIL import Image

from network.capabilities import TEXT_TO_IMAGE, Mismatch, compatible, job_capabilities
from network.chain.model import Head, SenderInfo
from network.identity import KeySigner, session_request_signature
from network.units import ModelId
from network.wire.codec import (
    OrchestratorInfo,
    OrchestratorRequest,
    Payment,
    decode_orchestrator_info,
    encode_orchestrator_request,
    encode_payment,
)
from network.wire.headers import (
    PAYMENT,
    PROTOCOL_MARK,
    SEGMENT,
    encode_header,
    segment_credentials,
)
from node.api.listener import RawCodec
from tests.livepeer.go_purse import PayError, Purse, Session, params_of

VERSION: Final = "0.9.1-176aa415c"
DIAL_SECONDS: Final = 3.0
DOWNLOAD_SECONDS: Final = 4.0
RETRY_SECONDS: Final = 2.0
MOST_TRIES: Final = 20
MOST_TRIES_OF_ONE: Final = 3
TOKEN_SECONDS: Final = 30 * 60
PENALTY: Final = 3
DEFAULT_MODEL: Final = "stabilityai/sdxl-turbo"
_DATA_URLS: Final = ("image/png", "image/jpg", "image/jpeg", "image/gif")


class GatewayError(Exception):
    """What its client gets: a status, and a text that 500 and 503 replace by a fixed one."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


@dataclass(frozen=True)
class Delivery:
    """What the client gets."""

    images: tuple[dict[str, Any], ...]
    files: dict[str, bytes]
    uri: str
    http_version: str


@dataclass
class Sent:
    """One attempt, for tests to look at."""

    uri: str
    tickets: int
    status: int
    text: str
    session_id: str


@dataclass
class GoGateway:
    uris: list[str]
    #: None is off-chain.
    signer: KeySigner | None = None
    #: Its view of the chain.
    head: Head | None = None
    funds: SenderInfo | None = None
    now: Callable[[], float] = lambda: 0.0
    sessions: list[Session] = field(default_factory=list)
    suspended: dict[str, int] = field(default_factory=dict)
    sent: list[Sent] = field(default_factory=list)
    refreshes: int = 0

    @property
    def _purse(self) -> Purse:
        assert self.signer is not None
        assert self.head is not None
        assert self.funds is not None
        return Purse(self.signer, self.head, self.funds)

    async def __aenter__(self) -> Self:
        # Like Go's with `ForceAttemptHTTP2`: it offers h2 and http/1.1, and takes either.
        self.http = httpx.AsyncClient(
            http2=True, verify=_unverified(), timeout=httpx.Timeout(None, connect=2.0)
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.http.aclose()

    # Discovery

    async def poll(self) -> dict[str, OrchestratorInfo]:
        """The periodic look at the network, without capabilities."""
        found = await asyncio.gather(
            *(self.ask(uri, None, 3.0) for uri in self.uris), return_exceptions=True
        )
        return {
            uri: info
            for uri, info in zip(self.uris, found, strict=True)
            if isinstance(info, OrchestratorInfo)
        }

    async def discover(self, model: str) -> list[Session]:
        """Those that can do it, new ones among them; whoever is suspended is left out."""
        self.refreshes += 1
        found = await asyncio.gather(
            *(self.ask(uri, model, 6.0) for uri in self.uris), return_exceptions=True
        )
        for uri, info in zip(self.uris, found, strict=True):
            if not isinstance(info, OrchestratorInfo) or not self._is_usable(info, model):
                continue
            if self.suspended.get(uri, -1) >= self.refreshes:
                continue
            known = next((one for one in self.sessions if one.uri == uri), None)
            if known is None:
                self.sessions.append(Session(uri, info, initial_price=info.price))
            else:
                known.renew(info)
        return self.sessions

    def _is_usable(self, info: OrchestratorInfo, model: str) -> bool:
        wanted = job_capabilities(ModelId(model), VERSION)
        if not info.transcoder or isinstance(compatible(wanted, info.capabilities), Mismatch):
            return False
        if model not in info.capabilities.models.get(TEXT_TO_IMAGE, {}):
            return False
        if self.signer is None:
            return True
        try:
            self._purse.validate(params_of(info), 1)
        except PayError:
            return False
        return any(info.address) and info.price is not None

    async def ask(self, uri: str, model: str | None, seconds: float) -> OrchestratorInfo:
        """GetOrchestrator over a connection of its own."""
        parts = urlsplit(uri)
        context = None
        if parts.scheme == "https":
            context = _unverified()
            context.set_alpn_protocols(["h2"])
        request = OrchestratorRequest(
            address=b"" if self.signer is None else self.signer.address,
            signature=b"" if self.signer is None else session_request_signature(self.signer),
            capabilities=None if model is None else job_capabilities(ModelId(model), VERSION),
        )
        channel = Channel(parts.hostname, parts.port or 8935, codec=RawCodec(), ssl=context)
        try:
            async with asyncio.timeout(DIAL_SECONDS):
                await channel.__connect__()
            async with (
                asyncio.timeout(seconds),
                channel.request(
                    "/net.Orchestrator/GetOrchestrator", Cardinality.UNARY_UNARY, bytes, bytes
                ) as stream,
            ):
                await stream.send_message(encode_orchestrator_request(request), end=True)
                reply = await stream.recv_message()
        finally:
            channel.close()
        assert reply is not None
        return decode_orchestrator_info(reply)

    # Sessions

    async def _select(self, model: str, tried: set[str]) -> Session | None:
        usable = [one for one in self.sessions if one.uri not in tried]
        if not usable:
            await self.discover(model)
            usable = [one for one in self.sessions if one.uri not in tried]
        # Warm ones first, then the fastest; a session in use is shared where none is idle.
        usable.sort(key=lambda one: (not one.is_warm, one.in_flight > 0, one.latency))
        return usable[0] if usable else None

    async def _refresh_if_needed(self, session: Session, model: str) -> bool:
        token = session.info.auth_token
        assert token is not None
        is_old = token.expiration - self.now() < TOKEN_SECONDS * 0.1
        if self.signer is not None and not is_old:
            is_old = self._purse.is_expiring(session)
        if not is_old:
            return True
        try:
            session.renew(await self.ask(session.uri, model, 2.5))
        except (GRPCError, OSError, TimeoutError, StreamTerminatedError):
            return False
        return True

    # Jobs

    async def text_to_image(self, **params: Any) -> Delivery:
        """Raises GatewayError."""
        model = params.get("model_id") or DEFAULT_MODEL
        params = {name: value for name, value in params.items() if value is not None}
        params = {"height": 512, "width": 512, "num_images_per_prompt": 1} | params
        params["num_images_per_prompt"] = max(1, params["num_images_per_prompt"])
        began, tried, tries_of_one = self.now(), set[str](), dict[str, int]()
        for _ in range(MOST_TRIES):
            if self.now() - began > RETRY_SECONDS:
                raise GatewayError(503, "no orchestrators available within 2s timeout")
            session = await self._select(model, tried)
            if session is None:
                break
            if not await self._refresh_if_needed(session, model):
                tried.add(session.uri)
                continue
            try:
                return await self._attempt(session, params)
            except (PayError, OSError, httpx.HTTPError) as error:
                text = str(error)
            low = text.lower()
            if "ticketparams expired" in low:
                tries_of_one[session.uri] = tries_of_one.get(session.uri, 0) + 1
                if tries_of_one[session.uri] >= MOST_TRIES_OF_ONE:
                    tried.add(session.uri)
            elif "invalid ticket sendernonce" in low or "insufficient capacity" in low:
                tried.add(session.uri)
            else:
                self._suspend(session)
                if "returned 400" in low:
                    at = low.index("returned 400") + len("returned 400")
                    raise GatewayError(400, text[at:].lstrip(": ").strip())
        raise GatewayError(503, "no orchestrators available")

    def _suspend(self, session: Session) -> None:
        self.suspended[session.uri] = self.refreshes + PENALTY
        if session in self.sessions:
            self.sessions.remove(session)

    async def _attempt(self, session: Session, params: dict[str, Any]) -> Delivery:
        """Raises PayError, OSError or an error of HTTP whose text is what the orchestrator said."""
        pixels = params["height"] * params["width"] * params["num_images_per_prompt"]
        payment, existing, new = Payment(), Fraction(0), Fraction(0)
        fee = Fraction(0)
        if self.signer is not None:
            fee = pixels * (session.info.price or Fraction(0))
            payment, existing, new = self._purse.pay(session, fee)
        model = params.get("model_id") or DEFAULT_MODEL
        token = session.info.auth_token
        credentials = segment_credentials(
            self.signer, ModelId(model), job_capabilities(ModelId(model), VERSION), token
        )
        headers = {
            "Content-Type": "application/json",
            "Authorization": PROTOCOL_MARK,
            SEGMENT: encode_header(credentials),
            PAYMENT: "" if self.signer is None else encode_header(encode_payment(payment)),
        }
        session.in_flight += 1
        began = self.now()
        try:
            answer = await self.http.post(
                session.info.transcoder.rstrip("/") + "/text-to-image",
                content=orjson.dumps(params),
                headers=headers,
            )
        finally:
            session.in_flight -= 1
        self.sent.append(
            Sent(
                session.uri,
                len(payment.tickets),
                answer.status_code,
                answer.text[:300],
                token.session_id if token else "",
            )
        )
        is_json = "json" in answer.headers.get("content-type", "")
        if answer.status_code != 200 or not is_json:
            raise OSError(answer.text)
        session.balance += existing + new - fee
        session.latency = (self.now() - began) / pixels / params.get("num_inference_steps", 50)
        return await self._stored(session, answer)

    async def _stored(self, session: Session, answer: httpx.Response) -> Delivery:
        """Its own copy of each image, under a relative url."""
        request_id = secrets.token_hex(4)
        images, files = [], {}
        for image in answer.json()["images"]:
            data, name = await self._image(image["url"])
            url = f"/stream/{request_id}/{name}"
            files[url] = data
            images.append({**image, "url": url})
        return Delivery(tuple(images), files, session.uri, answer.http_version)

    async def _image(self, url: str) -> tuple[bytes, str]:
        name = f"{secrets.token_hex(4)}.png"
        head, _, payload = url.partition(",")
        if head.startswith("data:") and head[5:].split(";")[0] in _DATA_URLS:
            return await asyncio.to_thread(_reencoded, base64.b64decode(payload)), name
        answer = await self.http.get(url, timeout=DOWNLOAD_SECONDS)
        if answer.status_code != 200:
            raise OSError(f"download answered {answer.status_code}")
        return answer.content, url.rsplit("/", 1)[-1]


def _reencoded(data: bytes) -> bytes:
    out = io.BytesIO()
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        image.save(out, "PNG")
    return out.getvalue()


def _unverified() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


@asynccontextmanager
async def gateway(*uris: str, **options: Any) -> AsyncIterator[GoGateway]:
    async with GoGateway(list(uris), **options) as made:
        yield made
