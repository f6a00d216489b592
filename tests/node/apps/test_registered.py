import asyncio
from fractions import Fraction
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from network.units import Wei
from node.accounting.journal import PaymentRefusedError
from node.accounting.model import Credit
from node.apps.heartbeat import Asked
from tests.node.accounting.test_journal import ALICE
from tests.node.apps.runner_apps import FEE, Counter, app_of, counter, until


async def test_a_call_goes_to_the_app_and_is_charged(tmp_path: Path) -> None:
    seen: list[tuple[web.Request, bytes]] = []

    async def app(request: web.Request) -> web.Response:
        seen.append((request, await request.read()))
        return web.json_response(
            {"ok": True},
            headers={"X-Mine": "1", "Set-Cookie": "a=b", "Limner-Fee": "0", "Server": "acme"},
        )

    sent = {
        "Livepeer-Payment": "ticket",
        "livepeer-segment": "credentials",
        "Livepeer-Payer-Address": "0x00",
        "Livepeer-Runner-Route": "another",
        "Limner-Job-Id": "attempt",
        "Authorization": "Bearer mine",
        "Cookie": "a=b",
        "Connection": "X-Near",
        "X-Near": "1",
        "X-Far": "1",
        "Content-Type": "application/json",
    }
    async with counter(tmp_path) as desk, app_of(app) as url:
        desk.register(url)
        (one,) = desk.apps.all()
        listing = one.listing()
        assert (listing.app, listing.route, listing.in_use) == ("acme/upscaler", "up", 0)
        assert listing.price is not None
        assert listing.price.wei == FEE
        async with desk.post("/v1/up?scale=2&x=%2B", data=b'{"a":1}', headers=sent) as answer:
            assert await answer.json() == {"ok": True}
            assert answer.headers["X-Mine"] == "1"
            assert answer.headers["Limner-Fee"] == str(FEE)
            assert "Set-Cookie" not in answer.headers
            assert answer.headers["Server"] != "acme"
            # What it can ask for a receipt by.
            assert answer.headers["Limner-Job-Id"] == "attempt-0"
        ((request, body),) = seen
        assert body == b'{"a":1}'
        assert request.raw_path == "/base/v1/up?scale=2&x=%2B"
        told = {name.lower(): value for name, value in request.headers.items()}
        assert set(told) == {
            *("host", "content-length", "content-type", "x-far", "accept", "accept-encoding"),
            *("user-agent", "connection", "livepeer-runner-route", "livepeer-session-id"),
        }
        assert told["livepeer-runner-route"] == "up"
        assert await desk.ended(1) == [("delivered", "")]
        # A name of the app's own for the call: with the payer's it could ask for its receipt.
        assert told["livepeer-session-id"] == desk.reports[0].job.job_id
        assert desk.journal.earned == FEE
        receipt = await desk.journal.receipt("attempt-0")
        assert receipt is not None
        assert (receipt.state, receipt.charged) == ("delivered", FEE)
        assert dict(desk.calls.tally("up")) == {"delivered": 1}


@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE"])
async def test_any_method_and_any_content(tmp_path: Path, method: str) -> None:
    async def app(request: web.Request) -> web.Response:
        return web.Response(body=request.method.encode() * 1000, content_type="image/png")

    async with counter(tmp_path) as desk, app_of(app) as url:
        desk.register(url)
        async with desk.http.request(method, f"{desk.url}/apps/up/app") as answer:
            body = await answer.read()
            assert answer.content_type == "image/png"
            if method == "HEAD":
                assert answer.headers["Content-Length"] == "4000"
        assert body == (b"" if method == "HEAD" else method.encode() * 1000)


async def test_events_arrive_as_they_happen_and_are_charged_at_their_end(tmp_path: Path) -> None:
    go_on = asyncio.Event()

    async def app(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b"data: 1\n\n")
        await go_on.wait()
        await response.write(b"data: 2\n\n")
        return response

    async with counter(tmp_path) as desk, app_of(app) as url:
        desk.register(url)
        async with desk.post() as answer:
            assert await answer.content.readuntil(b"\n\n") == b"data: 1\n\n"
            assert desk.calls.is_under_way("attempt-0")
            assert desk.journal.earned == 0
            assert desk.journal.held == FEE
            go_on.set()
            assert await answer.read() == b"data: 2\n\n"
        # The end of the answer comes after the books were written.
        assert desk.journal.earned == FEE


async def test_a_compressed_answer_stays_as_it_is(tmp_path: Path) -> None:
    async def app(_request: web.Request) -> web.Response:
        response = web.Response(text="x" * 10_000)
        response.enable_compression(web.ContentCoding.gzip)
        return response

    async with counter(tmp_path) as desk, app_of(app) as url:
        desk.register(url)
        async with desk.post() as answer:
            assert answer.headers["Content-Encoding"] == "gzip"
            assert await answer.text() == "x" * 10_000


