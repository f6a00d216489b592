"""How long a request waited for a place is told in its line and in the metrics."""

import asyncio
import io
import json
from pathlib import Path

from network.runtime import log
from tests.gateway.stub_orchestrator import StubOrchestrator, running
from tests.gateway.test_app import serving, settings_for
from tests.gateway.waiting import until


async def test_a_wait_shows_and_no_wait_does_not(tmp_path: Path) -> None:
    said = io.StringIO()
    log.configure("info", "json", said)
    async with (
        running(StubOrchestrator(capacity=1, job_seconds=0.3)) as stub,
        serving(settings_for(tmp_path, stub.uri, routing={"refresh_seconds": 0.2})) as stage,
    ):
        first = asyncio.ensure_future(stage.post())
        await until(lambda: stub.under_way == 1)
        answers = await asyncio.gather(first, stage.post())
        assert [answer.status for answer in answers] == [200, 200]
        async with stage.client.get(f"{stage.gateway.admin_url}/metrics") as response:
            metrics = await response.text()
        async with stage.client.get(f"{stage.gateway.admin_url}/history") as response:
            assert (await response.json())["whole"]["good"] == 2
    assert "limner_gateway_wait_seconds_count 1.0" in metrics
    lines = [json.loads(line) for line in said.getvalue().splitlines()]
    waits = [line.get("wait_ms") for line in lines if line["event"] == "request"]
    assert waits[0] is None
    assert waits[1] > 0
