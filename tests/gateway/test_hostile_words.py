"""What orchestrators say beside their images, when they mean ill: of themselves, of jobs, of money."""

import asyncio
import base64
import socket
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest
from typing_extensions import override
from yarl import URL

from gateway.orchestrators.answers import OrchestratorFailed, OrchestratorUnreachable
from gateway.orchestrators.image_files import check_jpeg
from gateway.orchestrators.job_events import Job, Preview
from gateway.orchestrators.reach import public_addresses
from gateway.orchestrators.receipts import NoReceipt, ReceiptDesk
from network.wire.codec import decode_orchestrator_request, encode_orchestrator_info
from network.wire.generated import lp_rpc_pb2 as pb
from tests.gateway.hostile_answers import PLAIN, begins, draws, redirects, sends
from tests.gateway.hostile_orchestrator import (
    Attack,
    Call,
    Canary,
    Hostile,
    attacking,
    buffer_little,
    listening,
)
from tests.gateway.pictures import jpeg, jpeg_that_says
from tests.gateway.routing import Desk, Key, open_desk, request_for, until
from tests.gateway.stub_orchestrator import StubModel, StubOrchestrator, running

#: A request's images and steps.
JOB = Job(1, 5)


def dear() -> StubOrchestrator:
    return StubOrchestrator({"m": StubModel(Fraction(1000))})


async def delivered_by(desk: Desk) -> str:
    result = await desk.dispatcher.run("r", Key(), request_for())
    await result.settled
    return result.orchestrator


# Of itself


@dataclass
class Liar(StubOrchestrator):
    """Says of itself what `change` makes of the truth."""

    change: Callable[[Any], None] = lambda _: None

    @override
    async def _get(self, stream: Any) -> None:
        request = decode_orchestrator_request(await stream.recv_message())
        told = pb.OrchestratorInfo.FromString(encode_orchestrator_info(self._information(request)))
        self.change(told)
        await stream.send_message(told.SerializeToString())


def says(**fields: Any) -> Callable[[Any], None]:
    def change(told: Any) -> None:
        for name, value in fields.items():
            setattr(told, name, value)

    return change


def _many_models(told: Any) -> None:
    models = told.capabilities.constraints.PerCapability[27].models
    for number in range(20_000):
        models[f"model-{number}"].warm = True


def _many_constraints(told: Any) -> None:
    for number in range(20_000):
        told.capabilities.constraints.PerCapability[number].models["m"].warm = True


def _many_capacities(told: Any) -> None:
    for number in range(100_000):
        told.capabilities.capacities[number] = 1


def _many_prices(told: Any) -> None:
    for number in range(20_000):
        told.capabilities_prices.add(
            pricePerUnit=1, pixelsPerUnit=1, capability=27, constraint=f"model-{number}"
        )


def _much_hardware(told: Any) -> None:
    for _ in range(20_000):
        told.hardware.add()


def _priced(per_unit: int, pixels: int) -> Callable[[Any], None]:
    def change(told: Any) -> None:
        told.price_info.pricePerUnit, told.price_info.pixelsPerUnit = per_unit, pixels
        for entry in told.capabilities_prices:
            entry.pricePerUnit, entry.pixelsPerUnit = per_unit, pixels

    return change


LIES: dict[str, Callable[[Any], None]] = {
    "models without end": _many_models,
    "capabilities without end": _many_constraints,
    "capacities without end": _many_capacities,
    "prices without end": _many_prices,
    "nodes without end": lambda told: told.nodes.extend(["x"] * 100_000),
    "hardware without end": _much_hardware,
    "an endless address": says(transcoder="http://" + "a" * 900_000),
    "a megabyte of bits": lambda told: told.capabilities.bitstring.extend([2**64 - 1] * 100_000),
    "a negative price": _priced(-5, 1),
    "a price of less than nothing": _priced(5, -1),
    "a price for no pixels": _priced(5, 0),
    "a price beyond all money": _priced(2**63 - 1, 1),
    "an address of a file": says(transcoder="file:///etc/passwd"),
    "an address of a script": says(transcoder="javascript:alert(1)"),
    "an address with a password": says(transcoder="http://user:secret@127.0.0.1:9/"),
    "an address with a header in it": says(transcoder="http://127.0.0.1:9/\r\nX-Evil: 1\r\n"),
    "an address with a query": says(transcoder="http://127.0.0.1:9/?a="),
    "an account that is none": says(address=b"x" * 5000),
}


