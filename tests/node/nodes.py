"""Real nodes on real sockets with a fake engine, and the gateway's side of the conversation."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import aiohttp
import orjson
from grpclib.client import Channel

from network.capabilities import Capabilities, job_capabilities
from network.identity import KeySigner, Signer, session_request_signature
from network.keystore import create_keystore
from network.units import Address, ModelId
from network.wire.codec import (
    AuthToken,
    OrchestratorInfo,
    OrchestratorRequest,
    Payment,
    decode_orchestrator_info,
    encode_orchestrator_request,
    encode_payment,
)
from network.wire.generated import lp_rpc_pb2 as pb
from network.wire.generated.lp_rpc_grpc import OrchestratorStub
from network.wire.headers import (
    PAYMENT,
    PROTOCOL_MARK,
    SEGMENT,
    encode_header,
    segment_credentials,
)
from node.app import RunningNode, open_node
from node.config.settings import NodeSettings
from tests.node.fakes import MODEL, FakeEngine

NODE_KEY = KeySigner(b"\x11" * 32)
GATEWAY_KEY = KeySigner(b"\x22" * 32)
PRICE = Fraction(5, 2)
PASSPHRASE = "a passphrase for tests"


async def settings_for(folder: Path, **overrides: Any) -> NodeSettings:
    """Settings of a node in `folder` on free ports, with an account that opens quickly."""
    model = folder / "model"
    data = folder / "data"
    if not data.exists():
        model.mkdir(parents=True)
        (model / "model_index.json").write_text("{}")
        await create_keystore(data / "keystore.json", PASSPHRASE, b"\x11" * 32, scrypt_n=2)
    values: dict[str, Any] = {
        "listen": "http://127.0.0.1:0",
        "admin_listen": "127.0.0.1:0",
        "data_dir": data,
        "keystore": {"passphrase": PASSPHRASE},
        "models": [{"id": MODEL, "path": model, "price": "5/2", "capacity": 2}],
        "server": {"shutdown_seconds": 0.2},
    }
    return NodeSettings.model_validate({**values, **overrides})


@asynccontextmanager
async def running_node(
    folder: Path, engine: FakeEngine | None = None, **overrides: Any
) -> AsyncIterator[RunningNode]:
    """A node that serves for the length of the block."""
    settings = await settings_for(folder, **overrides)
    opener = (engine or FakeEngine()).opener
    async with open_node(settings, engine_opener=opener) as node:
        yield node


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer, read whole."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def json(self) -> Any:
        return orjson.loads(self.body)


def unverified() -> ssl.SSLContext:
    """What gateways of this network use."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


class Buyer:
    """A gateway as the node sees it; without a signer as an off-chain go-livepeer one."""

    def __init__(self, node: RunningNode, signer: Signer | None = None) -> None:
        self.node = node
        self.signer = signer
        self._token: AuthToken | None = None

    async def __aenter__(self) -> Self:
        self.http = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=unverified(), limit=0)
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.http.close()

    @asynccontextmanager
    async def channel(self) -> AsyncIterator[Channel]:
        url = urlsplit(self.node.url)
        context: ssl.SSLContext | bool = False
        if url.scheme == "https":
            context = unverified()
            context.set_alpn_protocols(["h2"])
        channel = Channel(url.hostname, url.port, ssl=context)
        try:
            yield channel
        finally:
            channel.close()
            # the transport closes in the loop's next round
            await asyncio.sleep(0)

    async def terms(
        self, capabilities: Capabilities | None = None, address: Address | None = None
    ) -> OrchestratorInfo:
        """GetOrchestrator; remembers the token."""
        request = OrchestratorRequest(
            address=address or (self.signer.address if self.signer else b""),
            signature=session_request_signature(self.signer) if self.signer else b"",
            capabilities=capabilities,
        )
        message = pb.OrchestratorRequest.FromString(encode_orchestrator_request(request))
        async with self.channel() as channel:
            answer = await OrchestratorStub(channel).GetOrchestrator(message, timeout=5)
        info = decode_orchestrator_info(answer.SerializeToString())
        self._token = info.auth_token
        return info

    async def ping(self, value: bytes) -> bytes:
        async with self.channel() as channel:
            answer = await OrchestratorStub(channel).Ping(pb.PingPong(value=value), timeout=5)
        signature: bytes = answer.value
        return signature

    async def headers(
        self,
        model_id: ModelId = MODEL,
        price: Fraction | None = PRICE,
        token: AuthToken | None = None,
    ) -> dict[str, str]:
        """The headers of a job."""
        if self._token is None and token is None:
            await self.terms(job_capabilities(model_id, "0.1.0"))
        credentials = segment_credentials(
            self.signer, model_id, job_capabilities(model_id, "0.1.0"), token or self._token
        )
        payment = b""
        if self.signer is not None:
            payment = encode_payment(Payment(sender=self.signer.address, expected_price=price))
        return {
            "Content-Type": "application/json",
            "Authorization": PROTOCOL_MARK,
            SEGMENT: encode_header(credentials),
            PAYMENT: encode_header(payment),
        }

    async def ask(
        self,
        headers: Mapping[str, str] | None = None,
        *,
        price: Fraction | None = PRICE,
        token: AuthToken | None = None,
        **fields: Any,
    ) -> Answer:
        """POST /text-to-image with good headers, those of `headers` in their place."""
        body = {"prompt": "a small red circle", "model_id": MODEL, **SMALL, **fields}
        body = {name: value for name, value in body.items() if value is not None}
        sent = {**await self.headers(price=price, token=token), **(headers or {})}
        return await self.post("/text-to-image", orjson.dumps(body), sent)

    async def post(self, path: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        url = self.node.url + path
        async with self.http.post(url, data=body, headers=headers) as answer:
            return Answer(answer.status, answer.headers, await answer.read())

    async def get(self, path: str, *, admin: bool = False, method: str = "GET") -> Answer:
        base = self.node.admin_url if admin else self.node.url
        async with self.http.request(method, base + path) as answer:
            return Answer(answer.status, answer.headers, await answer.read())


async def eventually(happened: Callable[[], Awaitable[bool]], seconds: float = 5.0) -> None:
    """Wait until `happened`; AssertionError if it does not in time."""
    for _ in range(int(seconds / 0.01)):
        if await happened():
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"it did not happen within {seconds} s")


SMALL: dict[str, Any] = {"width": 64, "height": 64, "num_inference_steps": 2, "seed": 7}
