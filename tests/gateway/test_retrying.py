"""Retries are a share of the requests and some more, whatever happens, and never come too late."""

from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dispatch import Routing
from gateway.dispatch.retrying import RetryBudget
from gateway.orchestrators.standing import Delivery, Fault
from network.errors import Problem, ProblemError
from network.units import ModelId
from tests.gateway.routing import Desk, Key, open_desk, request_for
from tests.gateway.stub_orchestrator import StubModel, StubOrchestrator, running


@given(
    st.floats(0, 1),
    st.integers(0, 20),
    st.lists(st.sampled_from(["request", "retry", "wait"]), max_size=300),
)
def test_retries_are_a_share_of_the_requests_and_the_spare_ones(
    share: float, spare: int, events: list[str]
) -> None:
    budget, now, requests, retries = RetryBudget(share, spare), 100.0, 0, 0
    for event in events:
        if event == "request":
            budget.earn()
            requests += 1
        elif event == "wait":
            now += 3.0
        else:
            retries += budget.spend(now)
        minutes = (now - 100.0) / 60
        assert retries <= spare + share * requests + spare * minutes + 1e-6


def test_after_a_minute_all_spare_retries_are_there_again_and_no_more() -> None:
    budget = RetryBudget(0.0, 5)
    assert [budget.spend(1.0) for _ in range(6)] == [True] * 5 + [False]
    assert not budget.spend(10.0)
    assert budget.spend(13.1)
    assert sum(budget.spend(500.0) for _ in range(9)) == 5


def test_requests_earn_retries_where_none_are_spare() -> None:
    budget = RetryBudget(0.25, 0)
    assert not budget.spend(0.0)
    for _ in range(3):
        budget.earn()
    assert not budget.spend(0.0)
    budget.earn()
    assert budget.spend(0.0)
    assert not budget.spend(0.0)


async def problem_of(desk: Desk) -> Problem:
    with pytest.raises(ProblemError) as caught:
        await desk.dispatcher.run("r", Key(), request_for())
    return caught.value.problem


async def test_an_outage_is_not_made_worse_and_the_client_learns_why(tmp_path: Path) -> None:
    one, other = StubOrchestrator(), StubOrchestrator({"m": StubModel(Fraction(9))})
    one.script.append("crash_500")
    routing = Routing(retry_share=0.0, retry_spare=0)
    async with (
        running(one),
        running(other),
        open_desk(tmp_path, [one, other], routing=routing) as desk,
    ):
        problem = await problem_of(desk)
        assert (problem.status, problem.code) == (503, "orchestrators_failed")
        assert "was not sent to another" in problem.message
        assert "CUDA error" in problem.message
        assert not other.seen
        # A first attempt is no retry, and neither is what follows a refusal for want of a place.
        other.script.append("busy")
        assert (await desk.dispatcher.run("r2", Key(), request_for())).attempts == 2


async def test_a_retry_that_would_come_too_late_is_not_started(tmp_path: Path) -> None:
    one, slow = StubOrchestrator(), StubOrchestrator({"m": StubModel(Fraction(9))})
    quick = StubOrchestrator({"m": StubModel(Fraction(99))})
    async with (
        running(one),
        running(slow),
        running(quick),
        open_desk(tmp_path, [one, slow, quick], routing=Routing(deadline=30)) as desk,
    ):
        request = request_for()
        job = Delivery(ModelId("m"), request.width * request.height, 5, seconds=400.0)
        desk.directory.note_success(slow.uri, job)
        one.script.append("crash_500")
        result = await desk.dispatcher.run("r1", Key(), request)
        assert result.orchestrator == quick.uri
        assert not slow.seen
        desk.directory.note_failure(one.uri, Fault.FAULTY, "again")
        desk.directory.note_success(quick.uri, job)
        # Without a failure before, the slow one is tried all the same: it may be quicker than we think.
        slow.script.append("crash_500")
        problem = await problem_of(desk)
        assert (problem.status, problem.code) == (503, "deadline_exceeded")
        assert "expected to deliver within" in problem.message
        assert (len(slow.seen), len(quick.seen)) == (1, 1)
