"""The gateway keeps the promises of its own OpenAPI document, as schemathesis understands them."""

import subprocess
import sys
from pathlib import Path

import pytest

from scripts.local_network.network import NetworkFactory, NodePlan

pytestmark = [pytest.mark.interop, pytest.mark.slow]


@pytest.mark.timeout(240)
def test_schemathesis_finds_no_failure(network_of: NetworkFactory, tmp_path: Path) -> None:
    # Every request that the document allows is carried out: small bounds keep that quick.
    network = network_of(
        NodePlan(),
        limits__max_width=128,
        limits__max_height=128,
        limits__max_steps=3,
        limits__max_images=2,
        routing__max_wait_seconds=60,
    )
    gateway = network.gateway
    command = [str(Path(sys.executable).parent / "schemathesis"), "run"]
    command += [f"{gateway.url}/openapi.json", "--header", f"Authorization: Bearer {gateway.key}"]
    command += ["--max-examples", "8", "--seed", "1", "--no-color"]
    # It waits for a request that may be on its way; `tests/gateway/api` asks it with less patience.
    command += ["--exclude-path", "/jobs/{request_id}/events"]
    said = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=200
    )
    assert said.returncode == 0, said.stdout[-6000:] + said.stderr[-1000:]
    network.stop()
