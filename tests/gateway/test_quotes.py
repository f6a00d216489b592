"""`POST /quote`: the truth about a request that is not made."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dispatch import Routing
from gateway.dispatch.foresight import Survey, foresee
from gateway.keys import UseLimits
from gateway.orchestrators.selection import FEMTOSECONDS, Need, Policy, Prospect, Reason, rank
from gateway.payments.budget import Limits
from network.errors import ProblemError
from network.units import ModelId, Pixels, Wei
from tests.gateway.routing import Key, open_desk, request_for
from tests.gateway.stub_orchestrator import StubModel, StubOrchestrator, running
from tests.gateway.test_app import BODY, Stage, serving, settings_for
from tests.gateway.test_budgets import limited

FEE = 64 * 64


async def quoted(stage: Stage, **fields: object) -> tuple[int, dict[str, Any]]:
    async with stage.client.post(
        f"{stage.gateway.url}/quote",
        json={**BODY, **fields},
        headers={"Authorization": f"Bearer {stage.key}"},
    ) as response:
        return response.status, await response.json()


async def test_a_quote_is_what_the_request_then_costs_and_makes_nothing(tmp_path: Path) -> None:
    cheap = StubOrchestrator({"m": StubModel(Fraction(3, 2))})
    dear = StubOrchestrator({"m": StubModel(Fraction(2))})
    async with (
        running(cheap),
        running(dear),
        serving(settings_for(tmp_path, cheap.uri, dear.uri)) as stage,
    ):
        status, told = await quoted(stage, num_images_per_prompt=3)
        assert status == 200
        assert told.pop("expected_seconds") > 0
        assert told == {
            "model_id": "m",
            "fee_wei": str(3 * FEE * 3 // 2),
            "price_wei_per_pixel": "1.5",
            "orchestrators": 2,
            "warm": True,
            "waiting": 0,
        }
        assert cheap.delivered == dear.delivered == 0
        response = await stage.post(num_images_per_prompt=3)
        assert response.headers["Limner-Fee"] == told["fee_wei"]


async def test_a_quote_is_refused_as_the_request_would_be(tmp_path: Path) -> None:
    async with (
        running(StubOrchestrator({"m": StubModel(Fraction(3))})) as stub,
        serving(settings_for(tmp_path, stub.uri)) as stage,
    ):
        status, told = await quoted(stage, model_id="nobody/has-this")
        assert (status, told["error"]["code"]) == (404, "model_not_found")
        assert (await quoted(stage, width=65))[0] == 422
        stage.key = await limited(tmp_path, UseLimits(wei_per_day=Wei(3 * FEE - 1)))
        for fields in ({}, {"prompt": "another"}):
            status, told = await quoted(stage, **fields)
            assert (status, told["error"]["code"]) == (402, "budget_exceeded")
        stage.key = await limited(tmp_path, UseLimits(pixels_per_minute=FEE))
        for _ in range(3):
            assert (await quoted(stage))[0] == 200, "a quote takes no pixels"
        assert (await quoted(stage, num_images_per_prompt=2))[0] == 400
        stage.key = "limner_000000000000_" + "x" * 43
        assert (await quoted(stage))[0] == 401


async def test_quotes_hold_nothing_of_a_budget(tmp_path: Path) -> None:
    stub = StubOrchestrator()
    key = Key(limits=UseLimits(wei_per_day=Wei(FEE)), max_in_flight=1)
    async with running(stub), open_desk(tmp_path, [stub]) as desk:
        for number in range(3):
            assert desk.dispatcher.quote(f"q{number}", key, request_for()).fee == FEE
        result = await desk.dispatcher.run("r", key, request_for())
        await result.settled


async def test_above_the_cap_is_503_with_the_cheapest_price(tmp_path: Path) -> None:
    stub = StubOrchestrator({"m": StubModel(Fraction(9))})
    async with running(stub), open_desk(tmp_path, [stub]) as desk:
        with pytest.raises(ProblemError, match="the cheapest asks 9") as raised:
            desk.dispatcher.quote("q", Key(max_price=Fraction(8)), request_for())
        assert raised.value.problem.status == 503


async def test_the_gateways_own_limit_on_wei_in_flight_holds_for_quotes(tmp_path: Path) -> None:
    stub = StubOrchestrator()
    async with (
        running(stub),
        open_desk(tmp_path, [stub], limits=Limits(max_wei_in_flight=Wei(FEE - 1))) as desk,
    ):
        with pytest.raises(ProblemError, match="may spend at once"):
            desk.dispatcher.quote("q", Key(), request_for())
        assert desk.budget.total == 0


async def test_where_all_are_busy_a_quote_counts_the_wait(tmp_path: Path) -> None:
    stub = StubOrchestrator({"m": StubModel(Fraction(2))}, capacity=0)
    async with running(stub), open_desk(tmp_path, [stub]) as desk:
        quote = desk.dispatcher.quote("q", Key(), request_for())
        assert (quote.orchestrators, quote.fee) == (0, 2 * FEE)
        assert quote.expected_seconds >= 1


async def test_where_the_line_is_full_a_quote_says_so(tmp_path: Path) -> None:
    stub = StubOrchestrator(capacity=0)
    async with running(stub), open_desk(tmp_path, [stub], routing=Routing(max_waiting=0)) as desk:
        with pytest.raises(ProblemError, match="0 requests wait already"):
            desk.dispatcher.quote("q", Key(), request_for())


prospects = st.builds(
    Prospect,
    uri=st.uuids().map(str),
    price_numerator=st.integers(0, 9),
    price_denominator=st.integers(1, 3),
    free=st.integers(-1, 2),
    pace=st.integers(0, 10**6),
    overhead=st.integers(0, 2 * FEMTOSECONDS),
    fresh_until=st.sampled_from([0.0, 100.0]),
    suspended_until=st.sampled_from([0.0, 100.0]),
    barred=st.sampled_from([None, None, Reason.UNPRICED, Reason.UNREACHABLE]),
)


@given(st.lists(prospects, max_size=6), st.sampled_from([None, Fraction(4)]))
def test_foresight_is_the_choice_of_routing_or_a_refusal(
    known: list[Prospect], cap: Fraction | None
) -> None:
    need = Need(ModelId("m"), Pixels(FEE), 5, cap)
    ranking = rank(need, known, Policy(time_value=Fraction(3)), 50.0)
    survey = Survey(ranking, (), jobs=1, waiting=0, max_waiting=9, now=50.0)
    if ranking.best is None and Reason.BUSY not in ranking.reasons():
        with pytest.raises(ProblemError) as raised:
            foresee(survey)
        assert raised.value.problem.status == 503
        return
    foreseen = foresee(survey)
    if ranking.best is not None:
        assert (foreseen.best, foreseen.wait) == (ranking.best, 0)
        assert foreseen.free == len(ranking.candidates)
    else:
        assert foreseen.free == 0
        assert foreseen.wait >= 1
        assert cap is None or foreseen.best.prospect.price <= cap
