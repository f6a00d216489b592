"""`limner-gateway explain`: the order of routing and every reason, as routing has them."""

import asyncio
import json
from fractions import Fraction
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from gateway.__main__ import main
from gateway.config import RepeatSettings
from gateway.keys import UseLimits
from gateway.orchestrators.explanation import explain
from gateway.orchestrators.selection import Need, Policy, Prospect, Reason, Refusal, rank
from network.units import Wei
from tests.gateway.orchestrators.test_selection import NOW, needs, policies, prospects
from tests.gateway.stub_orchestrator import StubModel, StubOrchestrator, running
from tests.gateway.test_app import Stage, serving, settings_for
from tests.gateway.test_budgets import limited


@given(needs, prospects(), policies, st.sets(st.integers(0, 99), max_size=4))
def test_everybody_has_a_place_or_a_reason_and_the_scores_are_exact(
    need: Need, known: list[Prospect], policy: Policy, tried: set[int]
) -> None:
    ranking = rank(need, known, policy, NOW, {f"https://o{name}:8936" for name in tried})
    others = (Refusal("https://silent", Reason.UNREACHABLE, "no answer"),)
    verdicts = explain(ranking, others)
    assert sorted(one.uri for one in verdicts) == sorted(
        [one.uri for one in known] + ["https://silent"]
    )
    assert [one.rank for one in verdicts] == [
        *range(1, len(ranking.candidates) + 1),
        *(None for _ in range(len(verdicts) - len(ranking.candidates))),
    ]
    assert all((one.rank is None) == (one.reason is not None) for one in verdicts)
    by_uri = {one.uri: one for one in known}
    scores = []
    for one in verdicts:
        told = one.as_json()
        if told["score_wei"] is None:
            continue
        prospect = by_uri[one.uri]
        femtoseconds = prospect.overhead + need.pixels * need.steps * prospect.pace
        price = prospect.price
        fee = -(-need.pixels * price.numerator // price.denominator)
        score = fee + policy.time_value * Fraction(femtoseconds, 10**15)
        assert Fraction(told["score_wei"]) == score
        scores.append((one.rank or 0, score))
    ranked = [score for place, score in scores if place]
    assert ranked == sorted(ranked)


async def told(stage: Stage, *arguments: str) -> Result:
    command = ["explain", "--admin-url", stage.gateway.admin_url, *arguments]
    return await asyncio.to_thread(CliRunner().invoke, main, command)


async def as_json(stage: Stage, *arguments: str) -> dict[str, Any]:
    result = await told(stage, "--size", "64x64", "--steps", "5", "--json", *arguments)
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.output)
    return found


async def test_the_running_gateway_tells_ranks_reasons_and_caps(tmp_path: Path) -> None:
    cheap = StubOrchestrator({"m": StubModel(Fraction(3, 2))})
    dear = StubOrchestrator({"m": StubModel(Fraction(5))})
    other = StubOrchestrator({"x": StubModel()})
    async with running(cheap), running(dear), running(other):
        uris = (cheap.uri, dear.uri, other.uri, "http://127.0.0.1:9")
        settings = settings_for(tmp_path, *uris)
        async with serving(settings) as stage:
            found = await as_json(stage, "--max-price", "4", "--count", "2")
            assert found["caps"] == {
                "key": "4",
                "gateway": None,
                "model": None,
                "wei_per_pixel": "4",
            }
            lines = {line["uri"]: line for line in found["orchestrators"]}
            assert lines[cheap.uri]["rank"] == 1
            assert lines[cheap.uri]["fee_wei"] == str(64 * 64 * 3)
            assert lines[cheap.uri]["score_wei"] == str(64 * 64 * 3), "time is worth nothing here"
            assert lines[dear.uri]["reason"] == "above the price cap"
            assert lines[dear.uri]["detail"] == "5 > 4 wei per pixel"
            assert lines[other.uri]["reason"] == "model not offered"
            assert lines["http://127.0.0.1:9"]["reason"] == "unreachable"
            assert found["outcome"]["fee_wei"] == lines[cheap.uri]["fee_wei"]
            table = await told(stage, "--size", "64x64", "--max-price", "4")
            assert "above the price cap: 5 > 4 wei per pixel" in table.output
            assert "price cap: 4 wei per pixel (key 4, gateway none, model none)" in table.output
        assert cheap.delivered == dear.delivered == 0


async def test_a_keys_own_refusals_are_told(tmp_path: Path) -> None:
    async with running(StubOrchestrator()) as stub:
        async with serving(settings_for(tmp_path, stub.uri)) as stage:
            stage.key = await limited(tmp_path, UseLimits(wei_per_day=Wei(1)))
            key_id = stage.key.split("_")[1]
            assert (await stage.post()).status == 402
            found = await as_json(stage, "--key-id", key_id)
            assert found["outcome"]["code"] == "budget_exceeded"
            assert found["orchestrators"][0]["rank"] == 1
            unknown = await told(stage, "--key-id", "000000000000")
            assert unknown.exit_code == 1
            assert "No such live key '000000000000'" in unknown.output
            both = await told(stage, "--key-id", key_id, "--max-price", "1")
            assert "not both" in both.output
            assert "whole number" in (await told(stage, "--size", "64xhigh")).output
            assert "width" in (await told(stage, "--size", "65x64")).output
            nobody = await as_json(stage, "--model", "nobody/has-this")
            assert nobody["outcome"]["status"] == 404
            assert [line["reason"] for line in nobody["orchestrators"]] == ["model not offered"]
        assert "no gateway answers" in (await told(stage)).output


async def test_what_is_answered_again_is_told(tmp_path: Path) -> None:
    async with running(StubOrchestrator()) as stub:
        settings = settings_for(tmp_path, stub.uri)
        async with serving(settings) as stage:
            assert (await as_json(stage))["repeats"] is None
        rules = RepeatSettings(cache=True, coalesce=True, scope="team", price=Fraction(1, 4))
        async with serving(settings.model_copy(update={"repeats": rules})) as stage:
            assert (await as_json(stage))["repeats"] == {
                "cache": True,
                "coalesce": True,
                "scope": "team",
                "share_of_fee": "1/4",
            }
            table = await told(stage, "--size", "64x64")
            assert (
                "one that names its seed and was asked before or is under way by the same team "
                "goes to nobody, and is charged 1/4 of the fee" in table.output
            )