@pytest.mark.parametrize("name", LIES)
async def test_lies_about_itself_bring_no_work(tmp_path: Path, name: str) -> None:
    liar, good = Liar(change=LIES[name]), dear()
    async with running(liar), running(good), open_desk(tmp_path, [liar, good]) as desk:
        assert await delivered_by(desk) == good.uri
        assert not liar.seen
        state = next(one for one in desk.directory.states() if one.uri == liar.uri)
        assert len(state.problem) < 500
        assert state.problem.isprintable()
        assert state.offer is None or len(state.offer.models) <= 1


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4) + payload


SETTINGS = _frame(4, 0, 0, b"")
FLOODS: dict[str, tuple[bytes, bytes]] = {
    "no protocol": (b"", bytes(65536)),
    "HTTP/1.1": (b"HTTP/1.1 200 OK\r\n", b"a: b\r\n" * 999),
    "headers that go on": (
        SETTINGS + _frame(1, 0, 1, b"\x00\x01a\x01b"),
        _frame(9, 0, 1, b"\x00\x01a\x7f\x81\x7f" + b"b" * 255) * 99,
    ),
    "data that nobody asked for": (SETTINGS, _frame(0, 0, 1, bytes(16_000)) * 9),
    "a frame larger than agreed": (SETTINGS + b"\xff\xff\xff\0\0\0\0\0\1", bytes(65536)),
    "pushed streams": (SETTINGS, _frame(5, 4, 1, b"\0\0\0\2\x82") * 99),
}


@pytest.mark.parametrize("name", FLOODS)
async def test_a_flood_in_place_of_an_answer_is_hung_up_on(tmp_path: Path, name: str) -> None:
    first, then = FLOODS[name]
    sent = ended = 0

    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent, ended
        try:
            buffer_little(writer)
            writer.write(first)
            await reader.read(1)
            while True:
                writer.write(then)
                await writer.drain()
                sent += len(then)
                if writer.is_closing():
                    return
        except ConnectionError:
            return
        finally:
            ended += 1
            writer.close()

    good = dear()
    async with (
        listening(flood) as url,
        running(good),
        open_desk(tmp_path, [url, good], call_timeout=0.5) as desk,
    ):
        assert await delivered_by(desk) == good.uri
        await until(lambda: ended)
        assert sent / ended < 4 * 2**20
        state = next(one for one in desk.directory.states() if one.uri == url)
        assert state.offer is None
        assert state.problem


# Where it leads


