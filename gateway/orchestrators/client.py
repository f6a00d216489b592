"""The gateway's side of Livepeer's wire: information by gRPC, jobs by HTTP/1.1."""

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from fractions import Fraction
from typing import Final, TypeVar

import aiohttp
import msgspec
from yarl import URL

from gateway.orchestrators.answers import (
    DeliveredWrongly,
    Expected,
    Link,
    Medium,
    OrchestratorFailed,
    OrchestratorRefused,
    Picture,
    Statement,
    check_all_pixels,
    check_pictures,
    parse_answer,
    parse_parts,
    printable,
    refusal,
)
from gateway.orchestrators.connecting import Connector, LinkingConnector, no_links
from gateway.orchestrators.information import Information, grpc_tls, unverified_tls
from gateway.orchestrators.job_events import Job, JobEvents, News
from gateway.orchestrators.offer import Offer
from gateway.orchestrators.posting import Origin, Poster
from gateway.orchestrators.reach import Beyond, GuardedResolver, MayBePrivate, anything
from gateway.orchestrators.receipts import NoReceipt, ReceiptDesk, credit_of, fee_of, statement_of
from gateway.orchestrators.trail import DELIVERED, attempting
from network.capabilities import Capabilities, job_capabilities
from network.identity import Signer, session_request_signature
from network.runtime.trace import Trace
from network.units import Address, ModelId, Wei
from network.wire import headers as wire_headers
from network.wire import image_parts
from network.wire.codec import (
    AuthToken,
    OrchestratorInfo,
    OrchestratorRequest,
    Payment,
    decode_orchestrator_info,
    encode_orchestrator_request,
    encode_payment,
)

_LONGEST_WARNINGS: Final = 1000
_FETCH_SECONDS: Final = 10.0
_CONNECT_SECONDS: Final = 3.0
_PROGRESS_SECONDS: Final = 1.0
_LARGEST_PROGRESS: Final = 4096
_CACHED_HEADS: Final = 1024
_NO_ADDRESS: Final = Address(bytes(20))
_OK: Final = 200

_IN_A_HEAD: Final = re.compile("[!-~]+")

_K = TypeVar("_K")
_V = TypeVar("_V")


@dataclass(frozen=True, slots=True)
class KeylessAccount:
    """The account of a gateway whose key is elsewhere. Each of its orders brings its credentials."""

    address: Address
    #: `session_request_signature` of the account.
    session_signature: bytes


class Order(msgspec.Struct, frozen=True):
    """What is asked of an orchestrator, and what the answer is checked against."""

    attempt_id: str
    model_id: ModelId
    #: Wei per pixel we expect to pay, None where the orchestrator named no price.
    price: Fraction | None
    expected: Expected
    #: The JSON body (Livepeer wire, TextToImageParams).
    body: bytes
    #: Headers of a payment with tickets; "" where none is due, or a key elsewhere signed nothing.
    payment: str = ""
    credentials: str = ""


class NodeAnswer(msgspec.Struct, frozen=True):
    """A delivered and checked job."""

    images: tuple[Picture, ...]
    #: The orchestrator's own id of the job, where it names one.
    node_job_id: str
    #: What the orchestrator says it charged, where it says so.
    fee: Wei | None
    #: What of the request had no effect, where it says so.
    warnings: str = ""
    #: What the payment of this attempt brought there, in wei, where it says so.
    credit: Fraction | None = None


class JobProgress(msgspec.Struct, frozen=True):
    """Livepeer has no such call; our node answers `GET /jobs/{Limner-Job-Id}`."""

    state: str
    done_steps: int
    total_steps: int
    position: int = 0


_progress_decoder = msgspec.json.Decoder(JobProgress)


