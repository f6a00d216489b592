"""The node's one port: a stock gRPC client over TLS, and plain HTTPS clients, side by side."""

import json
import shutil
import socket
import ssl
import subprocess
from urllib.parse import urlsplit

import grpc
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


def negotiated(address: tuple[str, int], *offered: str) -> str | None:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
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


def test_a_clear_text_node_serves_grpc_and_http_on_one_port_too(
    network_of: NetworkFactory,
) -> None:
    network = network_of(NodePlan(scheme="http"))
    node = network.nodes[0]
    parts = urlsplit(node.url)
    with grpc.insecure_channel(parts.netloc) as channel:
        assert get_orchestrator(channel).transcoder == node.url
    command = ["curl", "-s", "--noproxy", "*", f"{node.url}/health"]
    said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout
    assert json.loads(said)["status"] == "OK"
    network.stop()
