import asyncio
import shutil
import socket
import ssl
import subprocess
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import grpc
import orjson
import pytest
from grpclib.exceptions import GRPCError

from network.identity import verify_hashed
from network.units import Address
from network.wire.generated import lp_rpc_pb2 as pb
from network.wire.headers import PAYMENT
from node.api.certificate import is_usable, server_context, write_certificate
from node.app import RunningNode
from node.engine.work import ModelState
from tests.node.fakes import MODEL, FakeEngine
from tests.node.nodes import NODE_KEY, Buyer, eventually, running_node, unverified

DATA_ON_NO_STREAM = bytes(9)
TLS = "https://127.0.0.1:0"


def place(node: RunningNode) -> tuple[str, int]:
    url = urlsplit(node.url)
    return url.hostname or "", url.port or 0


def stock_grpc(node: RunningNode) -> tuple[pb.OrchestratorInfo, pb.PingPong]:
    """What a stock grpcio client sees, trusting the node's own certificate."""
    host, port = place(node)
    if node.url.startswith("https"):
        certificate = ssl.get_server_certificate((host, port), timeout=5)
        channel = grpc.secure_channel(
            f"{host}:{port}", grpc.ssl_channel_credentials(certificate.encode())
        )
    else:
        channel = grpc.insecure_channel(f"{host}:{port}")
    with channel:
        ask = channel.unary_unary(
            "/net.Orchestrator/GetOrchestrator",
            request_serializer=pb.OrchestratorRequest.SerializeToString,
            response_deserializer=pb.OrchestratorInfo.FromString,
        )
        ping = channel.unary_unary(
            "/net.Orchestrator/Ping",
            request_serializer=pb.PingPong.SerializeToString,
            response_deserializer=pb.PingPong.FromString,
        )
        return ask(pb.OrchestratorRequest(), timeout=5), ping(pb.PingPong(value=b"v"), timeout=5)


def curl(node: RunningNode) -> str:
    path = shutil.which("curl")
    if path is None:
        pytest.skip("curl is not installed")
    command = [path, "-sk", "--noproxy", "*", "-w", " %{http_version}", f"{node.url}/health"]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_stock_grpc_and_curl_share_the_port(tmp_path: Path, scheme: str) -> None:
    async with running_node(tmp_path, listen=f"{scheme}://127.0.0.1:0") as node:
        info, pong = await asyncio.to_thread(stock_grpc, node)
        assert info.transcoder == node.url
        assert info.capabilities.bitstring[0] == 0x0C005FFF
        verify_hashed(Address(info.address), b"v", pong.value)
        assert Address(info.address) == NODE_KEY.address
        body, _, version = (await asyncio.to_thread(curl, node)).rpartition(" ")
        assert (orjson.loads(body)["status"], version) == ("OK", "1.1")


@pytest.mark.parametrize(
    ("offered", "got"),
    [(["h2"], "h2"), (["h2", "http/1.1"], "http/1.1"), (["http/1.1"], "http/1.1"), ([], None)],
)
async def test_only_who_offers_nothing_else_gets_http_2(
    tmp_path: Path, offered: list[str], got: str | None
) -> None:
    async with running_node(tmp_path, listen=TLS) as node:
        context = unverified()
        if offered:
            context.set_alpn_protocols(offered)
        host, port = place(node)
        _, writer = await asyncio.open_connection(host, port, ssl=context)
        assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == got
        writer.close()
        with suppress(ssl.SSLError):  # the server's HTTP/2 settings may cross our goodbye
            await writer.wait_closed()


async def test_the_certificate_names_what_clients_call(tmp_path: Path) -> None:
    async with running_node(tmp_path, listen=TLS) as node:
        host, port = place(node)
        certificate = await asyncio.to_thread(ssl.get_server_certificate, (host, port))
        for name in ("127.0.0.1", "localhost"):
            context = ssl.create_default_context(cadata=certificate)
            _, writer = await asyncio.open_connection(
                host, port, ssl=context, server_hostname=name
            )
            writer.close()
            await writer.wait_closed()