class OrchestratorClient:
    """Talks to orchestrators. Made by `open_client`."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        poster: Poster,
        information: Information,
        account: Signer | KeylessAccount | None,
        *,
        version: str,
        min_version: str = "",
        beyond: Beyond,
        inflates: bool = False,
    ) -> None:
        self._beyond = beyond
        self._inflates = inflates
        self._session = session
        self._poster = poster
        self._receipts = ReceiptDesk(session)
        self._events = JobEvents(session)
        self._information = information
        self._version = version
        self._min_version = min_version
        self._sender = _NO_ADDRESS if account is None else account.address
        # The signature covers the sender only: one for the life of the process.
        if isinstance(account, KeylessAccount):
            self._signer, self._signature = None, account.session_signature
        else:
            self._signer = account
            self._signature = b"" if account is None else session_request_signature(account)
        self._heads: dict[tuple[str, ModelId, AuthToken | None, str], tuple[Origin, bytes]] = {}
        self._payments: dict[Fraction | None, str] = {}

    async def info(self, uri: str, model_id: ModelId | None = None) -> OrchestratorInfo:
        """GetOrchestrator. With a model the reply has its exact price, without one all models.

        Raises OrchestratorFailed, WireError for a reply that is no OrchestratorInfo.
        """
        self._beyond.note_listed(URL(uri).host or "")
        capabilities = None if model_id is None else self._capabilities(model_id)
        request = OrchestratorRequest(
            address=self._sender,
            signature=self._signature,
            capabilities=capabilities,
            ignore_capacity_check=False,
        )
        reply = await self._information.call(
            uri, "GetOrchestrator", encode_orchestrator_request(request)
        )
        return decode_orchestrator_info(reply)

    async def ping(self, uri: str) -> None:
        """Return when the orchestrator has answered. Raises OrchestratorFailed."""
        await self._information.call(uri, "Ping", b"")

    async def text_to_image(
        self, offer: Offer, order: Order, timeout_seconds: float
    ) -> NodeAnswer:
        """Run one job and check what comes back. Cancelling closes the connection.

        Raises OrchestratorRefused for a refusal in known words, OrchestratorFailed otherwise.
        """
        with attempting(order.attempt_id, offer.uri) as attempt:
            try:
                async with asyncio.timeout(timeout_seconds):
                    answer = await self._post(offer, order, attempt.trace)
            except TimeoutError:
                raise OrchestratorFailed(f"no images within {timeout_seconds:g} s") from None
            except (aiohttp.ClientError, OSError, ValueError) as error:
                shown = _named(error)
                raise OrchestratorFailed(f"an image it keeps cannot be had: {shown}") from None
            attempt.outcome, attempt.node_job_id = DELIVERED, answer.node_job_id
            return answer

    async def progress(self, offer: Offer, attempt_id: str) -> JobProgress | None:
        """How far a job is; None where the orchestrator does not tell."""
        url = _at(offer.transcoder, f"jobs/{attempt_id}")
        try:
            async with (
                asyncio.timeout(_PROGRESS_SECONDS),
                self._session.get(url, allow_redirects=False) as response,
            ):
                if response.status != _OK:
                    return None
                return _progress_decoder.decode(await _read(response, _LARGEST_PROGRESS))
        except (
            TimeoutError,
            aiohttp.ClientError,
            OSError,
            OrchestratorFailed,
            msgspec.MsgspecError,
            ValueError,
            RecursionError,
        ):
            # Progress is a courtesy: a request never fails for want of it.
            return None

    def events(self, offer: Offer, attempt_id: str, job: Job) -> AsyncGenerator[News]:
        """A job's news until it is over. Raises NoEvents where it does not tell."""
        return self._events.of(_at(offer.transcoder, f"jobs/{attempt_id}/events"), job)

    async def receipt(self, offer: Offer, attempt_id: str) -> Statement | NoReceipt:
        """What became of an attempt's payment. Raises OrchestratorFailed."""
        return await self._receipts.ask(_at(offer.transcoder, f"jobs/{attempt_id}/receipt"))

    async def _post(self, offer: Offer, order: Order, trace: Trace) -> NodeAnswer:
        origin, head = self._head(offer, order.model_id, order.credentials)
        payment = order.payment or self._payment(order.price)
        request = b"%b%b: %b\r\n%b: %b\r\ntraceparent: %b\r\nContent-Length: %d\r\n\r\n%b" % (
            head,
            wire_headers.PAYMENT.encode(),
            payment.encode(),
            wire_headers.JOB_ID.encode(),
            order.attempt_id.encode(),
            trace.header.encode(),
            len(order.body),
            order.body,
        )
        answer = await self._poster.post(origin, request, order.expected.largest_body)
        headers = answer.headers
        try:
            credit = credit_of(headers)
            if not answer.is_delivery:
                raise refusal(answer.status, answer.body.decode("utf-8", "replace"))
            fee = fee_of(headers)
            node_job_id = printable(headers.get(wire_headers.JOB_ID.lower(), ""), 128)
            parse = parse_parts if answer.has_parts else parse_answer
            media = parse(answer.body, order.expected.images)
            answer.body = b""  # megabytes, and links may take seconds
            pictures = await self._fetched(media, offer, order.expected)
            images = check_pictures(pictures, order.expected)
            if self._inflates:
                await asyncio.to_thread(check_all_pixels, images)
        except (OrchestratorRefused, OrchestratorFailed) as error:
            error.was_answered, error.status = True, answer.status
            error.statement = statement_of(headers)
            raise
        return NodeAnswer(images, node_job_id, fee, _warnings(headers), credit)

    def _head(self, offer: Offer, model_id: ModelId, credentials: str) -> tuple[Origin, bytes]:
        """Where a job goes, and the part of its head that is the same for many.

        Raises OrchestratorFailed for a service URI that cannot stand in a request.
        """
        key = (offer.transcoder, model_id, offer.auth_token, credentials)
        found = self._heads.get(key)
        if found is None:
            url = _at(offer.transcoder, "text-to-image")
            host = url.host_port_subcomponent or ""
            if not _IN_A_HEAD.fullmatch(url.raw_path) or not _IN_A_HEAD.fullmatch(host):
                raise OrchestratorFailed("its service URI has characters that no address has")
            fields = {
                "Host": host,
                "User-Agent": f"limner-gateway/{self._version}",
                "Accept": image_parts.ACCEPT,
                "Accept-Encoding": "identity",
                "Content-Type": "application/json",
                "Authorization": wire_headers.PROTOCOL_MARK,
                wire_headers.SEGMENT: credentials or self._segment(model_id, offer.auth_token),
            }
            lines = [f"POST {url.raw_path} HTTP/1.1", *(f"{k}: {v}" for k, v in fields.items())]
            self._beyond.note_named(url.host or "", URL(offer.uri).host or "")
            found = Origin.of(url), "".join(f"{line}\r\n" for line in lines).encode("ascii")
            _remember(self._heads, key, found)
        return found

    def _segment(self, model_id: ModelId, token: AuthToken | None) -> str:
        capabilities = self._capabilities(model_id)
        return wire_headers.encode_header(
            wire_headers.segment_credentials(self._signer, model_id, capabilities, token)
        )

    def _capabilities(self, model_id: ModelId) -> Capabilities:
        return job_capabilities(model_id, self._version, min_version=self._min_version)

    def _payment(self, price: Fraction | None) -> str:
        """Payment without tickets: it names who asks and the price that is expected."""
        header = self._payments.get(price)
        if header is None:
            payment = Payment(sender=self._sender, expected_price=price)
            header = wire_headers.encode_header(encode_payment(payment))
            _remember(self._payments, price, header)
        return header

    async def _fetched(
        self, media: tuple[Medium, ...], offer: Offer, expected: Expected
    ) -> tuple[Medium, ...]:
        links = [medium.image.url for medium in media if isinstance(medium.image, Link)]
        if not links:
            return media
        if len(set(links)) < len(links):
            # A combined go-livepeer node stores all images under the name of one (wire, 3.8).
            raise OrchestratorFailed("it sent one url for several images")
        async with _within(_FETCH_SECONDS, "an image it keeps"):
            return tuple([await self._with_image(medium, offer, expected) for medium in media])

    async def _with_image(self, medium: Medium, offer: Offer, expected: Expected) -> Medium:
        if not isinstance(medium.image, Link):
            return medium
        url = own_url(medium.image.url, offer.transcoder)
        async with self._session.get(url, allow_redirects=False) as response:
            if response.status != _OK:
                raise OrchestratorFailed(f"an image url answered {response.status}")
            image = await _read(response, expected.largest_image)
        return Medium(image, medium.seed, medium.safety)


