"""Clients that speak nothing but HTTP/2 are served by the same routes as all others."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import orjson
import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import ResponseReceived, StreamReset
from typing_extensions import override

from network.wire.codec import decode_orchestrator_info
from network.wire.headers import JOB_ID, PAYMENT
from node.api.http2 import Request, request_of
from node.engine.work import ImageJob, ImageResult, Progress
from tests.network.wire.test_wire_fuzz import REQUEST
from tests.node.fakes import MODEL, FakeEngine
from tests.node.nodes import GATEWAY_KEY, SMALL, Buyer, eventually, running_node, unverified

TLS = "https://127.0.0.1:0"
ATTEMPT = "0123456789abcdef0123456789abcdef"
BODY = orjson.dumps({"prompt": "a small red circle", "model_id": MODEL, **SMALL})


@asynccontextmanager
async def only_http2() -> AsyncIterator[httpx.AsyncClient]:
    client = httpx.AsyncClient(http1=False, http2=True, verify=unverified(), timeout=30)
    async with client:
        yield client


# What becomes of a request

GOOD = [(":method", "POST"), (":scheme", "https"), (":authority", "node"), (":path", "/a?b")]


def test_a_request_is_what_http_1_1_would_say() -> None:
    fields = [("content-length", "3"), ("x-one", "a b"), ("te", "trailers"), ("host", "other")]
    assert request_of([*GOOD, *fields]) == Request(
        b"POST /a?b HTTP/1.1\r\nhost: node\r\nconnection: close\r\n"
        b"content-length: 3\r\nx-one: a b\r\n\r\n",
        "POST",
        3,
    )
    assert request_of(GOOD) == Request(
        b"POST /a?b HTTP/1.1\r\nhost: node\r\nconnection: close\r\n\r\n", "POST", None
    )


@pytest.mark.parametrize(
    "headers",
    [
        [*GOOD, ("x", "a\r\nGET /other HTTP/1.1")],
        [*GOOD, ("x", "a\nb")],
        [*GOOD, ("x", "a\0b")],
        [*GOOD, ("x: y\r\nz", "a")],
        [*GOOD, ("X-Upper", "a")],
        [*GOOD, ("", "a")],
        [*GOOD, ("a b", "c")],
        [*GOOD, ("content-length", "3"), ("content-length", "4")],
        [*GOOD, ("content-length", "3, 4")],
        [*GOOD, ("content-length", "-1")],
        [*GOOD, ("content-length", "0x10")],
        [*GOOD, (":path", "/other")],
        [("x", "a"), *GOOD],
        GOOD[:3],
        GOOD[1:],
        [(":method", "POST /other"), *GOOD[1:]],
        [*GOOD[:3], (":path", "/a b HTTP/1.1")],
        [*GOOD[:3], (":path", "/a\r\nx: y")],
        [*GOOD[:3], (":path", "https://other/")],
        [*GOOD[:3], (":path", "*")],
        [*GOOD[:2], (":authority", "a\r\nx: y"), GOOD[3]],
        [],
    ],
)
def test_what_could_become_two_requests_becomes_none(headers: list[tuple[str, str]]) -> None:
    assert request_of(headers) is None


# Over the wire


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_every_route_is_there(tmp_path: Path, scheme: str) -> None:
    async with (
        running_node(tmp_path, listen=f"{scheme}://127.0.0.1:0") as node,
        Buyer(node, GATEWAY_KEY) as buyer,
        only_http2() as client,
    ):
        health = await client.get(f"{node.url}/health")
        assert (health.http_version, health.json()["status"]) == ("HTTP/2", "OK")
        url, headers = f"{node.url}/text-to-image", await buyer.headers()
        asked = [client.post(url, content=BODY, headers=headers) for _ in range(10)]
        answers = await asyncio.gather(*asked)
        assert {answer.status_code for answer in answers} == {200}
        first = answers[0].json()["images"][0]["url"]
        assert first == (await buyer.ask()).json["images"][0]["url"]
        wrong = await client.get(url)
        assert (wrong.status_code, wrong.headers["allow"]) == (405, "POST")
        assert (await client.get(f"{node.url}/nowhere")).status_code == 404
        head = await client.head(f"{node.url}/health")
        assert (head.status_code, head.content) == (health.status_code, b"")


async def test_grpc_and_http_share_a_connection(tmp_path: Path) -> None:
    """As at Livepeer's nodes, the content type of each request decides."""
    async with running_node(tmp_path, listen=TLS) as node, only_http2() as client:
        assert (await client.get(f"{node.url}/health")).status_code == 200
        framed = b"\0" + len(REQUEST).to_bytes(4, "big") + REQUEST
        headers = {"content-type": "application/grpc", "te": "trailers"}
        url = f"{node.url}/net.Orchestrator/GetOrchestrator"
        answer = await client.post(url, content=framed, headers=headers)
        assert answer.headers["content-type"].startswith("application/grpc")
        assert decode_orchestrator_info(answer.content[5:]).transcoder == node.url
        assert (await client.get(f"{node.url}/health")).status_code == 200


async def test_a_header_of_60_kilobytes_is_read(tmp_path: Path) -> None:
    async with (
        running_node(tmp_path, listen=TLS) as node,
        Buyer(node, GATEWAY_KEY) as buyer,
        only_http2() as client,
    ):
        headers = {**await buyer.headers(), PAYMENT: "A" * 60_000}
        answer = await client.post(f"{node.url}/text-to-image", content=BODY, headers=headers)
        assert answer.status_code == 402
        assert answer.text.startswith("protobuf unmarshal error")


