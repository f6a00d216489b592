"""What a stranger sees: at a node of ours, at one that misbehaves, and where nothing is."""

import asyncio
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from network.capabilities import ModelConstraint, node_capabilities
from network.findings import Finding, Verdict, worst
from network.identity import KeySigner
from network.reachability.calls import CallError, Page, Terms, get
from network.reachability.judgement import (
    Expectation,
    judge_account,
    judge_discovery,
    judge_health,
    judge_terms,
    judge_uri,
)
from network.reachability.stranger import look
from network.runtime.clock import SystemClock
from network.units import Address
from network.wire.codec import OrchestratorInfo
from tests.gateway.stub_orchestrator import InfoBehaviour, StubOrchestrator, running
from tests.network.reachability.certificates import HOUR, tls_server, write_certificate
from tests.node.fakes import MODEL
from tests.node.nodes import GATEWAY_KEY, NODE_KEY, running_node

STRANGER = KeySigner(b"\x33" * 32)
URI = "https://node.example:8936"


async def seen(uri: str, expected: Expectation) -> Mapping[str, Finding]:
    found = await look(uri, expected, asker=STRANGER, version="0.1.0", clock=SystemClock())
    return {finding.what: finding for finding in found}


async def test_a_node_of_ours_is_seen_as_it_is(tmp_path: Path) -> None:
    async with running_node(tmp_path, listen="https://127.0.0.1:0") as node:
        found = await seen(node.url, Expectation(NODE_KEY.address, model_id=MODEL))
    # How fast terms come is the machine's, not the node's.
    untimed = [one for one in found.values() if not one.what.startswith("terms")]
    assert worst(untimed) in (Verdict.OK, Verdict.SKIP), found
    assert worst(found.values()) is not Verdict.FAIL
    assert list(found)[:7] == [
        "service URI",
        "name",
        "connection",
        "TLS",
        "certificate",
        "account",
        "terms",
    ]
    assert f"terms of {MODEL}" in found
    assert "self-signed, names 127.0.0.1" in found["certificate"].detail