@asynccontextmanager
async def open_client(
    account: Signer | KeylessAccount | None,
    *,
    version: str,
    call_timeout: float = 2.5,
    min_version: str = "",
    may_be_private: MayBePrivate = anything,
    connect: Connector = no_links,
    check_pixels: bool = False,
) -> AsyncIterator[OrchestratorClient]:
    """A client with its connections, closed at exit. `account` None is Livepeer's off-chain mode.

    Orchestrators are told that jobs want `min_version` at least, "" being any. `may_be_private` tells
    which hosts may lead into a private network; connections of others that do are given up. `connect`
    leads to orchestrators that cannot be called. `check_pixels` inflates every image before it is taken,
    which costs a core some 10 ms a megapixel.
    """
    information = Information(grpc_tls(), call_timeout, may_be_private, connect)
    tls = unverified_tls()
    beyond = Beyond(may_be_private)
    poster = Poster(tls, beyond.may_be_private, connect)
    connector = LinkingConnector(
        connect,
        limit=0,
        ssl=tls,
        keepalive_timeout=50.0,
        ttl_dns_cache=30,
        resolver=GuardedResolver(beyond.may_be_private),
    )
    session = aiohttp.ClientSession(
        connector=connector,
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS),
        read_bufsize=2**21,
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"Accept-Encoding": "identity", "User-Agent": f"limner-gateway/{version}"},
    )
    async with session:
        try:
            yield OrchestratorClient(
                session,
                poster,
                information,
                account,
                version=version,
                min_version=min_version,
                beyond=beyond,
                inflates=check_pixels,
            )
        finally:
            poster.close()
            information.close()