async def test_a_body_too_large_is_refused(tmp_path: Path) -> None:
    async with (
        running_node(tmp_path, listen=TLS) as node,
        Buyer(node, GATEWAY_KEY) as buyer,
        only_http2() as client,
    ):
        url, headers = f"{node.url}/text-to-image", await buyer.headers()
        answer = await client.post(url, content=bytes(300 * 1024), headers=headers)
        assert answer.status_code == 413
        for _ in range(8):  # more than a connection may send without being answered
            largest = await client.post(url, content=b" " * (256 * 1024 - 1), headers=headers)
            assert largest.status_code == 400


async def test_a_body_of_no_known_length_is_refused(tmp_path: Path) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield BODY[:10]
        yield BODY[10:]

    async with running_node(tmp_path, listen=TLS) as node, only_http2() as client:
        answer = await client.post(f"{node.url}/text-to-image", content=pieces())
        assert answer.status_code == 411
        assert "Content-Length" in answer.text


class LargeEngine(FakeEngine):
    """Its images are larger than what a client takes at once."""

    @override
    async def generate(
        self, job: ImageJob, on_progress: Callable[[Progress], None]
    ) -> ImageResult:
        result = await super().generate(job, on_progress)
        large = tuple(replace(image, png=image.png + bytes(2**21)) for image in result.images)
        return replace(result, images=large)


async def test_large_answers_arrive_whole(tmp_path: Path) -> None:
    async with (
        running_node(tmp_path, LargeEngine(), listen=TLS) as node,
        Buyer(node, GATEWAY_KEY) as buyer,
        only_http2() as client,
    ):
        url, headers = f"{node.url}/text-to-image", await buyer.headers()
        asked = [client.post(url, content=BODY, headers=headers) for _ in range(3)]
        expected = (await buyer.ask()).json
        for answer in await asyncio.gather(*asked):
            assert answer.json() == expected


async def test_news_of_a_job_come_as_they_happen(tmp_path: Path) -> None:
    engine = FakeEngine(step_seconds=0.02)
    async with (
        running_node(tmp_path, engine, listen=TLS) as node,
        Buyer(node, GATEWAY_KEY) as buyer,
        only_http2() as client,
    ):
        job = asyncio.create_task(buyer.ask({JOB_ID: ATTEMPT}, num_inference_steps=40))
        await eventually(_is_active(engine))
        async with client.stream("GET", f"{node.url}/jobs/{ATTEMPT}/events") as events:
            assert events.status_code == 200
            first = await anext(events.aiter_text())
            assert first
            assert not job.done()
        assert (await job).status == 200


class Raw:
    """A client that does to its streams what it likes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._state = H2Connection(H2Configuration(validate_outbound_headers=False))
        self._state.initiate_connection()

    def begin(self, stream: int, headers: dict[str, str], body: bytes) -> None:
        pseudo = {
            ":method": "POST",
            ":scheme": "http",
            ":authority": "n",
            ":path": "/text-to-image",
        }
        told = {**pseudo, **{name.lower(): value for name, value in headers.items()}}
        self._state.send_headers(stream, list(told.items()))
        self._state.send_data(stream, body)
        self.flush()

    def leave(self, stream: int) -> None:
        self._state.reset_stream(stream, ErrorCodes.CANCEL)
        self.flush()

    def flush(self) -> None:
        self._writer.write(self._state.data_to_send())

    async def status(self, stream: int) -> str:
        """Of the answer; "" where the stream was closed instead."""
        while data := await self._reader.read(65_536):
            for event in self._state.receive_data(data):
                if isinstance(event, ResponseReceived) and event.stream_id == stream:
                    return dict(event.headers)[b":status"].decode()
                if isinstance(event, StreamReset) and event.stream_id == stream:
                    return ""
        raise ConnectionError


async def test_a_client_that_leaves_frees_the_gpu_and_its_connection_goes_on(
    tmp_path: Path,
) -> None:
    engine = FakeEngine(step_seconds=0.02)
    async with running_node(tmp_path, engine) as node, Buyer(node, GATEWAY_KEY) as buyer:
        host, _, port = node.url.removeprefix("http://").partition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        raw, headers = Raw(reader, writer), await buyer.headers()
        long = orjson.dumps({**orjson.loads(BODY), "num_inference_steps": 100})
        sized = {**headers, "content-length": str(len(long))}
        raw.begin(1, sized, long)
        await eventually(_is_active(engine))
        raw.leave(1)
        await eventually(_is_free(engine))
        assert len(engine.cancelled) == 1
        raw.begin(3, {**headers, "content-length": str(len(BODY))}, BODY)
        assert await raw.status(3) == "200"
        # What could become two requests is none.
        raw.begin(5, {**headers, "x": "a\r\nGET /health HTTP/1.1"}, BODY)
        assert await raw.status(5) == ""
        raw.begin(7, sized, long)
        await eventually(_is_active(engine))
        writer.close()
        await eventually(_is_free(engine))
        assert len(engine.cancelled) == 2


def _is_active(engine: FakeEngine) -> Callable[[], Awaitable[bool]]:
    async def is_active() -> bool:
        return engine.active > 0

    return is_active


def _is_free(engine: FakeEngine) -> Callable[[], Awaitable[bool]]:
    async def is_free() -> bool:
        return engine.active == 0

    return is_free


async def test_a_node_that_stops_ends_what_is_under_way(tmp_path: Path) -> None:
    engine = FakeEngine(step_seconds=0.05)
    async with only_http2() as client:
        async with running_node(tmp_path, engine, listen=TLS) as node, Buyer(node) as buyer:
            headers = await buyer.headers()
            job = asyncio.create_task(
                client.post(f"{node.url}/text-to-image", content=BODY, headers=headers)
            )
            await eventually(_is_active(engine))
        done, _ = await asyncio.wait((job,), timeout=10)
        assert done
