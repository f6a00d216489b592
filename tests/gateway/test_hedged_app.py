"""What an operator and a client see of late jobs that were given to two orchestrators."""

import asyncio
import io
import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from gateway.__main__ import main
from network.errors import ConfigError
from network.runtime import log
from tests.gateway.stub_orchestrator import StubModel, StubOrchestrator, running
from tests.gateway.test_app import Stage, serving, settings_for

HEDGING = {"share": 1.0, "max_fee": 64 * 64 * 3, "quantile": 0.5}


async def explained(stage: Stage) -> tuple[Any, str]:
    """The plan as JSON, and the command's last line."""
    command = [
        "explain",
        "--admin-url",
        stage.gateway.admin_url,
        "--size",
        "64x64",
        "--steps",
        "5",
    ]
    found = await asyncio.to_thread(CliRunner().invoke, main, [*command, "--json"])
    assert found.exit_code == 0, found.output
    shown = await asyncio.to_thread(CliRunner().invoke, main, command)
    return json.loads(found.output)["hedge"], shown.output.splitlines()[-1]


async def test_what_became_of_a_late_job_is_told_everywhere(tmp_path: Path) -> None:
    said = io.StringIO()
    log.configure("info", "json", said)
    first, second = StubOrchestrator(), StubOrchestrator({"m": StubModel(Fraction(3))})
    async with running(first), running(second):
        settings = settings_for(
            tmp_path, first.uri, second.uri, routing={"refresh_seconds": 0.3, "hedging": HEDGING}
        )
        async with serving(settings) as stage:
            plan, line = await explained(stage)
            unknown = "how long such jobs take there is not known yet"
            assert plan == {"after_seconds": None, "uri": None, "reason": unknown}
            assert line == f"no second orchestrator if it is late: {unknown}"
            for _ in range(3):
                assert (await stage.post()).status == 200
            plan, line = await explained(stage)
            assert (plan["uri"], plan["reason"]) == (second.uri, None)
            assert plan["after_seconds"] >= 0.1
            assert line == (
                f"if it is late, after {plan['after_seconds']} s, {second.uri} is asked as well"
            )
            first.job_seconds = 30.0
            answer = await stage.post()
            assert (answer.status, answer.headers["Limner-Fee"]) == (200, str(64 * 64 * 3))
            assert answer.headers["X-Limner-Orchestrator"] == second.uri
            assert (await stage.status())["hedges"]["second"] == 1
            async with stage.client.get(f"{stage.gateway.admin_url}/metrics") as response:
                metrics = await response.text()
    assert 'limner_gateway_hedges_total{fate="second"} 1.0' in metrics
    assert 'limner_gateway_hedges_total{fate="both"} 0.0' in metrics
    assert 'limner_gateway_attempts_total{outcome="outrun"} 1.0' in metrics
    lines = [json.loads(line) for line in said.getvalue().splitlines()]
    requests = [line for line in lines if line["event"] == "request"]
    assert [line.get("hedge") for line in requests] == [None] * 3 + ["second"]
    assert requests[-1]["orchestrator"] == second.uri
    assert requests[-1]["attempt_id"] == second.seen[-1].attempt_id
    assert requests[-1]["attempts"] == 2
    # What both were asked for together is the time of others, and not counted twice.
    assert 0 <= requests[-1]["own_ms"] < requests[-1]["ms"]


async def test_it_is_off_unless_the_operator_wants_it(tmp_path: Path) -> None:
    async with (
        running(StubOrchestrator()) as stub,
        serving(settings_for(tmp_path, stub.uri)) as at,
    ):
        plan, line = await explained(at)
        assert plan is None
        assert line.startswith("a client would pay")
        assert (await at.status())["hedges"] is None


@pytest.mark.parametrize(
    ("name", "value"), [("quantile", 1.0), ("share", 1.5), ("max_fee", -1), ("spare", -1)]
)
def test_what_cannot_be_is_refused_by_its_name(tmp_path: Path, name: str, value: float) -> None:
    with pytest.raises((ConfigError, ValueError), match=rf"hedging.{name}"):
        settings_for(tmp_path, routing={"hedging": {name: value}})