def resolving(monkeypatch: pytest.MonkeyPatch, **names: str) -> None:
    """Names below `.example`, as a name server of an attacker's would have them."""
    real = asyncio.BaseEventLoop.getaddrinfo

    async def getaddrinfo(loop: Any, host: Any, port: Any, **more: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else str(host)
        known = names.get(name.removesuffix(".example")) if name.endswith(".example") else name
        if known is None:
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        return await real(loop, known, port, **more)

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", getaddrinfo)


@pytest.mark.parametrize("host", ["chosen.example", "2130706433", "0x7f.1", "127.1"])
async def test_jobs_go_into_no_private_network_whatever_it_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    """An orchestrator of the public net names a host that turns out to be one beside the gateway."""
    resolving(monkeypatch, listed="127.0.0.1", chosen="127.0.0.1")
    evil, good, canary = StubOrchestrator(), dear(), Canary()
    async with running(evil), running(good), listening(canary.serve) as url:
        evil.transcoder = url.replace("127.0.0.1", host)
        listed = evil.uri.replace("127.0.0.1", "listed.example")
        async with open_desk(tmp_path, [listed, good]) as desk:
            assert await delivered_by(desk) == good.uri
            state = next(one for one in desk.directory.states() if one.uri == listed)
            assert state.failures == 1
            assert await desk.client.progress(state.offer, "a" * 32) is None  # type: ignore[arg-type]
    assert canary.visits == 0


async def test_its_own_name_may_lead_where_the_operator_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolving(monkeypatch, listed="127.0.0.1")
    stub = StubOrchestrator()
    async with running(stub):
        stub.transcoder = stub.http_url.replace("127.0.0.1", "listed.example")
        listed = stub.uri.replace("127.0.0.1", "listed.example")
        async with open_desk(tmp_path, [listed]) as desk:
            assert await delivered_by(desk) == listed


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "10.1.2.3", "192.168.1.1", "172.16.0.1", "169.254.169.254", "0.0.0.0"),  # noqa: S104
        *("100.64.0.1", "::1", "fe80::1", "fd00::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::"),
    ],
)
async def test_no_private_address_is_taken_from_a_name_server(
    monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    resolving(monkeypatch, chosen=address)
    with pytest.raises(OrchestratorUnreachable, match="leads to a private address"):
        await public_addresses("chosen.example", 80)


async def test_a_public_address_is(monkeypatch: pytest.MonkeyPatch) -> None:
    resolving(monkeypatch, chosen="8.8.8.8")
    assert await public_addresses("chosen.example", 80) == ["8.8.8.8"]


# Of jobs


def news(kind: str, **fields: Any) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), orjson.dumps(fields))


def preview(picture: bytes, image: int = 0, step: int = 1) -> bytes:
    return news("preview", image=image, step=step, jpeg=base64.b64encode(picture).decode())


_STREAM = "HTTP/1.1 200 OK\nContent-Type: text/event-stream\n\n"


def once(event: bytes) -> Attack:
    async def rest(call: Call) -> None:
        await call.send(event)
        await call.hang()

    return begins(_STREAM, rest)


def forever(event: bytes) -> Attack:
    return begins(_STREAM, lambda call: call.endless(event))


NEWS: dict[str, Attack] = {
    "previews without end": forever(preview(jpeg(8, 8)) * 9),
    "progress without end": forever(news("progress", done=1, total=5) * 99),
    "places without end": forever((news("queued", position=1) + news("queued", position=2)) * 99),
    "signs of life without end": forever(b":\n\n" * 999),
    "unheard events without end": forever(b"event: x\ndata: y\n\n" * 999),
    "one event without end": forever(b"data: " + b"x" * 9999),
    "headers without end": begins("HTTP/1.1 200 OK\n", lambda call: call.endless(b"a: b\r\n" * 9)),
    "a huge preview": once(preview(jpeg(8, 8)[:-2] + bytes(2**20) + b"\xff\xd9")),
    "a preview that says it is huge": once(preview(jpeg_that_says(65_500, 65_500))),
    "a preview that is a page": once(preview(b"<script>alert(1)</script>")),
    "a preview that is a PNG": once(preview(PLAIN)),
    "a preview of another image": once(preview(jpeg(8, 8), image=1)),
    "a preview of a negative image": once(preview(jpeg(8, 8), image=-1)),
    "a preview of a step that is not taken": once(preview(jpeg(8, 8), step=10**9)),
    "more done than there is": once(news("progress", done=9, total=5)),
    "more to do than was asked": once(news("progress", done=1, total=10**15)),
    "a place beyond all numbers": once(b'event: queued\ndata: {"position":%b}\n\n' % (b"9" * 999)),
    "deep JSON": once(b"event: queued\ndata: " + b"[" * 50_000 + b"\n\n"),
    "NaN": once(b'event: queued\ndata: {"position":NaN}\n\n'),
    "a page": sends(b"<html>", media="text/html"),
    "a redirect": redirects(lambda call: call.canary),
}


