"""The node's one port: a stock gRPC client over TLS, and plain HTTPS clients, side by side."""

import json
import os
import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import grpc
import httpx
import pytest

from network.capabilities import TEXT_TO_IMAGE
from network.identity import verify_hashed
from network.units import Address
from network.wire.generated.lp_rpc_pb2 import OrchestratorInfo, OrchestratorRequest, PingPong
from scripts.local_network.network import MODEL, LocalNetwork, NetworkFactory, NodePlan

pytestmark = [pytest.mark.interop, pytest.mark.slow]


@pytest.fixture
def address(one_node: LocalNetwork) -> tuple[str, int]:
    parts = urlsplit(one_node.nodes[0].url)
    assert parts.scheme == "https"
    return parts.hostname or "", parts.port or 0


def unverified() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def negotiated(address: tuple[str, int], *offered: str) -> str | None:
    context = unverified()
    context.set_alpn_protocols(list(offered))
    with (
        socket.create_connection(address, timeout=10) as plain,
        context.wrap_socket(plain, server_hostname=address[0]) as secured,
    ):
        return secured.selected_alpn_protocol()


def channel_to(address: tuple[str, int]) -> grpc.Channel:
    """A channel that trusts the node's self-signed certificate, whatever name it bears."""
    certificate = ssl.get_server_certificate(address, timeout=10)
    return grpc.secure_channel(
        f"{address[0]}:{address[1]}", grpc.ssl_channel_credentials(certificate.encode())
    )


def get_orchestrator(channel: grpc.Channel) -> OrchestratorInfo:
    call = channel.unary_unary(
        "/net.Orchestrator/GetOrchestrator",
        request_serializer=OrchestratorRequest.SerializeToString,
        response_deserializer=OrchestratorInfo.FromString,
    )
    info = call(OrchestratorRequest(), timeout=10)
    assert isinstance(info, OrchestratorInfo)
    return info


def test_grpc_clients_get_h2_and_all_others_get_http_1_1(address: tuple[str, int]) -> None:
    assert negotiated(address, "h2") == "h2"
    assert negotiated(address, "h2", "http/1.1") == "http/1.1"
    assert negotiated(address, "http/1.1") == "http/1.1"
    assert negotiated(address) is None


def test_a_stock_grpc_client_reads_what_the_node_offers(
    address: tuple[str, int], one_node: LocalNetwork
) -> None:
    with channel_to(address) as channel:
        info = get_orchestrator(channel)
    assert info.transcoder == one_node.nodes[0].url
    assert len(info.address) == 20
    assert info.capabilities.bitstring[0] >> TEXT_TO_IMAGE & 1
    models = info.capabilities.constraints.PerCapability[TEXT_TO_IMAGE].models
    assert models[MODEL].warm
    assert len(info.auth_token.token) == 32
    assert [price.constraint for price in info.capabilities_prices] == [MODEL]


def test_the_answer_to_a_ping_proves_the_nodes_account(address: tuple[str, int]) -> None:
    with channel_to(address) as channel:
        ping = channel.unary_unary(
            "/net.Orchestrator/Ping",
            request_serializer=PingPong.SerializeToString,
            response_deserializer=PingPong.FromString,
        )
        pong = ping(PingPong(value=b"are you there"), timeout=10)
        account = get_orchestrator(channel).address
    # Livepeer's Ping answers with a signature of what was sent.
    verify_hashed(Address(account), b"are you there", pong.value)


def test_curl_gets_http_1_1_on_the_same_port(address: tuple[str, int]) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    url = f"https://{address[0]}:{address[1]}/health"
    command = ["curl", "-sk", "--noproxy", "*", "-w", "\n%{http_version} %{http_code}", url]
    said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout
    body, _, versions = said.rpartition("\n")
    assert versions == "1.1 200"
    assert json.loads(body)["status"] == "OK"


# Clients that prefer HTTP/2


def test_httpx_with_http_2_gets_what_it_prefers_or_what_it_also_takes(
    one_node: LocalNetwork,
) -> None:
    url = one_node.nodes[0].url
    preferences: list[tuple[dict[str, Any], str]] = [
        ({"http2": True}, "HTTP/1.1"),
        ({"http2": True, "http1": False}, "HTTP/2"),
    ]
    for options, version in preferences:
        with httpx.Client(verify=unverified(), **options) as client:
            answer = client.get(f"{url}/health")
            assert (answer.http_version, answer.json()["status"]) == (version, "OK")
            refused = client.post(f"{url}/text-to-image", json={"prompt": "a boat"})
            assert refused.status_code == 403, refused.text


@pytest.mark.parametrize(
    ("script", "version"), [("fetch.mjs", ""), ("http2.mjs", "h2")], ids=["fetch", "http2"]
)
def test_nodes_own_clients_use_the_port(one_node: LocalNetwork, script: str, version: str) -> None:
    if shutil.which("node") is None:
        pytest.skip("node is not installed")
    command = ["node", "--input-type=module", "--eval", NODE_CLIENTS[script]]
    env = {**os.environ, "NODE_TLS_REJECT_UNAUTHORIZED": "0", "URL": one_node.nodes[0].url}
    said = subprocess.run(
        command, env=env, capture_output=True, text=True, check=True, timeout=30
    ).stdout
    told = json.loads(said)
    assert (told["version"], told["health"]["status"]) == (version, "OK")


#: What a stock Node.js has: `fetch`, and a client that speaks nothing but HTTP/2.
NODE_CLIENTS = {
    "fetch.mjs": """
const answer = await fetch(process.env.URL + "/health");
console.log(JSON.stringify({ version: "", health: await answer.json() }));
""",
    "http2.mjs": """
import http2 from "node:http2";
const session = http2.connect(process.env.URL, { rejectUnauthorized: false });
const request = session.request({ ":path": "/health" });
let body = "";
for await (const piece of request) body += piece;
session.close();
const version = session.alpnProtocol;
console.log(JSON.stringify({ version, health: JSON.parse(body) }));
""",
}


@pytest.mark.parametrize("option", ["--http2", "--http2-prior-knowledge", "--http1.1"])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_curl_gets_an_answer_whatever_it_prefers(
    one_node: LocalNetwork, clear_node: LocalNetwork, scheme: str, option: str
) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    node = (one_node if scheme == "https" else clear_node).nodes[0]
    url = f"{node.url}/health"
    command = [
        "curl",
        "-sk",
        option,
        "--noproxy",
        "*",
        "-w",
        "\n%{http_version} %{http_code}",
        url,
    ]
    said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout
    body, _, versions = said.rpartition("\n")
    is_h2 = (scheme, option) == ("http", "--http2-prior-knowledge")
    assert versions == ("2 200" if is_h2 else "1.1 200")
    assert json.loads(body)["status"] == "OK"


@pytest.fixture(scope="module")
def clear_node(network_of: NetworkFactory) -> Iterator[LocalNetwork]:
    network = network_of(NodePlan(scheme="http"))
    yield network
    network.stop()


def test_a_clear_text_node_serves_grpc_and_http_on_one_port_too(
    clear_node: LocalNetwork,
) -> None:
    node = clear_node.nodes[0]
    parts = urlsplit(node.url)
    with grpc.insecure_channel(parts.netloc) as channel:
        assert get_orchestrator(channel).transcoder == node.url
    command = ["curl", "-s", "--noproxy", "*", f"{node.url}/health"]
    said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout
    assert json.loads(said)["status"] == "OK"
