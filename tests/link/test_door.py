"""Who gets in: named accounts that prove themselves over the gateway's own certificate, in time."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from gateway.link.certificate import own_certificate, server_context
from gateway.link.door import Door, Doorkeeping, open_door
from gateway.link.switchboard import Switchboard
from network.errors import ConfigError
from network.identity import KeySigner, checksum
from network.link.frames import SUBPROTOCOL, Frame, Kind, encode
from network.link.handshake import Challenge, Claim, Terms, Welcome, read, write
from network.runtime.certificates import CertificateFiles, ServedCertificate
from network.runtime.clock import SystemClock
from network.units import Address
from tests.gateway.test_app import serving
from tests.gateway.waiting import until, until_async
from tests.link.linked import GATEWAY_KEY, NODE_KEYS, linked_node, taking_links
from tests.node.fakes import FakeEngine
from tests.node.nodes import running_node

NODE, STRANGER = NODE_KEYS[0], KeySigner(b"\x55" * 32)


def unverified() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def shown_from(folder: Path) -> tuple[ssl.SSLContext, bytes]:
    pem = own_certificate(folder, SystemClock().now())
    return server_context(pem, pem)


@dataclass
class Hall:
    """A door, and what got through it."""

    url: str
    port: int
    certificate: bytes
    switchboard: Switchboard
    pushed: list[tuple[Address, bytes]]


@asynccontextmanager
async def hall(
    folder: Path, keeping: Doorkeeping | None = None, served: ServedCertificate | None = None
) -> AsyncIterator[Hall]:
    keeping = keeping or Doorkeeping(silence_seconds=5)
    switchboard = Switchboard()
    pushed: list[tuple[Address, bytes]] = []
    if served is None:
        tls, certificate = await asyncio.to_thread(shown_from, folder)
    else:
        tls, certificate = served.context, served.current.fingerprint
    door = Door(
        switchboard,
        signer=GATEWAY_KEY,
        shown=(lambda _: certificate) if served is None else served.shown_on,
        nodes=frozenset({NODE.address}),
        keeping=keeping,
        clock=SystemClock(),
        on_push=lambda joined, body: pushed.append((joined.account, body)),
    )
    opened = open_door(door, switchboard, host="127.0.0.1", port=0, tls=tls, keeping=keeping)
    async with opened as port:
        url = f"wss://127.0.0.1:{port}/link"
        yield Hall(url, port, certificate, switchboard, pushed)


@asynccontextmanager
async def knocking(url: str) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    connector = aiohttp.TCPConnector(ssl=unverified())
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        session.ws_connect(url, protocols=[SUBPROTOCOL]) as websocket,
    ):
        yield websocket


async def claim_for(
    websocket: aiohttp.ClientWebSocketResponse,
    certificate: bytes,
    signer: KeySigner = NODE,
    account: KeySigner = NODE,
) -> str:
    challenge = read(Challenge, (await websocket.receive()).data)
    terms = Terms(account.address, GATEWAY_KEY.address, "ab" * 32, challenge.nonce, certificate)
    proof = terms.proof("node", signer)
    return write(Claim(checksum(account.address), "ab" * 32, proof))


async def ending(websocket: aiohttp.ClientWebSocketResponse) -> tuple[int | None, str]:
    """How the gateway closed it."""
    message = await websocket.receive()
    return websocket.close_code, str(message.extra or "")


async def test_who_proves_a_named_account_is_linked(tmp_path: Path) -> None:
    async with hall(tmp_path) as open_hall, knocking(open_hall.url) as websocket:
        await websocket.send_str(await claim_for(websocket, open_hall.certificate))
        welcome = await websocket.receive()
        assert welcome.type is aiohttp.WSMsgType.TEXT
        await until(lambda: len(open_hall.switchboard) == 1)
        await websocket.send_bytes(encode(Frame(Kind.PUSH, data=b"news")))
        await until(lambda: open_hall.pushed == [(NODE.address, b"news")])


@pytest.mark.parametrize(
    ("signer", "account", "why"),
    [
        (STRANGER, NODE, "another account"),
        (STRANGER, STRANGER, "does not name"),
        (NODE, STRANGER, "does not name"),
    ],
)
async def test_nobody_else_is(
    tmp_path: Path, signer: KeySigner, account: KeySigner, why: str
) -> None:
    async with hall(tmp_path) as open_hall, knocking(open_hall.url) as websocket:
        certificate = open_hall.certificate
        await websocket.send_str(await claim_for(websocket, certificate, signer, account))
        code, said = await ending(websocket)
        assert code == aiohttp.WSCloseCode.POLICY_VIOLATION
        assert why in said
        assert len(open_hall.switchboard) == 0


async def test_a_claim_over_another_certificate_is_refused(tmp_path: Path) -> None:
    async with hall(tmp_path) as open_hall, knocking(open_hall.url) as websocket:
        await websocket.send_str(await claim_for(websocket, bytes(32)))
        assert (await ending(websocket))[0] == aiohttp.WSCloseCode.POLICY_VIOLATION


async def test_a_renewed_certificate_is_the_one_that_is_signed_from_then_on(
    tmp_path: Path,
) -> None:
    older, newer = tmp_path / "older", tmp_path / "newer"
    for folder in (older, newer):
        folder.mkdir()
        await asyncio.to_thread(own_certificate, folder, SystemClock().now())
    pem = older / "link.pem"
    files = CertificateFiles(pem, pem)
    served = await ServedCertificate.open(files, ["http/1.1"], SystemClock())
    async with hall(tmp_path, served=served) as open_hall:
        async with knocking(open_hall.url) as before:
            await asyncio.to_thread((newer / "link.pem").replace, pem)
            await served.check()
            assert served.current.fingerprint != open_hall.certificate
            # Who was shown the old one signs the old one.
            await before.send_str(await claim_for(before, open_hall.certificate))
            assert (await before.receive()).type is aiohttp.WSMsgType.TEXT
        async with knocking(open_hall.url) as after:
            await after.send_str(await claim_for(after, served.current.fingerprint))
            assert (await after.receive()).type is aiohttp.WSMsgType.TEXT
        async with knocking(open_hall.url) as late:
            await late.send_str(await claim_for(late, open_hall.certificate))
            assert (await ending(late))[0] == aiohttp.WSCloseCode.POLICY_VIOLATION


async def test_a_recorded_claim_is_refused(tmp_path: Path) -> None:
    async with hall(tmp_path) as open_hall:
        async with knocking(open_hall.url) as websocket:
            recorded = await claim_for(websocket, open_hall.certificate)
            await websocket.send_str(recorded)
            assert (await websocket.receive()).type is aiohttp.WSMsgType.TEXT
        async with knocking(open_hall.url) as again:
            await again.receive()
            await again.send_str(recorded)
            assert (await ending(again))[0] == aiohttp.WSCloseCode.POLICY_VIOLATION


@pytest.mark.parametrize("said", ["", "{}", "x" * 3000, b"\x01binary"])
async def test_whatever_else_a_stranger_says_ends_it(tmp_path: Path, said: str | bytes) -> None:
    async with hall(tmp_path) as open_hall, knocking(open_hall.url) as websocket:
        await websocket.receive()
        if isinstance(said, bytes):
            await websocket.send_bytes(said)
        else:
            await websocket.send_str(said)
        assert (await ending(websocket))[0] == aiohttp.WSCloseCode.POLICY_VIOLATION


async def test_a_message_larger_than_any_frame_ends_it(tmp_path: Path) -> None:
    async with hall(tmp_path) as open_hall, knocking(open_hall.url) as websocket:
        await websocket.receive()
        await websocket.send_bytes(bytes(200_000))
        # What is unread when it closes makes TCP break off; whether the code got through is chance.
        too_big = {aiohttp.WSCloseCode.MESSAGE_TOO_BIG, aiohttp.WSCloseCode.ABNORMAL_CLOSURE}
        assert (await ending(websocket))[0] in too_big
        assert len(open_hall.switchboard) == 0


async def test_strangers_who_say_nothing_are_cut(tmp_path: Path) -> None:
    keeping = Doorkeeping(handshake_seconds=0.5)
    async with hall(tmp_path, keeping) as open_hall:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", open_hall.port, ssl=unverified()
        )
        async with knocking(open_hall.url) as websocket:
            await websocket.receive()
            # It closes both: the one that never asked, and the one that never claims.
            assert (await websocket.receive()).type is not aiohttp.WSMsgType.TEXT
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await reader.readexactly(1)
        writer.close()


async def test_a_crowd_of_strangers_does_not_keep_a_node_out(tmp_path: Path) -> None:
    keeping = Doorkeeping(handshake_seconds=30, most_strangers=4)
    async with hall(tmp_path, keeping) as open_hall:
        crowd = [
            await asyncio.open_connection("127.0.0.1", open_hall.port, ssl=unverified())
            for _ in range(8)
        ]
        async with knocking(open_hall.url) as websocket:
            await websocket.send_str(await claim_for(websocket, open_hall.certificate))
            assert (await websocket.receive()).type is aiohttp.WSMsgType.TEXT
            cut = 0
            for reader, _ in crowd:
                try:
                    async with asyncio.timeout(0.2):
                        await reader.read(1)
                    cut += 1
                except ConnectionError:
                    cut += 1
                except TimeoutError:
                    pass
            assert cut == 5
            await until(lambda: len(open_hall.switchboard) == 1)
        for _, writer in crowd:
            writer.transport.abort()


async def test_a_node_that_comes_again_takes_the_place_of_its_old_link(tmp_path: Path) -> None:
    async with hall(tmp_path) as open_hall, knocking(open_hall.url) as old:
        await old.send_str(await claim_for(old, open_hall.certificate))
        await old.receive()
        async with knocking(open_hall.url) as new:
            await new.send_str(await claim_for(new, open_hall.certificate))
            await new.receive()
            assert "anew" in (await ending(old))[1]
            assert len(open_hall.switchboard) == 1
            transport, _ = open_hall.switchboard.connect(NODE.address, asyncio.Protocol)
            assert (await new.receive()).data == encode(Frame(Kind.OPEN, 1))
            transport.abort()


async def test_who_breaks_the_rules_is_cut(tmp_path: Path) -> None:
    async with hall(tmp_path) as open_hall, knocking(open_hall.url) as websocket:
        await websocket.send_str(await claim_for(websocket, open_hall.certificate))
        await websocket.receive()
        await websocket.send_bytes(encode(Frame(Kind.DATA, 7, b"of no stream")))
        assert "rules" in (await ending(websocket))[1]
        await until(lambda: len(open_hall.switchboard) == 0)


async def test_what_is_no_websocket_learns_nothing(tmp_path: Path) -> None:
    async with (
        hall(tmp_path) as open_hall,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=unverified())) as session,
    ):
        for path in ("/link", "/", "/text-to-image"):
            async with session.get(f"https://127.0.0.1:{open_hall.port}{path}") as answer:
                assert answer.status == 404


@asynccontextmanager
async def impostor(
    folder: Path, handle: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> AsyncIterator[str]:
    """Somebody else with a certificate of his own."""
    await asyncio.to_thread(folder.mkdir)
    tls, _ = await asyncio.to_thread(shown_from, folder)
    app = web.Application()
    app.router.add_get("/link", handle)
    runner = web.AppRunner(app, shutdown_timeout=0)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
    await site.start()
    try:
        yield f"wss://127.0.0.1:{runner.addresses[0][1]}/link"
    finally:
        await runner.cleanup()


async def test_a_man_in_the_middle_gets_nothing_out_of_either(tmp_path: Path) -> None:
    """He passes every word on, and both ends refuse: each has signed another certificate."""
    heard: list[str] = []

    async with serving(taking_links(tmp_path / "gateway")) as stage:

        async def relay(request: web.Request) -> web.StreamResponse:
            near = web.WebSocketResponse(protocols=[SUBPROTOCOL])
            await near.prepare(request)
            async with knocking(stage.gateway.link_url) as far:
                await near.send_str((await far.receive()).data)
                claim = (await near.receive()).data
                heard.append(claim)
                await far.send_str(claim)
                await ending(far)
                heard.append(f"refused with {far.close_code}")
            await near.close()
            return near

        async with (
            impostor(tmp_path / "middle", relay) as url,
            linked_node(tmp_path / "node", url, FakeEngine()),
        ):
            await until(lambda: "refused with 1008" in heard)
            assert not any(one["linked"] for one in (await stage.status())["links"])


async def test_a_node_serves_no_gateway_but_the_one_it_was_told(tmp_path: Path) -> None:
    async with serving(taking_links(tmp_path / "gateway")) as stage:
        wrong = [{"url": stage.gateway.link_url, "address": checksum(STRANGER.address)}]
        async with running_node(tmp_path / "node", FakeEngine(), gateways=wrong) as node:

            async def has_failed() -> bool:
                async with stage.client.get(f"{node.admin_url}/status") as answer:
                    (link,) = (await answer.json())["links"]
                return not link["linked"] and link["problem"] != "not linked yet"

            await until_async(has_failed)


async def test_a_gateway_that_cannot_prove_its_account_gets_no_job_done(tmp_path: Path) -> None:
    """It believes every claim, and opens streams; the node hangs up before it takes any."""
    opened: list[aiohttp.WSMessage] = []

    async def believe(request: web.Request) -> web.StreamResponse:
        websocket = web.WebSocketResponse(protocols=[SUBPROTOCOL])
        await websocket.prepare(request)
        await websocket.send_str(write(Challenge("cd" * 32)))
        claim = read(Claim, (await websocket.receive()).data)
        sentence = Terms(
            NODE.address, GATEWAY_KEY.address, claim.nonce, "cd" * 32, bytes(32)
        ).proof("gateway", STRANGER)
        await websocket.send_str(write(Welcome(sentence, 5.0)))
        await websocket.send_bytes(encode(Frame(Kind.OPEN, 1)))
        opened.append(await websocket.receive())
        return websocket

    async with (
        impostor(tmp_path / "impostor", believe) as url,
        linked_node(tmp_path / "node", url, FakeEngine()) as node,
        aiohttp.ClientSession() as client,
    ):

        async def is_refused() -> bool:
            async with client.get(f"{node.admin_url}/status") as answer:
                (link,) = (await answer.json())["links"]
            return "did not prove" in link["problem"]

        await until_async(is_refused)
        assert [message.type for message in opened[:1]] == [aiohttp.WSMsgType.CLOSE]


async def test_a_node_that_demands_an_authority_takes_no_other_certificate(tmp_path: Path) -> None:
    async with serving(taking_links(tmp_path / "gateway")) as stage:
        address = checksum(GATEWAY_KEY.address)
        strict = [{"url": stage.gateway.link_url, "address": address, "verify_tls": True}]
        async with running_node(tmp_path / "node", FakeEngine(), gateways=strict) as node:

            async def is_refused() -> bool:
                async with stage.client.get(f"{node.admin_url}/status") as answer:
                    (link,) = (await answer.json())["links"]
                return "CERTIFICATE_VERIFY_FAILED" in link["problem"]

            await until_async(is_refused)


async def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    async with hall(tmp_path) as open_hall:
        links = {"listen": f"127.0.0.1:{open_hall.port}", "nodes": []}
        with pytest.raises(ConfigError, match=r"links\.listen"):
            async with serving(taking_links(tmp_path / "gateway", links=links)):
                pass