@pytest.mark.parametrize("name", NEWS)
async def test_false_news_of_a_job_are_told_to_nobody_and_do_not_touch_it(
    tmp_path: Path, name: str
) -> None:
    over = asyncio.Event()

    async def attack(call: Call) -> None:
        if call.method == "POST":
            await over.wait()
            await call.answer(b"no", status="500 Internal Server Error")
        elif call.path.endswith("/events"):
            try:
                await NEWS[name](call)
            finally:
                over.set()
        else:
            await call.answer(b"{}", "Connection: close", status="404 Not Found")

    canary, good = Canary(), dear()
    evil = Hostile("m", attack)
    async with (
        listening(canary.serve) as evil.canary,
        attacking([evil]),
        running(good),
        open_desk(tmp_path, [evil.stub, good]) as desk,
    ):
        running_one = asyncio.create_task(delivered_by(desk))
        await until(lambda: evil.calls)
        async with aclosing(desk.dispatcher.watching.watch("r", "key")) as told:
            heard = [one async for one in told]
        assert await running_one == good.uri
    assert canary.visits == 0
    # Polls of where it stands come beside; there are few, for it is over soon.
    assert len(heard) <= JOB.most_news + 100
    for one in heard:
        assert JOB.holds(one)
        if isinstance(one, Preview):
            check_jpeg(one.jpeg, 512)
    assert evil.sent < 8 * 2**20


# Of money


def receipt(**fields: Any) -> Attack:
    told = {"credited": "1/2", "charged": "0", "state": "closed", **fields}
    return sends(orjson.dumps(told))


RECEIPTS: dict[str, Attack] = {
    "no fraction": receipt(credited="1"),
    "a division by nothing": receipt(credited="1/0"),
    "a negative credit": receipt(credited="-1/2"),
    "a credit beyond all numbers": receipt(credited="9" * 101 + "/1"),
    "a negative charge": receipt(charged="-1"),
    "a charge beyond all money": receipt(charged="9" * 79),
    "NaN": receipt(charged="NaN"),
    "numbers in place of text": receipt(charged=5),
    "deep JSON": sends(b"[" * 5000),
    "nothing": sends(b""),
    "a page": sends(b"<html>", media="text/html"),
    "a redirect": redirects(lambda call: call.canary),
    "a body without end": begins(
        "HTTP/1.1 200 OK\n\n", lambda call: call.endless(b'{"credited":"' + b"9" * 65536)
    ),
    "headers without end": begins("HTTP/1.1 200 OK\n", lambda call: call.endless(b"a: b\r\n" * 9)),
}


@pytest.mark.parametrize("name", RECEIPTS)
async def test_a_receipt_that_cannot_be_is_none(name: str) -> None:
    canary = Canary()
    evil = Hostile("m", RECEIPTS[name])
    async with (
        listening(canary.serve) as evil.canary,
        listening(evil.serve) as url,
        aiohttp.ClientSession() as session,
    ):
        evil.stub.transcoder = url
        try:
            told = await ReceiptDesk(session).ask(URL(url) / "jobs/x/receipt")
        except OrchestratorFailed:
            told = NoReceipt.NOT_KEPT
        assert told is NoReceipt.NOT_KEPT
        await until(lambda: evil.calls)
    assert canary.visits == 0
    assert evil.sent < 4 * 2**20


async def test_with_none_but_attackers_the_client_is_told_so(tmp_path: Path) -> None:
    evil = Hostile("m", draws(b"<html>"))
    async with attacking([evil]), open_desk(tmp_path, [evil.stub]) as desk:
        with pytest.raises(Exception, match="an image is not a PNG"):
            await delivered_by(desk)
