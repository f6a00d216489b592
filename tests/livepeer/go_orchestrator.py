"""An orchestrator that does what go-livepeer 0.9.1 does (wire, 1.2, 2.5, 3.3 to 3.8), defect by defect.

What it does wrong is not a mode but its nature; tests
only set how it is configured, what its workers do, and what it knows of the chain.
"""

import asyncio
import secrets
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Final, Literal, NoReturn

import orjson
import pybase64
from aiohttp import web
from grpclib.const import Cardinality, Handler, Status
from grpclib.exceptions import GRPCError

from network.capabilities import (
    TEXT_TO_IMAGE,
    Mismatch,
    ModelConstraint,
    compatible,
    node_capabilities,
)
from network.errors import SignatureError, WireError
from network.identity import (
    KeySigner,
    auth_token,
    random_session_id,
    sign_hashed,
    verify_session_request,
)
from network.units import Address
from network.wire.codec import (
    AuthToken,
    Gpu,
    Hardware,
    OrchestratorInfo,
    OrchestratorRequest,
    Payment,
    PriceInfo,
    SegmentCredentials,
    decode_orchestrator_request,
    decode_payment,
    decode_segment_credentials,
    encode_orchestrator_info,
)
from network.wire.generated import lp_rpc_pb2 as pb
from network.wire.headers import (
    PAYMENT,
    PROTOCOL_MARK,
    SEGMENT,
    decode_header,
    verify_segment,
)
from tests.livepeer.go_files import GoFiles
from tests.livepeer.go_till import GoTill, PaymentError
from tests.node.fakes import png

VERSION: Final = "0.9.1-176aa415c"
TOKEN_SECONDS: Final = 30 * 60
_LONGEST_SEGMENT_MS: Final = 5 * 60 * 1000
_THREE_DECIMALS: Final = 1000


