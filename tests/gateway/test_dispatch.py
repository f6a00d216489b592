"""Requests on their way through real sockets to scripted orchestrators."""

import asyncio
from fractions import Fraction
from pathlib import Path

import pytest

from network.errors import ProblemError
from network.units import ModelId
from tests.gateway.routing import Key, open_desk, request_for
from tests.gateway.stub_orchestrator import StubModel, StubOrchestrator, png, running


async def test_a_request_is_delivered_by_the_cheapest_and_paid_once(tmp_path: Path) -> None:
    dear = StubOrchestrator({"m": StubModel(Fraction(3))})
    cheap = StubOrchestrator({"m": StubModel(Fraction(5, 2))}, warnings="it was cut")
    async with running(dear), running(cheap), open_desk(tmp_path, [dear, cheap]) as desk:
        result = await desk.dispatcher.run("r1", Key(), request_for(num_images_per_prompt=2))
        await result.settled
        assert result.orchestrator == cheap.uri
        assert result.fee == 64 * 64 * 2 * 5 // 2
        assert result.warnings == "it was cut"
        assert [picture.seed for picture in result.images] == [7, 8]
        assert result.images[0].png == png(64, 64, 200, marker=7)
        record = await desk.journal.request("r1")
        assert record is not None
        assert (record.state, record.fee, record.attempts) == ("settled", result.fee, 1)
        assert record.orchestrator == cheap.uri
        assert not dear.seen
    job = cheap.seen[0]
    assert job.payment.expected_price == Fraction(5, 2)
    assert job.authorization == "Livepeer-AI-Worker-1.0"
    assert job.body["prompt"] == "a boat"


async def test_a_busy_orchestrator_is_passed_over_without_a_grudge(tmp_path: Path) -> None:
    cheap, dear = StubOrchestrator(), StubOrchestrator({"m": StubModel(Fraction(9))})
    cheap.script.append("busy")
    async with running(cheap), running(dear), open_desk(tmp_path, [cheap, dear]) as desk:
        result = await desk.dispatcher.run("r1", Key(), request_for())
        assert (result.orchestrator, result.attempts) == (dear.uri, 2)
        assert all(state.failures == 0 for state in desk.directory.states())
        await asyncio.sleep(0.1)
        again = await desk.dispatcher.run("r2", Key(), request_for())
        assert again.orchestrator == cheap.uri


async def test_only_who_asks_for_determinism_sends_the_field_that_livepeers_do_not_know(
    tmp_path: Path,
) -> None:
    stub = StubOrchestrator()
    async with running(stub), open_desk(tmp_path, [stub]) as desk:
        await desk.dispatcher.run("r1", Key(), request_for())
        await desk.dispatcher.run("r2", Key(), request_for(deterministic=True))
        assert [job.body.get("deterministic") for job in stub.seen] == [None, True]


@pytest.mark.parametrize("count", [64])
async def test_a_crowd_is_served_in_order_of_arrival(tmp_path: Path, count: int) -> None:
    stub = StubOrchestrator(capacity=2, job_seconds=0.005)
    async with running(stub), open_desk(tmp_path, [stub]) as desk:
        done: list[int] = []

        async def one(number: int) -> None:
            request = request_for(seed=number)
            result = await desk.dispatcher.run(f"r{number}", Key(), request)
            assert result.images[0].seed == number
            done.append(number)

        await asyncio.gather(*(one(number) for number in range(count)))
        assert stub.delivered == count
        assert stub.most_under_way <= 2
    # Two at a time: neighbours may swap, nobody is overtaken by many.
    assert all(abs(place - number) <= 8 for place, number in enumerate(done))


async def test_an_unknown_model_is_a_404_that_names_the_known(tmp_path: Path) -> None:
    stub = StubOrchestrator({"b/two": StubModel(), "a/one": StubModel()})
    async with running(stub), open_desk(tmp_path, [stub]) as desk:
        with pytest.raises(ProblemError) as caught:
            await desk.dispatcher.run("r1", Key(), request_for(model_id="c/three"))
        problem = caught.value.problem
        assert (problem.status, problem.code) == (404, "model_not_found")
        assert "a/one, b/two" in problem.message
        key = Key(models=frozenset({ModelId("a/one")}))
        with pytest.raises(ProblemError) as caught:
            await desk.dispatcher.run("r1", key, request_for(model_id="b/two"))
        assert caught.value.problem.status == 403