def test_a_certificate_is_renewed_a_month_before_its_end_and_for_new_names(tmp_path: Path) -> None:
    path = tmp_path / "tls.pem"
    day = 86_400.0
    write_certificate(path, ["127.0.0.1", "node.example.org"], 0.0)
    assert path.stat().st_mode & 0o777 == 0o600
    assert is_usable(path, ["node.example.org"], 300 * day)
    assert not is_usable(path, ["node.example.org"], 340 * day)
    assert not is_usable(path, ["other.example.org"], 0.0)


async def test_a_header_of_60_kilobytes_is_read(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node, Buyer(node) as buyer:
        answer = await buyer.ask({PAYMENT: "A" * 60_000})
        assert answer.status == 402
        assert answer.text.startswith("protobuf unmarshal error")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/text-to-image", 405),
        ("PUT", "/text-to-image/", 405),
        ("POST", "/health", 405),
        ("GET", "/", 404),
        ("POST", "/image-to-image", 404),
        ("GET", "/jobs/unknown", 404),
    ],
)
async def test_wrong_methods_and_paths_are_told_so(
    tmp_path: Path, method: str, path: str, status: int
) -> None:
    async with running_node(tmp_path) as node, Buyer(node) as buyer:
        answer = await buyer.get(path, method=method)
        assert answer.status == status
        assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
        assert answer.text.endswith("\n")
        if status == 405:
            assert set(answer.headers["Allow"].replace(" ", "").split(",")) <= {
                "GET",
                "HEAD",
                "POST",
            }


@pytest.mark.parametrize("path", ["/health", "/health/", "/version", "/version/"])
async def test_the_runners_routes_have_trailing_slash_twins(tmp_path: Path, path: str) -> None:
    async with running_node(tmp_path) as node, Buyer(node) as buyer:
        assert (await buyer.get(path)).status == 200


async def test_hardware_is_told_in_the_runners_shape(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node, Buyer(node) as buyer:
        for kind in ("info", "stats"):
            told = (await buyer.get(f"/hardware/{kind}")).json
            assert told["pipeline"] == "text-to-image"
            assert told["model_id"] == "limner/shapes"
            gpus = told["gpu_info" if kind == "info" else "gpu_stats"]
            assert list(gpus) == [str(index) for index in range(len(gpus))]


async def test_whoever_dribbles_out_a_request_head_is_cut_off(tmp_path: Path) -> None:
    slow = {"header_timeout_seconds": 0.3, "shutdown_seconds": 0}
    async with running_node(tmp_path, server=slow) as node:
        for opening in (b"", b"PRI * HT", b"POST /text-to-image HTTP/1.1\r\nHost: a\r\nX-Slow: "):
            reader, writer = await asyncio.open_connection(*place(node))
            writer.write(opening)
            async with asyncio.timeout(2):
                with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                    await reader.readexactly(1)
            writer.close()


async def test_whoever_dribbles_out_a_body_is_told_so(tmp_path: Path) -> None:
    slow = {"body_timeout_seconds": 0.2, "shutdown_seconds": 0}
    async with running_node(tmp_path, server=slow) as node:
        reader, writer = await asyncio.open_connection(*place(node))
        writer.write(b"POST /text-to-image HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n{")
        async with asyncio.timeout(2):
            assert (await reader.readline()).startswith(b"HTTP/1.1 408")
        writer.close()


async def test_connections_above_the_bound_are_closed(tmp_path: Path) -> None:
    async with running_node(
        tmp_path, server={"max_connections": 2, "shutdown_seconds": 0}
    ) as node:
        held = [await asyncio.open_connection(*place(node)) for _ in range(2)]
        reader, writer = await asyncio.open_connection(*place(node))
        async with asyncio.timeout(2):
            with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                await reader.readexactly(1)
        for _, other in [*held, (reader, writer)]:
            other.close()
        await eventually(lambda: _is_up(node))


async def test_bytes_that_are_no_http_2_close_the_connection_and_nothing_else(
    tmp_path: Path,
) -> None:
    async with running_node(tmp_path) as node:
        reader, writer = await asyncio.open_connection(*place(node))
        writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + DATA_ON_NO_STREAM)
        async with asyncio.timeout(2):
            while await reader.read(1000):
                pass
        writer.close()
        assert await _is_up(node)