class Answered(Exception):  # noqa: N818  an answer
    """A refusal in Go's `http.Error`."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.response = web.Response(
            status=status,
            text=f"{text}\n",
            headers={"X-Content-Type-Options": "nosniff"},
        )


@dataclass
class GoModel:
    #: Wei per pixel, as configured.
    price: Fraction = Fraction(1)
    warm: bool = True


@dataclass
class SeenJob:
    """A job that arrived with headers that could be read."""

    body: dict[str, Any]
    payment: Payment
    credentials: SegmentCredentials


@dataclass
class GoOrchestrator:
    #: None is off-chain.
    till: GoTill | None = None
    models: dict[str, GoModel] = field(default_factory=lambda: {"m": GoModel()})
    #: Places for jobs.
    capacity: int = 2
    #: "local": one file name for all images of an answer. "remote": names of their own, and a count
    #: of free places that grows with every job.
    workers: Literal["local", "remote"] = "remote"
    auto_adjust: bool = True
    #: Wei per pixel of transcoding, which is the price of whatever was not found.
    base_price: Fraction = Fraction(1200)
    nodes: tuple[str, ...] = ()
    #: False: `-serviceAddr none`.
    takes_work: bool = True
    #: As many sessions as it may have: nothing more is quoted.
    is_capped: bool = False
    job_seconds: float = 0.0
    #: What the next workers fail with.
    failures: deque[str] = field(default_factory=deque)
    now: Callable[[], float] = lambda: 2_000_000_000.0
    uri: str = ""
    requests: list[OrchestratorRequest] = field(default_factory=list)
    seen: list[SeenJob] = field(default_factory=list)
    downloads: list[str] = field(default_factory=list)
    under_way: int = 0
    delivered: int = 0
    cancelled: int = 0
    _drift: int = 0
    _secret: bytes = field(default_factory=lambda: secrets.token_bytes(32))
    _files: GoFiles = field(default_factory=GoFiles)

    def restart(self) -> None:
        """A new process: tokens, quotes, balances and stored images of the old one are gone."""
        self._secret = secrets.token_bytes(32)
        self._files = GoFiles()
        self._drift = 0
        if self.till is not None:
            old = self.till
            self.till = GoTill(
                old.head,
                old.senders,
                key=old.key,
                is_active=old.is_active,
                ticket_value=old.ticket_value,
                max_face_value=old.max_face_value,
                secret=secrets.token_bytes(32),
                now=old.now,
                debited=old.debited,
            )

    @property
    def address(self) -> Address:
        return Address(bytes(20)) if self.till is None else self.till.address

    # gRPC

    def __mapping__(self) -> dict[str, Handler]:
        unary = Cardinality.UNARY_UNARY
        return {
            "/net.Orchestrator/GetOrchestrator": Handler(self._get, unary, bytes, bytes),
            "/net.Orchestrator/Ping": Handler(self._ping, unary, bytes, bytes),
        }

    async def _ping(self, stream: Any) -> None:
        value = pb.PingPong.FromString(await stream.recv_message()).value
        key: KeySigner | None = None if self.till is None else self.till.key
        signature = b"" if key is None else sign_hashed(key, value)
        await stream.send_message(pb.PingPong(value=signature).SerializeToString())

    async def _get(self, stream: Any) -> None:
        request = decode_orchestrator_request(await stream.recv_message())
        self.requests.append(request)
        try:
            info = self._information(request)
        except PaymentError as error:
            raise GRPCError(Status.UNKNOWN, str(error)) from None
        except SignatureError:
            text = "Invalid orchestrator request: orchestrator req sig check failed"
            raise GRPCError(Status.UNKNOWN, text) from None
        await stream.send_message(encode_orchestrator_info(info))

    def _information(self, request: OrchestratorRequest) -> OrchestratorInfo:
        sender = Address(request.address)
        if self.till is not None:
            verify_session_request(sender, request.signature)
        if self.is_capped:
            raise PaymentError("Invalid orchestrator request: OrchestratorCapped")
        asked = request.capabilities
        price = None if self.till is None else self._price(self.till, sender, request)
        session_id = random_session_id(secrets.token_bytes(4))
        expiration = int(self.now()) + TOKEN_SECONDS
        return OrchestratorInfo(
            transcoder=self.uri if self.takes_work else "",
            address=self.address,
            price=price,
            prices=()
            if self.till is None or asked is not None
            else tuple(
                PriceInfo(Fraction(int(model.price)), TEXT_TO_IMAGE, name)
                for name, model in self.models.items()
            ),
            capabilities=node_capabilities(self._constraints(), VERSION),
            auth_token=AuthToken(
                auth_token(self._secret, session_id, expiration), session_id, expiration
            ),
            hardware=() if asked is not None else self._hardware(),
            nodes=self.nodes,
            ticket_params=None
            if self.till is None or price is None
            else self.till.quote(sender, price),
        )

    def _constraints(self) -> dict[str, ModelConstraint]:
        free = max(self.capacity - self.under_way, 0) + self._drift
        return {
            name: ModelConstraint(warm=model.warm, capacity=free, runner_version="0.14.1")
            for name, model in self.models.items()
        }

    def _hardware(self) -> tuple[Hardware, ...]:
        gpu = Gpu("GPU-1", "NVIDIA GeForce RTX 4090", 8, 9, 20 * 2**30, 24 * 2**30)
        return tuple(Hardware("text-to-image", name, {"0": gpu}) for name in self.models)

    def _price(self, till: GoTill, sender: Address, request: OrchestratorRequest) -> Fraction:
        """Wei per pixel, with what redeeming costs on top, cut to three decimals."""
        price = Fraction(0)
        asked = request.capabilities
        if asked is not None and self.takes_work and TEXT_TO_IMAGE in asked.capacities:
            for name in asked.models.get(TEXT_TO_IMAGE, {}):
                price += self.models[name].price if name in self.models else 0
        price = price or self.base_price
        multiplier = till.cost_multiplier(sender)
        if not self.auto_adjust or not multiplier:
            return price
        adjusted = price * (1 + 1 / multiplier)
        return Fraction(int(adjusted * _THREE_DECIMALS), _THREE_DECIMALS)

    # HTTP

    async def job(self, request: web.Request) -> web.StreamResponse:
        if request.method != "POST":
            # The validator's error handler writes a log line and nothing else.
            return web.Response()
        try:
            return await self._job(request)
        except Answered as answered:
            return answered.response

    async def _job(self, request: web.Request) -> web.StreamResponse:
        body = _decoded(await request.read())
        payment = self._payment(request)
        credentials = self._credentials(request, payment)
        self.seen.append(SeenJob(body, payment, credentials))
        if not body.get("model_id"):
            _panic(request)
        if self.under_way >= self.capacity or body["model_id"] not in self.models:
            raise Answered(503, "insufficient capacity")
        self.under_way += 1
        try:
            return await self._paid_job(request, body, payment)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.under_way -= 1
            self._drift += self.workers == "remote"

    async def _paid_job(
        self, request: web.Request, body: dict[str, Any], payment: Payment
    ) -> web.StreamResponse:
        manifest = f"{TEXT_TO_IMAGE}_{body['model_id']}"
        sender = Address(payment.sender)
        if self.till is not None:
            self._take(self.till, payment, manifest)
        if self.job_seconds:
            await asyncio.sleep(self.job_seconds)
        if self.failures:
            raise Answered(500, self.failures.popleft())
        if self.till is not None:
            if payment.expected_price is None:
                _panic(request)  # it divides by no pixels at all, after the work
            pixels = body["width"] * body["height"] * body["num_images_per_prompt"]
            self.till.debit(sender, manifest, payment.expected_price * pixels)
        self.delivered += 1
        images = self._images(body, as_links=request.headers.get("Authorization") == PROTOCOL_MARK)
        return web.Response(
            body=orjson.dumps({"images": images}), headers={"Content-Type": "application/json"}
        )

    def _take(self, till: GoTill, payment: Payment, manifest: str) -> None:
        try:
            till.process(payment, manifest)
        except PaymentError as error:
            raise Answered(400, str(error)) from None
        price = payment.expected_price
        if price and not till.suffices(Address(payment.sender), manifest):
            raise Answered(400, "Insufficient balance")

    def _payment(self, request: web.Request) -> Payment:
        text = request.headers.get(PAYMENT, "")
        try:
            data = decode_header(text)
        except WireError:
            raise Answered(
                402, "base64 decode error: illegal base64 data at input byte 0"
            ) from None
        try:
            return decode_payment(data)
        except WireError:
            raise Answered(402, "protobuf unmarshal error: proto: cannot parse") from None

    def _credentials(self, request: web.Request, payment: Payment) -> SegmentCredentials:
        try:
            data = decode_header(request.headers.get(SEGMENT, ""))
        except WireError:
            raise Answered(403, "ErrorSegEncoding") from None
        try:
            found = decode_segment_credentials(data)
        except WireError as error:
            raise Answered(403, str(error)) from None
        fault = self._credentials_fault(found, Address(payment.sender or bytes(20)))
        if fault:
            raise Answered(403, fault)
        return found

    def _credentials_fault(self, found: SegmentCredentials, sender: Address) -> str:
        if not 0 <= found.duration <= _LONGEST_SEGMENT_MS:
            return "invalid duration"
        if self.till is not None:
            try:
                verify_segment(found, sender)
            except SignatureError:
                return "ErrSegSig"
        own = node_capabilities(self._constraints(), VERSION)
        if found.capabilities is not None and isinstance(
            compatible(found.capabilities, own), Mismatch
        ):
            return "incompatible capabilities"
        token = found.auth_token
        if token is None:
            return "missing auth token"
        if token.token != auth_token(self._secret, token.session_id, token.expiration):
            return "invalid auth token"
        return "expired auth token" if self.now() > token.expiration else ""

    def _images(self, body: dict[str, Any], *, as_links: bool) -> list[dict[str, Any]]:
        session = secrets.token_hex(4)
        name = f"{secrets.token_hex(4)}.png"
        images = []
        for index in range(body["num_images_per_prompt"]):
            seed = body.get("seed", 0) + index
            data = png(body["width"], body["height"], seed)
            if as_links:
                if self.workers == "remote":
                    name = f"{secrets.token_hex(4)}.png"
                self._files.put(session, name, data, self.now())
                url = f"{self.uri}/stream/{session}/{name}"
            else:
                url = "data:image/png;base64," + pybase64.b64encode_as_string(data)
            images.append({"url": url, "seed": seed, "nsfw": False})
        return images

    async def stream(self, request: web.Request) -> web.Response:
        path = request.match_info["path"]
        self.downloads.append(path)
        data = self._files.get(path, self.now())
        if data is None:
            return web.Response(status=404, text="404 page not found\n")
        return web.Response(body=data, content_type="image/png")


def _decoded(data: bytes) -> dict[str, Any]:
    """As `encoding/json` into a struct: unknown keys do not matter, wrong types do."""
    try:
        body = orjson.loads(data)
    except orjson.JSONDecodeError:
        raise Answered(400, "invalid character 'x' looking for beginning of value") from None
    if not isinstance(body, dict):
        raise Answered(400, "json: cannot unmarshal array into Go value of type")
    sizes = {"width": 512, "height": 512, "num_images_per_prompt": 1}
    for name, default in sizes.items():
        if not isinstance(body.setdefault(name, default), int):
            raise Answered(400, f"json: cannot unmarshal string into Go struct field {name}")
    return body


def _panic(request: web.Request) -> NoReturn:
    """A nil pointer: `net/http` closes the connection, and the client hears nothing."""
    assert request.transport is not None
    request.transport.abort()
    raise ConnectionResetError