async def test_clear_text_is_looked_at_without_tls(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node:
        found = await seen(node.url, Expectation(NODE_KEY.address))
    assert "TLS" not in found
    assert found["account"].verdict is Verdict.OK


async def test_another_orchestrator_behind_the_uri_is_noticed(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node:
        found = await seen(node.url, Expectation(GATEWAY_KEY.address))
    assert found["account"].verdict is Verdict.FAIL
    assert "another orchestrator is there" in found["account"].detail


async def test_a_node_for_named_gateways_refuses_strangers_as_it_should(tmp_path: Path) -> None:
    allowed = ["0x" + GATEWAY_KEY.address.hex()]
    async with running_node(tmp_path, allowed_gateways=allowed) as node:
        as_wanted = await seen(node.url, Expectation(NODE_KEY.address, is_restricted=True))
        by_mistake = await seen(node.url, Expectation(NODE_KEY.address))
    assert as_wanted["terms"].verdict is Verdict.OK
    assert "allowed_gateways" in as_wanted["terms"].detail
    assert by_mistake["terms"].verdict is Verdict.FAIL


async def test_where_nothing_listens_the_look_ends_there() -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
        found = await seen(f"https://127.0.0.1:{port}", Expectation(None))
    assert list(found) == ["service URI", "name", "connection"]
    assert found["connection"].verdict is Verdict.FAIL
    assert "does not answer" in found["connection"].detail


@pytest.mark.parametrize(
    ("uri", "what"),
    [("https://a..b:1", "name"), ("https://node.example:99999", "service URI")],
)
async def test_impossible_uris_are_a_finding(uri: str, what: str) -> None:
    found = await seen(uri, Expectation(None))
    assert found[what].verdict is Verdict.FAIL


async def test_an_expired_certificate_is_noticed_on_the_socket(tmp_path: Path) -> None:
    path = tmp_path / "old.pem"
    write_certificate(path, name="localhost", begins=-2 * HOUR, ends=-HOUR)
    async with tls_server(path, ["h2"]) as port:
        found = await seen(f"https://localhost:{port}", Expectation(None))
    assert found["certificate"].verdict is Verdict.FAIL
    assert "expired" in found["certificate"].detail
    assert found["account"].verdict is Verdict.FAIL
    assert found["discovery"].verdict is Verdict.FAIL


async def test_plain_http_where_tls_should_be_is_said(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node:
        found = await seen(node.url.replace("http://", "https://"), Expectation(None))
    assert found["TLS"].verdict is Verdict.FAIL
    assert "plain HTTP" in found["TLS"].advice


@pytest.mark.parametrize(
    ("info", "words"),
    [
        ("refuse", "gateways are refused: Invalid orchestrator request: no"),
        ("garbage", "no OrchestratorInfo"),
        ("huge", "no gRPC reply"),
    ],
)
async def test_bad_terms_are_told_as_they_are(info: InfoBehaviour, words: str) -> None:
    async with running(StubOrchestrator(info=info)) as stub:
        found = await seen(stub.uri, Expectation(None))
    assert found["terms"].verdict is Verdict.FAIL
    assert words in found["terms"].detail
    # It echoes the ping: no signature.
    assert "its signature is none" in found["account"].detail


async def test_an_orchestrator_that_sends_gateways_elsewhere_is_noticed() -> None:
    async with running(StubOrchestrator()) as stub:
        found = await seen(stub.uri, Expectation(None))
        assert stub.http_url in found["terms"].detail
    assert found["terms"].verdict is Verdict.WARN
    # Its gRPC port speaks no HTTP/1.1.
    assert found["health"].verdict is Verdict.FAIL


@asynccontextmanager
async def http_server(answer: bytes) -> AsyncIterator[str]:
    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(speak, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def test_pages_are_bounded_and_redirects_are_not_followed() -> None:
    endless = b"HTTP/1.1 200 OK\r\nContent-Length: 3000000\r\n\r\n" + b"x" * 3_000_000
    async with http_server(endless) as uri:
        with pytest.raises(CallError, match="larger than"):
            await get(uri, "/discovery", 5.0)
    moved = b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n"
    async with http_server(moved) as uri:
        assert (await get(uri, "/discovery", 5.0)).status == 302
    async with http_server(b"SSH-2.0\r\n") as uri:
        with pytest.raises(CallError):
            await get(uri, "/discovery", 5.0)


def terms_of(*models: str, transcoder: str = URI, seconds: float = 0.1) -> Terms:
    constraints = {name: ModelConstraint(warm=True, capacity=1) for name in models}
    info = OrchestratorInfo(
        transcoder=transcoder,
        address=bytes(20),
        price=None,
        prices=(),
        capabilities=node_capabilities(constraints, "0.1.0"),
        auth_token=None,
    )
    return Terms(info, "", seconds)


ANYBODY = Expectation(None)
RESTRICTED = Expectation(None, is_restricted=True)
_REFUSED = "Invalid orchestrator request: orchestrator req sig check failed"


@pytest.mark.parametrize(
    ("answer", "expected", "verdict", "words"),
    [
        (terms_of("m"), ANYBODY, Verdict.OK, "1 model, in 100 ms"),
        (terms_of("m", transcoder=URI + "/"), ANYBODY, Verdict.OK, "1 model"),
        (terms_of("m", seconds=0.6), ANYBODY, Verdict.WARN, "more than 500 ms"),
        (terms_of("m", transcoder=""), ANYBODY, Verdict.WARN, "takes no work"),
        (terms_of("m", transcoder="https://x:1"), ANYBODY, Verdict.WARN, "sent on to https://x:1"),
        (terms_of(), ANYBODY, Verdict.FAIL, "no model"),
        (Terms(None, "insufficient sender reserve", 0.1), ANYBODY, Verdict.OK, "no reserve"),
        (Terms(None, _REFUSED, 0.1), ANYBODY, Verdict.FAIL, "sig check failed"),
        (Terms(None, _REFUSED, 0.1), RESTRICTED, Verdict.OK, "as allowed_gateways wants it"),
        (Terms(None, "not active", 0.1), RESTRICTED, Verdict.FAIL, "not active"),
    ],
)
def test_terms_are_judged(
    answer: Terms, expected: Expectation, verdict: Verdict, words: str
) -> None:
    found = judge_terms("terms", answer, expected, URI)
    assert found.verdict is verdict
    assert words in found.detail


@pytest.mark.parametrize(
    ("found", "expected", "verdict"),
    [
        (NODE_KEY.address, NODE_KEY.address, Verdict.OK),
        (NODE_KEY.address, None, Verdict.OK),
        (NODE_KEY.address, GATEWAY_KEY.address, Verdict.FAIL),
        (None, NODE_KEY.address, Verdict.WARN),
    ],
)
def test_the_account_is_judged(
    found: Address | None, expected: Address | None, verdict: Verdict
) -> None:
    assert judge_account(found, expected).verdict is verdict


@pytest.mark.parametrize(
    ("page", "verdict"),
    [
        (Page(200, b"[]"), Verdict.OK),
        (Page(200, b"{}"), Verdict.FAIL),
        (Page(200, b"<html>"), Verdict.FAIL),
        (Page(200, b"[" * 100_000), Verdict.FAIL),
        (Page(404, b""), Verdict.SKIP),
        (Page(502, b"[]"), Verdict.FAIL),
    ],
)
def test_discovery_is_a_json_list(page: Page, verdict: Verdict) -> None:
    assert judge_discovery(page).verdict is verdict


@pytest.mark.parametrize(
    ("page", "verdict"),
    [
        (Page(200, b'{"status":"OK"}'), Verdict.OK),
        (Page(200, b'{"status":"LOADING"}'), Verdict.WARN),
        (Page(200, b'{"status":"ERROR"}'), Verdict.FAIL),
        (Page(200, b"[]"), Verdict.FAIL),
        (Page(200, b"nothing"), Verdict.FAIL),
        (Page(404, b""), Verdict.SKIP),
        (Page(503, b'{"status":"OK"}'), Verdict.FAIL),
    ],
)
def test_health_is_judged(page: Page, verdict: Verdict) -> None:
    assert judge_health(page).verdict is verdict


@pytest.mark.parametrize(
    ("uri", "is_public", "verdict"),
    [
        (URI, True, Verdict.OK),
        ("http://node.example:8936", True, Verdict.WARN),
        ("http://127.0.0.1:8936", False, Verdict.OK),
        ("https://node.example", True, Verdict.WARN),
    ],
)
def test_the_uri_itself_is_judged(uri: str, *, is_public: bool, verdict: Verdict) -> None:
    has_port = uri.rpartition(":")[2].isdecimal()
    found = judge_uri(uri, Expectation(None, is_public=is_public), has_port=has_port)
    assert found.verdict is verdict