async def test_a_grpc_message_of_a_megabyte_is_not_read(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node, Buyer(node) as buyer:
        with pytest.raises(GRPCError, match="at most 65536 are read"):
            await buyer.ping(b"x" * 2**20)
        assert (await buyer.get("/health")).status == 200


async def test_garbage_instead_of_tls_closes_the_connection(tmp_path: Path) -> None:
    async with running_node(tmp_path, listen=TLS) as node, Buyer(node) as buyer:
        with socket.create_connection(place(node), timeout=2) as plain:
            plain.sendall(b"GET / HTTP/1.1\r\n\r\n")
            await asyncio.sleep(0.05)
        assert (await buyer.get("/health")).status == 200


async def _is_up(node: RunningNode) -> bool:
    async with Buyer(node) as buyer:
        try:
            return (await buyer.get("/health")).status == 200
        except OSError:
            return False


async def test_the_admin_port_tells_status_and_metrics(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node, Buyer(node) as buyer:
        assert (await buyer.ask()).status == 200
        assert (await buyer.ask(width=1)).status == 400
        assert (await buyer.get("/healthz", admin=True)).text == "ok\n"
        metrics = (await buyer.get("/metrics", admin=True)).text
        job = 'limner_node_jobs_total{model="limner/shapes",outcome="delivered"} 1.0'
        for line in (
            job,
            'limner_node_refusals_total{reason="bad_request"} 1.0',
            'limner_node_earned_wei_total{model="limner/shapes"} 10240.0',
            'limner_node_slots_free{model="limner/shapes"} 2.0',
        ):
            assert line in metrics
        assert (await buyer.get("/metrics")).status == 404
        status = orjson.loads((await buyer.get("/status", admin=True)).body)
        assert status["ready"] is True
        assert status["service_uri"] == node.url


async def test_a_request_head_of_a_megabyte_is_cut_off(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node:
        reader, writer = await asyncio.open_connection(*place(node))
        fields = b"".join(b"X-%d: " % number + b"a" * 20_000 + b"\r\n" for number in range(60))
        writer.write(b"GET /health HTTP/1.1\r\nHost: a\r\n" + fields)
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await reader.readexactly(1)
        writer.close()


async def test_the_certificate_is_kept_until_it_no_longer_does(tmp_path: Path) -> None:
    path = tmp_path / "tls.pem"
    await server_context(tmp_path, ["127.0.0.1"], 0.0)
    first = path.read_bytes()
    await server_context(tmp_path, ["127.0.0.1"], 1.0)
    assert path.read_bytes() == first
    await server_context(tmp_path, ["127.0.0.1", "node.example.org"], 1.0)
    second = path.read_bytes()
    assert second != first
    await server_context(tmp_path, ["127.0.0.1"], 360 * 86_400.0)
    assert path.read_bytes() != second


async def test_liveness_is_refused_while_no_job_can_be_done(tmp_path: Path) -> None:
    engine = FakeEngine()
    async with running_node(tmp_path, engine) as node, Buyer(node) as buyer:
        engine.change(ModelState(MODEL, "loading", 0.3))
        assert (await buyer.get("/health")).json["status"] == "LOADING"
        assert (await buyer.get("/healthz", admin=True)).status == 503
        engine.change(ModelState(MODEL, "failed", detail="broken"))
        assert (await buyer.get("/health")).json["status"] == "ERROR"
        engine.change(ModelState(MODEL, "ready"))
        engine.pid = 4712
        engine.change()
        assert (await buyer.get("/healthz", admin=True)).status == 200
        metrics = (await buyer.get("/metrics", admin=True)).text
        assert "limner_node_worker_restarts_total 1.0" in metrics
