"""Two ends of a link over a real WebSocket: streams behave as sockets do, and share the line fairly."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from structlog.testing import capture_logs
from typing_extensions import override

from network.link.connection import Link, close_websocket
from network.link.frames import LARGEST_MESSAGE, WINDOW, Frame, Kind, encode
from network.link.transport import LinkLostError, StreamTransport


class Recorder(asyncio.Protocol):
    """Notes what happens to it."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.data = bytearray()
        self.has_ended = False
        self.is_lost = False
        self.error: Exception | None = None
        self.is_paused = False
        self.pauses = 0
        self.keep_open = False
        self.on_data: Callable[[bytes], None] = lambda _data: None
        self.news = asyncio.Event()

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, StreamTransport)
        self.transport = transport

    @override
    def data_received(self, data: bytes) -> None:
        self.data += data
        self.on_data(data)
        self.news.set()

    @override
    def eof_received(self) -> bool:
        self.has_ended = True
        self.news.set()
        return self.keep_open

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self.is_lost, self.error = True, exc
        self.news.set()

    @override
    def pause_writing(self) -> None:
        self.is_paused = True
        self.pauses += 1

    @override
    def resume_writing(self) -> None:
        self.is_paused = False
        self.news.set()

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(10):
            while not condition():
                self.news.clear()
                await self.news.wait()


@dataclass
class Pair:
    """`gateway` opens streams, `served` are the node's protocols of them."""

    gateway: Link
    node: Link
    served: list[Recorder] = field(default_factory=list)
    pushed: list[bytes] = field(default_factory=list)
    ends: dict[str, str] = field(default_factory=dict)
    far: "aiohttp.ClientWebSocketResponse | None" = None

    async def open(self) -> tuple[Recorder, Recorder]:
        """A stream, both of its ends."""
        count = len(self.served)
        _, near = self.gateway.open_stream(Recorder)
        async with asyncio.timeout(10):
            while len(self.served) == count:  # noqa: ASYNC110  the other side tells nobody
                await asyncio.sleep(0.001)
        return near, self.served[count]


