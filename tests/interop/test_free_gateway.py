"""Official clients, unmodified, at a gateway that serves those without a key."""

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from scripts.local_network.network import Gateway, LocalNetwork, start_gateway

pytestmark = [pytest.mark.interop, pytest.mark.slow]

HERE = Path(__file__).parent
SMALL = {"prompt": "a red heart", "size": "128x128"}
LIVEPEERS = {"prompt": "a red heart", "width": 128, "height": 128}


@pytest.fixture(scope="module")
def free(one_node: LocalNetwork, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    gateway = start_gateway(
        tmp_path_factory.mktemp("free"),
        orchestrators=[one_node.nodes[0].url],
        settings={"anonymous.enabled": True},
    )
    yield gateway
    gateway.program.stop()


def call(program: str, gateway: Gateway, asked: Mapping[str, Any]) -> dict[str, Any]:
    said = subprocess.run(
        [sys.executable, str(HERE / program)],
        input=json.dumps({"url": gateway.url, **asked}),
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    )
    told: dict[str, Any] = json.loads(said.stdout)
    return told


def test_openais_client_has_no_key_by_saying_so(free: Gateway) -> None:
    asked = {"call": "generate", "request": SMALL}
    made = call("openai_client.py", free, {**asked, "key": "anonymous"})
    assert made["images"][0]["url"].startswith(f"{free.url}/stream/")
    refused = call("openai_client.py", free, {**asked, "key": "sk-of-another-service"})
    assert (refused["status"], refused["error"]) == (401, "AuthenticationError")


def test_livepeers_client_has_no_key_by_saying_so(free: Gateway) -> None:
    made = call("python_client.py", free, {"key": "anonymous", "request": LIVEPEERS})
    assert made["status"] == 200, made
    assert made["images"][0]["url"].startswith(f"{free.url}/stream/")


def test_livepeers_client_with_a_wrong_key_is_told_so(free: Gateway) -> None:
    refused = call("python_client.py", free, {"key": "wrong", "request": LIVEPEERS})
    assert refused["detail"] == {"msg": "Invalid bearer token."}