async def test_more_calls_than_a_runner_takes_are_refused(tmp_path: Path) -> None:
    go_on = asyncio.Event()

    async def app(_request: web.Request) -> web.Response:
        await go_on.wait()
        return web.Response(text="done")

    async with counter(tmp_path) as desk, app_of(app) as url:
        desk.register(url, capacity=1)
        first = asyncio.create_task(_text(desk))
        await until(lambda: bool(desk.calls.in_use))
        async with desk.post() as answer:
            assert answer.status == 503
            assert await answer.text() == "no capacity available for runner\n"
        go_on.set()
        assert await first == "done"
        assert await _text(desk) == "done"
        assert desk.journal.earned == 2 * FEE
        assert desk.apps.refusals == {"runner_busy": 1}


async def _text(desk: Counter) -> str:
    async with desk.post() as answer:
        text: str = await answer.text()
        return text


async def test_an_app_that_is_not_there_costs_nothing(tmp_path: Path) -> None:
    async with counter(tmp_path) as desk:
        desk.register("http://127.0.0.1:9")
        async with desk.post() as answer:
            assert answer.status == 502
            assert "unreachable" in await answer.text()
        assert await desk.ended(1) == [("failed", "unreachable")]
        assert desk.journal.earned == 0


async def test_who_has_an_answer_is_in_the_books_and_may_call_again(tmp_path: Path) -> None:
    async def app(_request: web.Request) -> web.Response:
        return web.Response(text="done")

    async with counter(tmp_path) as desk, app_of(app) as url:
        desk.register(url, capacity=1)
        for call in range(1, 30):
            assert await _text(desk) == "done"
            assert desk.journal.earned == call * FEE


HOSTILE = {
    "garbage": b"\x00\xff" * 100,
    "nothing": b"",
    "flood": b"HTTP/1.1 200 OK\r\n" + b"X: " + b"x" * 100_000 + b"\r\n\r\n",
    "many": b"HTTP/1.1 200 OK\r\n" + b"".join(b"X-%d: 1\r\n" % n for n in range(10_000)) + b"\r\n",
    "switch": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\nx",
    "status": b"HTTP/1.1 999999 OK\r\n\r\n",
    "length": b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
    "chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nx",
}


@pytest.mark.parametrize("kind", HOSTILE)
async def test_an_app_that_speaks_no_http_harms_nobody(tmp_path: Path, kind: str) -> None:
    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(HOSTILE[kind])
        writer.close()

    server = await asyncio.start_server(speak, "127.0.0.1", 0)
    async with counter(tmp_path) as desk, server:
        port = server.sockets[0].getsockname()[1]
        desk.register(f"http://127.0.0.1:{port}")
        try:
            async with desk.post() as answer:
                status = answer.status
                await answer.read()
        except aiohttp.ClientError:
            status = 0
        assert status in {0, 502}
        ((outcome, reason),) = await desk.ended(1)
        assert (outcome, reason) in {("failed", "unreachable"), ("failed", "broken_answer")}
        assert desk.journal.earned == 0


@pytest.mark.parametrize("status", [400, 500])
async def test_an_apps_own_error_is_handed_on_and_costs_nothing(
    tmp_path: Path, status: int
) -> None:
    async def app(_request: web.Request) -> web.Response:
        return web.json_response({"error": {"message": "no such scale"}}, status=status)

    async with counter(tmp_path) as desk, app_of(app) as url:
        desk.register(url)
        async with desk.post() as answer:
            assert answer.status == status
            assert (await answer.json())["error"]["message"] == "no such scale"
        assert await desk.ended(1) == [("failed", f"http_{status}")]
        assert desk.journal.earned == 0


