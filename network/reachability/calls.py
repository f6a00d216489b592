"""What a stranger asks an orchestrator: Ping, GetOrchestrator and HTTP, each on a connection of its own.

As in Livepeer's gateways a connection is made for each call and no certificate is verified.
"""

import asyncio
import secrets
import ssl
from dataclasses import dataclass
from typing import Final
from urllib.parse import SplitResult, urlsplit

import aiohttp
from google.protobuf.message import DecodeError
from grpclib.client import Channel
from grpclib.exceptions import GRPCError, ProtocolError, StreamTerminatedError

from network.capabilities import job_capabilities
from network.errors import LimnerError, SignatureError, WireError
from network.identity import Signer, keccak, recover, session_request_signature
from network.runtime.clock import Clock
from network.units import Address, ModelId
from network.wire.codec import (
    OrchestratorInfo,
    OrchestratorRequest,
    decode_orchestrator_info,
    encode_orchestrator_request,
)
from network.wire.generated import lp_rpc_pb2 as pb
from network.wire.unary import BytesCodec, unary

#: Where Livepeer's orchestrators are that name no port.
DEFAULT_PORT: Final = 8935
_PING_BYTES: Final = 32
_LARGEST_BODY: Final = 2**20
_LONGEST_WORDS: Final = 200
_NOBODY: Final = Address(bytes(20))


class CallError(LimnerError):
    """No reply, or none that is one; the message tells why in a few words."""


class RefusedCallError(CallError):
    """The other side answered with a gRPC error: its words are the message."""


@dataclass(frozen=True, slots=True)
class Terms:
    """An answer to GetOrchestrator, or the refusal in its stead, and the seconds that it took."""

    info: OrchestratorInfo | None
    refusal: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Page:
    """An HTTP answer, read whole."""

    status: int
    body: bytes


def lax_tls(*protocols: str) -> ssl.SSLContext:
    """Return a client's context that verifies nobody."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if protocols:
        context.set_alpn_protocols(list(protocols))
    return context


async def ping(uri: str, seconds: float) -> Address | None:
    """Have a random value signed; return who did, None for an empty answer. Raises CallError.

    go-livepeer's orchestrators sign nothing off-chain.
    """
    value = secrets.token_bytes(_PING_BYTES)
    reply = await _call(uri, "Ping", pb.PingPong(value=value).SerializeToString(), seconds)
    try:
        signature = pb.PingPong.FromString(reply).value
        return recover(keccak(value), signature) if signature else None
    except (DecodeError, SignatureError) as error:
        raise CallError(f"its signature is none: {error}") from None


async def terms(
    uri: str,
    asker: Signer | None,
    model_id: ModelId | None,
    version: str,
    *,
    seconds: float,
    clock: Clock,
) -> Terms:
    """Ask GetOrchestrator, with a model for its price and without for all of them. Raises CallError.

    Without `asker` nobody in particular asks, as Livepeer's gateways do off-chain.
    """
    request = OrchestratorRequest(
        address=_NOBODY if asker is None else asker.address,
        signature=b"" if asker is None else session_request_signature(asker),
        capabilities=None if model_id is None else job_capabilities(model_id, version),
        ignore_capacity_check=False,
    )
    started = clock.monotonic()
    try:
        reply = await _call(uri, "GetOrchestrator", encode_orchestrator_request(request), seconds)
        info = decode_orchestrator_info(reply)
    except RefusedCallError as error:
        return Terms(None, str(error), clock.monotonic() - started)
    except WireError as error:
        raise CallError(f"its answer is no OrchestratorInfo: {error}") from None
    return Terms(info, "", clock.monotonic() - started)


async def get(uri: str, path: str, seconds: float) -> Page:
    """GET `path` below the service URI; redirects are not followed. Raises CallError."""
    timeout = aiohttp.ClientTimeout(total=seconds)
    connector = aiohttp.TCPConnector(ssl=lax_tls(), force_close=True)
    try:
        async with (
            aiohttp.ClientSession(connector=connector, timeout=timeout) as session,
            session.get(f"{uri.rstrip('/')}{path}", allow_redirects=False) as response,
        ):
            body = await response.content.read(_LARGEST_BODY + 1)
            while len(body) <= _LARGEST_BODY and (more := await response.content.readany()):
                body += more
            if len(body) > _LARGEST_BODY:
                raise CallError(f"its answer is larger than {_LARGEST_BODY} bytes")
            return Page(response.status, body)
    except TimeoutError:
        raise CallError(f"no answer within {seconds:g} s") from None
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise CallError(words_of(error)) from None


def port_of(url: SplitResult) -> int:
    """Return the port of a service URI. Raises ValueError for one that is out of range."""
    return url.port or DEFAULT_PORT


def words_of(error: BaseException) -> str:
    """Return why something failed, in printable words of bounded length."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return printable(text)


def printable(text: str) -> str:
    """Return a stranger's words, fit for a terminal and a log."""
    shown = "".join(letter if letter.isprintable() else " " for letter in text)
    return shown[:_LONGEST_WORDS].strip()


async def _call(uri: str, method: str, message: bytes, seconds: float) -> bytes:
    url = urlsplit(uri)
    context = lax_tls("h2") if url.scheme == "https" else None
    channel = Channel(url.hostname, port_of(url), codec=BytesCodec(), ssl=context)
    try:
        async with asyncio.timeout(seconds):
            return await unary(channel, f"/net.Orchestrator/{method}", message)
    except TimeoutError:
        raise CallError(f"no answer within {seconds:g} s") from None
    except GRPCError as error:
        raise RefusedCallError(printable(error.message or error.status.name)) from None
    except (OSError, StreamTerminatedError) as error:
        raise CallError(f"the connection broke: {words_of(error)}") from None
    except (ProtocolError, WireError, AssertionError, NotImplementedError) as error:
        # grpclib asserts where a reply is cut short, and implements no compression.
        raise CallError(f"no gRPC reply: {words_of(error)}") from None
    finally:
        channel.close()
