"""Jobs go over kept connections, and little is believed of what comes back."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial

import pytest

from gateway.orchestrators import posting
from gateway.orchestrators.answers import OrchestratorFailed, OrchestratorUnreachable
from gateway.orchestrators.information import unverified_tls
from gateway.orchestrators.posting import Origin, Poster

REQUEST = b"POST / HTTP/1.1\r\nHost: o\r\nContent-Length: 2\r\n\r\n{}"
JSON = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
CHUNKED = JSON + b"Transfer-Encoding: chunked\r\n\r\n"
WHOLE = JSON + b"Content-Length: 2\r\n\r\n{}"


@dataclass
class Server:
    """Sends the same bytes for each request, and can hang up after them."""

    answer: bytes
    hangs_up: bool = False
    connections: int = 0
    lost: int = 0
    writers: list[asyncio.StreamWriter] = field(default_factory=list)
    port: int = 0

    @property
    def origin(self) -> Origin:
        return Origin("127.0.0.1", self.port, is_tls=False)

    def has_lost(self, connections: int) -> bool:
        return self.lost == connections

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.writers.append(writer)
        try:
            while await reader.readuntil(b"{}"):
                writer.write(self.answer)
                await writer.drain()
                if self.hangs_up:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            self.lost += 1
        except asyncio.CancelledError:
            pass  # the end of the test; the stream's own callback would call it an error
        finally:
            writer.close()


@asynccontextmanager
async def serving(
    answer: bytes, *, hangs_up: bool = False
) -> AsyncIterator[tuple[Server, Poster]]:
    server = Server(answer, hangs_up)
    listener = await asyncio.start_server(server.serve, "127.0.0.1")
    server.port = listener.sockets[0].getsockname()[1]
    poster = Poster(unverified_tls())
    try:
        yield server, poster
    finally:
        poster.close()
        for writer in server.writers:
            writer.close()
        listener.close()
        await listener.wait_closed()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110  sockets have no event for it
            await asyncio.sleep(0.005)


async def test_a_whole_answer_leaves_its_connection_to_the_next() -> None:
    async with serving(WHOLE) as (server, poster):
        for _ in range(3):
            answer = await poster.post(server.origin, REQUEST, 100)
            assert (answer.status, answer.body, answer.is_delivery) == (200, b"{}", True)
            assert answer.headers["content-type"] == "application/json"
        assert (server.connections, poster.idle) == (1, 1)


@pytest.mark.parametrize(
    "answer",
    [
        JSON + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n1\r\n}\r\n0\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" + WHOLE,
        b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + WHOLE,
    ],
    ids=["chunked", "continue", "hints"],
)
async def test_every_way_to_send_a_whole_answer_is_understood(answer: bytes) -> None:
    async with serving(answer) as (server, poster):
        for _ in range(2):
            assert (await poster.post(server.origin, REQUEST, 100)).body == b"{}"
        assert server.connections == 1


LONG = bytes(range(256)) * 8000
LONG_WHOLE = JSON + b"Content-Length: %d\r\n\r\n%b" % (len(LONG), LONG)


async def test_a_long_body_is_had_whole_and_leaves_its_connection_to_the_next() -> None:
    async with serving(LONG_WHOLE) as (server, poster):
        for _ in range(3):
            assert (await poster.post(server.origin, REQUEST, len(LONG))).body == LONG
        assert (server.connections, poster.idle) == (1, 1)


async def test_a_long_body_in_chunks_is_had_whole() -> None:
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(LONG) // 8, LONG[i::8]) for i in range(8))
    async with serving(CHUNKED + chunks + b"0\r\n\r\n") as (server, poster):
        found = (await poster.post(server.origin, REQUEST, len(LONG))).body
        assert found == b"".join(LONG[i::8] for i in range(8))


async def test_what_follows_a_long_body_is_no_part_of_it() -> None:
    async with serving(LONG_WHOLE + WHOLE) as (server, poster):
        assert (await poster.post(server.origin, REQUEST, len(LONG))).body == LONG
        await until(lambda: server.lost == 1)
        assert (await poster.post(server.origin, REQUEST, len(LONG))).body == LONG
        assert server.connections == 2


@pytest.mark.parametrize("last", [b"Connection: close\r\n", b""])
async def test_after_a_long_last_body_another_connection_is_used(last: bytes) -> None:
    answer = LONG_WHOLE.replace(b"\r\n\r\n", b"\r\n" + last + b"\r\n", 1)
    if not last:
        answer = answer.replace(b"HTTP/1.1", b"HTTP/1.0", 1)
    async with serving(answer) as (server, poster):
        await poster.post(server.origin, REQUEST, len(LONG))
        assert poster.idle == 0


async def test_a_long_body_that_breaks_off_is_a_fault() -> None:
    async with serving(LONG_WHOLE[:-1], hangs_up=True) as (server, poster):
        with pytest.raises(OrchestratorFailed, match="broke"):
            await poster.post(server.origin, REQUEST, len(LONG))


async def test_what_a_link_hands_over_is_read_the_same() -> None:
    loop = asyncio.get_running_loop()
    for answer, goes_on in ((LONG_WHOLE, False), (LONG_WHOLE + b"x", True), (WHOLE, False)):
        body = answer.partition(b"\r\n\r\n")[2].removesuffix(b"x")
        async with serving(answer) as (server, _):
            _, connection = await loop.create_connection(
                posting._LinkedConnection, "127.0.0.1", server.port
            )
            for _ in range(1 if goes_on else 3):
                assert (await connection.post(REQUEST, len(LONG))).body == body
            if goes_on:
                await until(partial(server.has_lost, 1))
            assert connection.is_open is not goes_on
            connection.abort()


async def test_answers_at_the_same_time_do_not_mix() -> None:
    others = LONG_WHOLE.replace(LONG, LONG[::-1])
    async with serving(LONG_WHOLE) as (server, poster), serving(others) as (other, _):
        asked = [
            poster.post(one.origin, REQUEST, len(LONG))
            for _ in range(8)
            for one in (server, other)
        ]
        found = [answer.body for answer in await asyncio.gather(*asked)]
    assert found == [LONG, LONG[::-1]] * 8


async def test_an_answer_may_end_with_its_connection() -> None:
    async with serving(JSON + b"\r\n{}", hangs_up=True) as (server, poster):
        assert (await poster.post(server.origin, REQUEST, 100)).body == b"{}"
        assert poster.idle == 0


@pytest.mark.parametrize(
    "answer",
    [
        WHOLE.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"),
        WHOLE.replace(b"HTTP/1.1", b"HTTP/1.0"),
    ],
)
async def test_a_connection_that_is_to_be_closed_is_not_used_again(answer: bytes) -> None:
    async with serving(answer) as (server, poster):
        await poster.post(server.origin, REQUEST, 100)
        assert poster.idle == 0
        await poster.post(server.origin, REQUEST, 100)
        assert server.connections == 2


async def test_a_connection_closed_meanwhile_is_not_used_again() -> None:
    async with serving(WHOLE) as (server, poster):
        await poster.post(server.origin, REQUEST, 100)
        server.writers[0].close()
        await until(lambda: server.lost == 1 or server.writers[0].is_closing())
        await asyncio.sleep(0.05)
        assert (await poster.post(server.origin, REQUEST, 100)).body == b"{}"
        assert server.connections == 2


async def test_whoever_speaks_without_being_asked_is_hung_up_on() -> None:
    async with serving(WHOLE + WHOLE) as (server, poster):
        assert (await poster.post(server.origin, REQUEST, 100)).body == b"{}"
        await poster.post(server.origin, REQUEST, 100)
        assert server.connections == 2


async def test_a_connection_idle_for_long_is_not_used_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(posting, "_IDLE_SECONDS", -1.0)
    async with serving(WHOLE) as (server, poster):
        await poster.post(server.origin, REQUEST, 100)
        await poster.post(server.origin, REQUEST, 100)
        assert server.connections == 2


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"SSH-2.0-OpenSSH\r\n", "not the HTTP we know"),
        (JSON + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}", "not the HTTP we know"),
        (JSON + b"Content-Length: 101\r\n\r\n{}", "101 bytes is larger than asked for"),
        (JSON + b"\r\n" + b"x" * 101, "larger than the 100 bytes asked for"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200_000, "head is above"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * 10_000, "head is above"),
        (CHUNKED + b"1\r\nx\r\n0\r\n" + b"X-A: b\r\n" * 30_000, "larger than the 100 bytes"),
        (CHUNKED + b"1\r\nx\r\n0\r\nX-A: " + b"b" * 200_000, "larger than the 100 bytes"),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n", "HTTP"),
    ],
    ids=[
        "no http",
        "two lengths",
        "announced",
        "too long",
        "endless head",
        "endless 100",
        "endless trailers",
        "endless trailer",
        "upgrade",
    ],
)
async def test_what_is_not_as_asked_is_a_fault(answer: bytes, reason: str) -> None:
    async with serving(answer) as (server, poster):
        with pytest.raises(OrchestratorFailed, match=reason):
            await poster.post(server.origin, REQUEST, 100)
        assert poster.idle == 0


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200", JSON + b"Content-Length: 9\r\n\r\n{}"])
async def test_an_answer_that_breaks_off_is_a_fault(answer: bytes) -> None:
    async with serving(answer, hangs_up=True) as (server, poster):
        with pytest.raises(OrchestratorFailed, match="the connection broke"):
            await poster.post(server.origin, REQUEST, 100)


async def test_of_a_refusal_only_the_beginning_is_read() -> None:
    endless = b"HTTP/1.1 503 Busy\r\nContent-Type: text/plain\r\n\r\n" + b"no " * 50_000
    async with serving(endless) as (server, poster):
        answer = await poster.post(server.origin, REQUEST, 100)
        assert (answer.status, answer.is_delivery) == (503, False)
        assert answer.body == (b"no " * 2000)[:4096]


async def test_a_body_that_drips_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(posting, "_BODY_SECONDS", 0.05)
    async with serving(JSON + b"Content-Length: 9\r\n\r\n{}") as (server, poster):
        with pytest.raises(OrchestratorFailed, match="did not arrive within"):
            await poster.post(server.origin, REQUEST, 100)


async def test_cancelling_closes_the_connection() -> None:
    async with serving(b"") as (server, poster):
        asking = asyncio.ensure_future(poster.post(server.origin, REQUEST, 100))
        await until(lambda: server.connections == 1)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await until(lambda: server.lost == 1)


async def test_closing_ends_what_is_under_way() -> None:
    async with serving(b"") as (server, poster):
        asking = asyncio.ensure_future(poster.post(server.origin, REQUEST, 100))
        await until(lambda: server.connections == 1)
        poster.close()
        with pytest.raises(OrchestratorFailed):
            await asking


async def test_nobody_at_home_is_told() -> None:
    async with serving(b"") as (server, poster):
        nobody = server.origin
    with pytest.raises(OrchestratorUnreachable, match="no connection"):
        await poster.post(nobody, REQUEST, 100)