@pytest.mark.parametrize("announced", [True, False], ids=["length", "chunks"])
async def test_an_answer_that_breaks_off_breaks_off_here_and_costs_nothing(
    tmp_path: Path,
    announced: bool,  # noqa: FBT001
) -> None:
    async def app(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        if announced:
            response.content_length = 1000
        await response.prepare(request)
        await response.write(b"half")
        assert request.transport is not None
        request.transport.abort()
        return response

    async with counter(tmp_path) as desk, app_of(app) as url:
        desk.register(url)
        with pytest.raises(aiohttp.ClientError):
            async with desk.post() as answer:
                await answer.read()
        assert await desk.ended(1) == [("failed", "broken_answer")]
        assert desk.journal.earned == 0


async def test_a_caller_who_goes_ends_the_call_and_owes_nothing(tmp_path: Path) -> None:
    ends: list[str] = []

    async def app(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"first")
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            ends.append("cancelled")
            raise
        return response

    async with counter(tmp_path) as desk, app_of(app) as url:
        desk.register(url)
        async with desk.post() as answer:
            assert await answer.content.read(5) == b"first"
            answer.close()
        assert await desk.ended(1) == [("cancelled", "")]
        await until(lambda: bool(ends))
        assert desk.journal.earned == 0


async def test_an_app_that_takes_too_long_is_left(tmp_path: Path) -> None:
    async def app(_request: web.Request) -> web.Response:
        await asyncio.sleep(60)
        return web.Response()

    async with counter(tmp_path, call_seconds=0.05) as desk, app_of(app) as url:
        desk.register(url)
        async with desk.post() as answer:
            assert answer.status == 502
        assert await desk.ended(1) == [("failed", "timeout")]


async def test_an_app_sends_nobody_of_ours_elsewhere(tmp_path: Path) -> None:
    asked: list[str] = []

    async def app(request: web.Request) -> web.Response:
        asked.append(request.path)
        raise web.HTTPFound("/base/elsewhere")

    async with counter(tmp_path) as desk, app_of(app) as url:
        desk.register(url)
        async with desk.post(allow_redirects=False) as answer:
            assert answer.status == 302
        assert asked == ["/base"]


async def test_an_app_that_moves_to_a_forbidden_address_is_not_called(tmp_path: Path) -> None:
    async with counter(tmp_path) as desk:
        # Past the check at registration, as a name would be that means something else by now.
        desk.register("http://169.254.169.254/latest")
        async with desk.post() as answer:
            assert answer.status == 502
        desk.register("http://[::1]:9", "up")
        async with desk.post() as answer:
            assert answer.status == 502
        desk.register("http://0:9", "up")
        async with desk.post() as answer:
            assert answer.status == 502
        assert await desk.ended(3) == [
            ("failed", "forbidden_address"),
            ("failed", "forbidden_address"),
            ("failed", "unreachable"),
        ]


async def test_a_path_out_of_the_app_is_refused(tmp_path: Path) -> None:
    async with counter(tmp_path) as desk:
        desk.register("http://127.0.0.1:9/base")
        async with desk.post("/a%2F..%2F..%2Fadmin") as answer:
            assert answer.status == 400
        assert not desk.reports


async def test_a_payment_that_does_not_do_reaches_no_app(tmp_path: Path) -> None:
    async def app(_request: web.Request) -> web.Response:
        raise AssertionError("nobody paid for this")

    async def refused() -> Credit:
        raise PaymentRefusedError("invalid ticket")

    async def nothing() -> Credit:
        return Credit(ALICE, Fraction(FEE - 1), 1)

    async with counter(tmp_path, overdraft=Wei(0)) as desk, app_of(app) as url:
        desk.register(url)
        desk.pay = refused
        async with desk.post() as answer:
            assert (answer.status, await answer.text()) == (400, "invalid ticket\n")
        desk.pay = nothing
        async with desk.post() as answer:
            assert (answer.status, await answer.text()) == (400, "Insufficient balance\n")
        assert await desk.ended(2) == [("refused", "payment")] * 2
        assert desk.journal.earned == 0


async def test_an_attempt_counts_once(tmp_path: Path) -> None:
    async def app(_request: web.Request) -> web.Response:
        return web.Response(text="done")

    async with counter(tmp_path) as desk, app_of(app) as url:
        desk.register(url)
        assert await _text(desk) == "done"
        async with desk.post(headers={"Attempt": "attempt-0"}) as answer:
            assert answer.status == 409
        assert desk.journal.earned == FEE


async def test_a_reader_who_waits_makes_the_app_wait(tmp_path: Path) -> None:
    written = 0

    async def app(request: web.Request) -> web.StreamResponse:
        nonlocal written
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(512):
            await response.write(b"x" * 2**18)
            written += 2**18
        return response

    async with counter(tmp_path) as desk, app_of(app) as url:
        desk.register(url)
        async with desk.post() as answer:
            before = -1
            while written != before:
                before = written
                await asyncio.sleep(0.2)
            # Of 128 MiB, what sockets and buffers on the way hold.
            assert written < 48 * 2**20
            assert len(await answer.read()) == 512 * 2**18
        assert await desk.ended(1) == [("delivered", "")]


async def test_a_node_that_stops_tells_who_waits_and_cuts_who_listens(tmp_path: Path) -> None:
    async def app(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        if request.path.endswith("/started"):
            await response.prepare(request)
            await response.write(b"first")
        await asyncio.sleep(60)
        return response

    async with counter(tmp_path) as desk, app_of(app) as url:
        desk.register(url)
        async with desk.post("/started") as listening:
            await listening.content.read(5)
            waiting = asyncio.create_task(_status(desk))
            await until(lambda: desk.calls.in_use.get("up", 0) == 2)
            await desk.calls.stop(0)
            assert await waiting == 503
            with pytest.raises(aiohttp.ClientError):
                await listening.read()
        assert await desk.ended(2) == [("interrupted", "")] * 2
        async with desk.post() as answer:
            assert answer.status == 503


async def _status(desk: Counter) -> int:
    async with desk.post() as answer:
        status: int = answer.status
        return status


async def test_what_is_not_sold_or_not_ready_is_not_found(tmp_path: Path) -> None:
    async with counter(tmp_path) as desk:
        desk.register("http://127.0.0.1:9", "hourly", asked=Asked(Fraction(1), "hour"))
        desk.register("http://127.0.0.1:9", "loading", status="loading")
        desk.register("http://127.0.0.1:9", "session", mode="persistent")
        assert list(desk.apps.all()) == []
        assert all(desk.apps.find(one) is None for one in ("hourly", "loading", "session", "x"))