@asynccontextmanager
async def pair(
    *, silence: float = 5.0, prepare: Callable[[Recorder], None] = lambda _made: None
) -> AsyncIterator[Pair]:
    made: list[Pair] = []
    pushed: list[bytes] = []
    ready = asyncio.Event()
    found: dict[str, Any] = {}

    def serve() -> Recorder:
        one = Recorder()
        prepare(one)
        made[0].served.append(one)
        return one

    async def handle(request: web.Request) -> web.StreamResponse:
        websocket = web.WebSocketResponse(max_msg_size=LARGEST_MESSAGE, compress=False)
        await websocket.prepare(request)
        link = Link(
            websocket,
            opens=True,
            silence_seconds=silence,
            on_push=pushed.append,
        )
        found["gateway"] = link
        ready.set()
        made_end = await link.run()
        made[0].ends["gateway"] = made_end
        await close_websocket(websocket, made_end)
        return websocket

    app = web.Application()
    app.router.add_get("/", handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"ws://127.0.0.1:{runner.addresses[0][1]}/"
    async with aiohttp.ClientSession() as session, session.ws_connect(url) as websocket:
        await ready.wait()
        node = Link(websocket, opens=False, silence_seconds=silence, serve=serve)
        made.append(Pair(found["gateway"], node, pushed=pushed, far=websocket))

        async def run() -> None:
            made[0].ends["node"] = await node.run()
            await websocket.close()

        running = asyncio.ensure_future(run())
        yield made[0]
        node.close("over")
        await running
    await runner.cleanup()


async def test_bytes_go_both_ways_and_ends_are_told_apart() -> None:
    async with pair(prepare=lambda one: setattr(one, "keep_open", True)) as link:
        near, far = await link.open()
        assert near.transport is not None
        assert far.transport is not None
        near.transport.write(b"ques")
        near.transport.writelines([b"ti", bytearray(b"on")])
        near.transport.write_eof()
        await far.until(lambda: far.has_ended)
        assert far.data == b"question"
        far.transport.write(b"answer")
        far.transport.close()
        await near.until(lambda: near.is_lost)
        assert near.data == b"answer"
        assert near.error is None
        await far.until(lambda: far.is_lost)
        assert far.error is None
        assert len(link.gateway) == len(link.node) == 0
        assert len(link.gateway.multiplexer) == len(link.node.multiplexer) == 0


async def test_what_was_written_goes_out_before_the_close() -> None:
    async with pair() as link:
        near, far = await link.open()
        assert near.transport is not None
        near.transport.write(bytes(WINDOW * 3))
        near.transport.close()
        await far.until(lambda: far.is_lost)
        assert len(far.data) == WINDOW * 3


async def test_breaking_off_reaches_the_other_side_at_once() -> None:
    async with pair() as link:
        near, far = await link.open()
        assert near.transport is not None
        near.transport.write(bytes(WINDOW * 3))
        near.transport.abort()
        await far.until(lambda: far.is_lost)
        assert isinstance(far.error, ConnectionResetError)
        assert near.transport.is_closing()
        near.transport.write(b"into nothing")


async def test_a_reader_that_pauses_stops_its_writer_and_nobody_else() -> None:
    async with pair() as link:
        slow, slow_far = await link.open()
        quick, quick_far = await link.open()
        assert slow.transport is not None
        assert slow_far.transport is not None
        slow.transport.pause_reading()
        slow_far.transport.write(bytes(6_000_000))
        assert slow_far.is_paused
        assert quick_far.transport is not None
        quick_far.transport.write(b"small")
        await quick.until(lambda: quick.data)
        await asyncio.sleep(0.05)
        assert not slow.data
        # What the other side sent is bounded, wherever it is kept.
        assert slow_far.transport.get_write_buffer_size() == 6_000_000 - WINDOW
        slow.transport.resume_reading()
        await slow.until(lambda: len(slow.data) == 6_000_000)
        await slow_far.until(lambda: not slow_far.is_paused)
        assert slow_far.pauses == 1


async def test_small_answers_overtake_a_large_one() -> None:
    async with pair() as link:
        order: list[str] = []
        large, large_far = await link.open()
        small, small_far = await link.open()
        assert large_far.transport is not None
        assert small_far.transport is not None
        large_far.transport.write(bytes(6_000_000))
        small_far.transport.write(b"small")

        def note(name: str) -> Callable[[bytes], None]:
            return lambda _data: order.append(name)

        large.on_data, small.on_data = note("large"), note("small")
        await large.until(lambda: len(large.data) == 6_000_000)
        assert "small" in order[:10]


async def test_a_protocol_that_fails_loses_its_stream_only() -> None:
    def fail(_data: bytes) -> None:
        raise RuntimeError("a defect")

    with capture_logs() as logs:
        async with pair() as link:
            near, far = await link.open()
            other, other_far = await link.open()
            far.on_data = fail
            assert near.transport is not None
            assert other.transport is not None
            near.transport.write(b"x")
            await near.until(lambda: near.is_lost)
            other.transport.write(b"y")
            await other_far.until(lambda: other_far.data == b"y")
    assert "stream_failed" in {line["event"] for line in logs}


async def test_when_the_link_goes_all_streams_do() -> None:
    async with pair() as link:
        near, far = await link.open()
        link.node.close("the node stops")
        for one in (near, far):
            await one.until(lambda one=one: one.is_lost)  # type: ignore[misc]
            assert isinstance(one.error, LinkLostError)
        with pytest.raises(LinkLostError):
            link.node.open_stream(Recorder)


async def test_a_side_that_falls_silent_is_given_up() -> None:
    async with pair(silence=0.4) as link:
        near, far = await link.open()
        await asyncio.sleep(0.6)
        assert not near.is_lost  # signs of life go both ways
        link.node.multiplexer.beat = lambda: None  # type: ignore[method-assign]
        await near.until(lambda: near.is_lost)
        assert "nothing was heard" in str(near.error)
        await far.until(lambda: far.is_lost)


async def test_news_arrive() -> None:
    async with pair() as link:
        link.node.push(b"news")
        async with asyncio.timeout(10):
            while not link.pushed:  # noqa: ASYNC110  nor does this
                await asyncio.sleep(0.001)
        assert link.pushed == [b"news"]


async def test_more_streams_than_may_be_are_refused_here() -> None:
    async with pair() as link:
        for _ in range(256):
            link.gateway.open_stream(Recorder)
        with pytest.raises(OSError, match="as many connections"):
            link.gateway.open_stream(Recorder)


@pytest.mark.parametrize("message", [b"", b"\xff" * 9, encode(Frame(Kind.OPEN, 1))])
async def test_a_side_that_breaks_the_rules_is_given_up(message: bytes) -> None:
    async with pair() as link:
        near, _ = await link.open()
        assert link.far is not None
        await link.far.send_bytes(message)
        await near.until(lambda: near.is_lost)
        assert "broke the rules" in str(near.error)