def own_url(url: str, transcoder: str) -> URL:
    """A link to a result, if it leads to the orchestrator's own origin; a bare path does.

    Anything else could make the gateway fetch from hosts that only it can see.
    Raises OrchestratorFailed.
    """
    try:
        own = URL(transcoder)
        link = own.join(URL(url)) if url.startswith("/") else URL(url)
        if link.origin() == own.origin() and link.user is None and link.password is None:
            return link
    except ValueError:
        pass
    raise DeliveredWrongly("an image url leads to another host")


@asynccontextmanager
async def _within(seconds: float, what: str) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise OrchestratorFailed(f"{what} did not arrive within {seconds:g} s") from None


def _at(transcoder: str, path: str) -> URL:
    """`path` below the service URI, whose own path prefix is kept."""
    return URL(f"{transcoder.rstrip('/')}/{path}", encoded=True)


async def _read(response: aiohttp.ClientResponse, most: int) -> bytes:
    """The whole body, refused as soon as it is known to be larger than `most` bytes."""
    announced = response.content_length
    if announced is not None:
        if announced > most:
            raise OrchestratorFailed(f"its answer of {announced} bytes is larger than asked for")
        return await response.read()
    chunks: list[bytes] = []
    size = 0
    while chunk := await response.content.readany():
        size += len(chunk)
        if size > most:
            raise OrchestratorFailed(f"its answer is larger than the {most} bytes asked for")
        chunks.append(chunk)
    return b"".join(chunks)


def _warnings(headers: Mapping[str, str]) -> str:
    """A stranger's words, fit to be passed on in a header of ours."""
    text = headers.get(wire_headers.WARNINGS.lower(), "")
    return printable(text.encode("ascii", "ignore").decode(), _LONGEST_WARNINGS)


def _remember(cache: dict[_K, _V], key: _K, value: _V) -> None:
    if len(cache) >= _CACHED_HEADS:
        del cache[next(iter(cache))]
    cache[key] = value


def _named(error: Exception) -> str:
    return printable(f"{type(error).__name__} {error}", 200)
