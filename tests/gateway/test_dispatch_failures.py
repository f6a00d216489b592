"""Requests that meet orchestrators with every defect a gateway can see."""

import asyncio
from fractions import Fraction
from pathlib import Path
from typing import get_args

import pytest

from gateway.dispatch import Routing
from gateway.payments.budget import Limits
from network.errors import DatabaseError, Problem, ProblemError
from network.units import Wei
from network.wire.safety import REFUSED_AS_UNSAFE, Safety
from tests.gateway.routing import Desk, Key, open_desk, request_for, until
from tests.gateway.stub_orchestrator import Behaviour, StubModel, StubOrchestrator, running

GOOD = {"deliver", "deliver_by_link", "deliver_chunked", "undercharge"}
#: Refusals in known words: the orchestrator is not thought worse of.
INNOCENT = {"busy", "busy_200", "token_expired", "price_changed"}
CLIENTS_FAULT = {
    "bad_request": "the scheduler does not know 77 steps",
    "returned_400": "prompt too long",
    "unknown_lora": "LoRa 'some/adapter' is not offered here.",
    "unsafe": f"{REFUSED_AS_UNSAFE}: it objects",
}
SLOW = {"hang", "slow_drip", "huge_announced"}
#: What weighs more than a slow answer or a broken connection.
WRONG = {
    "empty_200",
    "no_images",
    "too_many_images",
    "wrong_size",
    "wrong_seed",
    "null_fields",
    "repeated_payload",
    "foreign_link",
    "jpeg",
    "gif",
    "broken_base64",
    "cut_png",
    "overcharge",
    "not_json",
    "deep_json",
}
FAULTS = [
    behaviour
    for behaviour in get_args(Behaviour)
    if behaviour not in GOOD | INNOCENT | CLIENTS_FAULT.keys()
]


async def problem_of(desk: Desk, key: Key = Key(), **fields: object) -> Problem:  # noqa: B008
    with pytest.raises(ProblemError) as caught:
        await desk.dispatcher.run("r", key, request_for(**fields))
    return caught.value.problem


@pytest.mark.parametrize("behaviour", FAULTS)
async def test_after_a_fault_the_next_orchestrator_delivers(
    tmp_path: Path, behaviour: Behaviour
) -> None:
    bad, good = StubOrchestrator(), StubOrchestrator({"m": StubModel(Fraction(9))})
    bad.script.append(behaviour)
    routing = Routing(attempt_timeout=0.3) if behaviour in SLOW else Routing(attempt_timeout=5)
    async with (
        running(bad),
        running(good),
        open_desk(tmp_path, [bad, good], routing=routing) as desk,
    ):
        result = await desk.dispatcher.run("r", Key(), request_for())
        await result.settled
        assert (result.orchestrator, result.attempts) == (good.uri, 2)
        states = {state.uri: state for state in desk.directory.states()}
        assert states[bad.uri].fault == ("wrong" if behaviour in WRONG else "faulty")
        assert states[bad.uri].failures == (3 if behaviour in WRONG else 1)
        assert states[bad.uri].last_fault
        assert states[good.uri].failures == 0
        totals = {total.orchestrator: total for total in await desk.journal.orchestrator_totals()}
        assert (totals[bad.uri].failed, totals[bad.uri].fee) == (1, 0)
        assert totals[good.uri].fee == result.fee
    first, second = bad.seen[0], good.seen[0]
    assert first.attempt_id != second.attempt_id
    assert first.body == second.body


@pytest.mark.parametrize("behaviour", sorted(INNOCENT))
async def test_a_refusal_that_passes_is_no_fault(tmp_path: Path, behaviour: Behaviour) -> None:
    stub = StubOrchestrator()
    stub.script.append(behaviour)
    async with running(stub), open_desk(tmp_path, [stub]) as desk:
        result = await desk.dispatcher.run("r", Key(), request_for())
        assert result.attempts == 2
        assert desk.directory.states()[0].failures == 0


@pytest.mark.parametrize("behaviour", sorted(CLIENTS_FAULT))
async def test_the_clients_mistake_is_told_to_the_client_and_tried_nowhere_else(
    tmp_path: Path, behaviour: Behaviour
) -> None:
    first, second = StubOrchestrator(), StubOrchestrator({"m": StubModel(Fraction(9))})
    first.script.append(behaviour)
    async with running(first), running(second), open_desk(tmp_path, [first, second]) as desk:
        problem = await problem_of(desk)
        assert problem.status == (404 if behaviour == "unknown_lora" else 400)
        assert problem.message == CLIENTS_FAULT[behaviour]
        assert (problem.code == "content_policy_violation") is (behaviour == "unsafe")
        assert not second.seen
        assert desk.directory.states()[0].failures == 0
        record = await desk.journal.request("r")
        assert record is not None
        assert (record.state, record.fee, record.reason) == ("failed", 0, problem.message)


@pytest.mark.parametrize(
    ("verdict", "safety"),
    [
        ({}, Safety.UNKNOWN),  # as go-livepeer's orchestrators answer
        ({"safety": "unchecked"}, Safety.UNCHECKED),
        ({"nsfw": True, "safety": "blurred"}, Safety.BLURRED),
    ],
)
@pytest.mark.parametrize("behaviour", ["deliver", "deliver_by_link"])
async def test_what_an_orchestrator_says_of_safety_is_kept(
    tmp_path: Path, behaviour: Behaviour, verdict: dict[str, object], safety: Safety
) -> None:
    stub = StubOrchestrator(verdict=verdict)
    stub.script.append(behaviour)
    async with running(stub), open_desk(tmp_path, [stub]) as desk:
        result = await desk.dispatcher.run("r", Key(), request_for())
        assert [picture.safety for picture in result.images] == [safety]


@pytest.mark.parametrize("behaviour", ["deliver_by_link", "deliver_chunked"])
async def test_other_good_forms_of_an_answer_are_understood(
    tmp_path: Path, behaviour: Behaviour
) -> None:
    stub = StubOrchestrator()
    stub.script.append(behaviour)
    async with running(stub), open_desk(tmp_path, [stub]) as desk:
        result = await desk.dispatcher.run("r", Key(), request_for(num_images_per_prompt=3))
        assert [picture.seed for picture in result.images] == [7, 8, 9]


async def test_what_was_charged_is_paid_when_it_is_less_than_agreed(tmp_path: Path) -> None:
    stub = StubOrchestrator()
    stub.script.append("undercharge")
    async with running(stub), open_desk(tmp_path, [stub]) as desk:
        result = await desk.dispatcher.run("r", Key(), request_for())
        assert result.fee == 64 * 64 - 1


async def test_when_all_fail_the_client_learns_how_many_and_the_last_reason(
    tmp_path: Path,
) -> None:
    one, two = StubOrchestrator(), StubOrchestrator({"m": StubModel(Fraction(2))})
    one.script.append("crash_500")
    two.script.append("gif")
    async with running(one), running(two), open_desk(tmp_path, [one, two]) as desk:
        problem = await problem_of(desk)
        assert (problem.status, problem.code) == (503, "orchestrators_failed")
        assert "All 2 orchestrators" in problem.message
        assert "data:image/gif" in problem.message
        assert int(problem.headers["Retry-After"]) >= 1
        assert one.uri not in problem.message


async def test_a_price_above_the_cap_is_named_with_the_cheapest(tmp_path: Path) -> None:
    stubs = [StubOrchestrator({"m": StubModel(Fraction(price))}) for price in (7, 5)]
    async with running(stubs[0]), running(stubs[1]), open_desk(tmp_path, stubs) as desk:
        problem = await problem_of(desk, Key(max_price=Fraction(9, 2)))
        assert (problem.status, problem.code) == (503, "price_above_cap")
        assert "4.5 wei per pixel" in problem.message
        assert "cheapest asks 5" in problem.message
        assert not stubs[0].seen + stubs[1].seen


async def test_without_a_free_place_a_request_waits_and_then_learns_when_to_return(
    tmp_path: Path,
) -> None:
    stub = StubOrchestrator(capacity=1, job_seconds=0.5)
    routing = Routing(max_wait=0.1)
    async with running(stub), open_desk(tmp_path, [stub], routing=routing) as desk:
        first = asyncio.create_task(desk.dispatcher.run("first", Key(), request_for()))
        await until(lambda: stub.under_way)
        problem = await problem_of(desk)
        assert (problem.status, problem.code) == (503, "no_capacity")
        assert int(problem.headers["Retry-After"]) >= 1
        await first


async def test_a_full_line_refuses_at_once(tmp_path: Path) -> None:
    stub = StubOrchestrator(capacity=1, job_seconds=0.3)
    routing = Routing(max_waiting=0)
    async with running(stub), open_desk(tmp_path, [stub], routing=routing) as desk:
        first = asyncio.create_task(desk.dispatcher.run("first", Key(), request_for()))
        await until(lambda: stub.under_way)
        problem = await problem_of(desk)
        assert (problem.code, "0 requests wait" in problem.message) == ("no_capacity", True)
        await first


async def test_places_that_others_free_are_found_by_those_who_wait(tmp_path: Path) -> None:
    stub = StubOrchestrator(capacity=1)
    stub.under_way = 1  # somebody else's job
    async with running(stub), open_desk(tmp_path, [stub]) as desk:
        waiting = asyncio.create_task(desk.dispatcher.run("r", Key(), request_for()))
        await until(lambda: desk.dispatcher.waiting)
        progress = await desk.dispatcher.watching.progress("r", "key")
        assert progress is not None
        assert (progress.state, progress.position, progress.total_steps) == ("waiting", 1, 5)
        stub.under_way = 0
        result = await asyncio.wait_for(waiting, 1)
        assert result.attempts == 1


async def test_an_orchestrator_that_only_pretends_to_have_places_is_given_up(
    tmp_path: Path,
) -> None:
    stub = StubOrchestrator({"m": StubModel(free=5)}, capacity=0)
    async with running(stub), open_desk(tmp_path, [stub]) as desk:
        problem = await problem_of(desk)
        assert problem.code == "orchestrators_failed"
        assert "refused 20 times" in problem.message


async def test_credentials_that_stay_bad_are_a_fault(tmp_path: Path) -> None:
    stub = StubOrchestrator()
    stub.script.extend(["token_expired", "token_expired"])
    async with running(stub), open_desk(tmp_path, [stub]) as desk:
        problem = await problem_of(desk)
        assert problem.code == "orchestrators_failed"
        assert desk.directory.states()[0].failures == 1


async def test_a_refreshed_token_is_used_for_the_second_try(tmp_path: Path) -> None:
    stub = StubOrchestrator()
    async with running(stub), open_desk(tmp_path, [stub]) as desk:
        stub.script.append("token_expired")
        stub.token = 1
        await desk.dispatcher.run("r", Key(), request_for())
    tokens = [job.credentials.auth_token for job in stub.seen]
    assert [token.token for token in tokens if token] == [b"t0", b"t1"]


async def test_a_client_that_goes_away_frees_its_place(tmp_path: Path) -> None:
    stub = StubOrchestrator(capacity=1, job_seconds=30)
    async with running(stub), open_desk(tmp_path, [stub]) as desk:
        task = asyncio.create_task(desk.dispatcher.run("r", Key(), request_for()))
        await until(lambda: stub.under_way)
        progress = await desk.dispatcher.watching.progress("r", "key")
        assert progress is not None
        assert (progress.state, progress.done_steps) == ("running", 3)
        assert await desk.dispatcher.watching.progress("r", "another key") is None
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: not stub.under_way)
        assert stub.cancelled == 1
        await desk.journal.drain()
        record = await desk.journal.request("r")
        assert record is not None
        assert (record.state, record.fee) == ("cancelled", 0)


async def test_a_client_that_goes_away_while_waiting_leaves_the_line(tmp_path: Path) -> None:
    stub = StubOrchestrator(capacity=1, job_seconds=0.2)
    async with running(stub), open_desk(tmp_path, [stub]) as desk:
        first = asyncio.create_task(desk.dispatcher.run("first", Key(), request_for()))
        await until(lambda: stub.under_way)
        second = asyncio.create_task(desk.dispatcher.run("second", Key(), request_for()))
        third = asyncio.create_task(desk.dispatcher.run("third", Key(), request_for()))
        await until(lambda: desk.dispatcher.waiting == 2)
        second.cancel()
        await asyncio.gather(first, third)
        assert stub.delivered == 2
        with pytest.raises(asyncio.CancelledError):
            await second


async def test_the_deadline_ends_a_request_wherever_it_is(tmp_path: Path) -> None:
    stub = StubOrchestrator(job_seconds=30)
    routing = Routing(deadline=0.2)
    async with running(stub), open_desk(tmp_path, [stub], routing=routing) as desk:
        problem = await problem_of(desk)
        assert (problem.status, problem.code) == (503, "deadline_exceeded")
        record = await desk.journal.request("r")
        assert record is not None
        assert record.state == "failed"


async def test_a_key_has_only_so_many_requests_in_flight(tmp_path: Path) -> None:
    stub = StubOrchestrator(capacity=4, job_seconds=0.2)
    key = Key(max_in_flight=1)
    async with running(stub), open_desk(tmp_path, [stub]) as desk:
        first = asyncio.create_task(desk.dispatcher.run("first", key, request_for()))
        await until(lambda: stub.under_way)
        problem = await problem_of(desk, key)
        assert (problem.status, problem.code) == (429, "rate_limited")
        await desk.dispatcher.run("other", Key("another key"), request_for())
        await first
        await desk.dispatcher.run("after", key, request_for())


async def test_the_gateway_promises_no_more_than_it_may(tmp_path: Path) -> None:
    stub = StubOrchestrator(capacity=4, job_seconds=0.2)
    limits = Limits(max_wei_in_flight=Wei(64 * 64))
    async with running(stub), open_desk(tmp_path, [stub], limits=limits) as desk:
        first = asyncio.create_task(desk.dispatcher.run("first", Key(), request_for()))
        await until(lambda: stub.under_way)
        assert (await problem_of(desk)).status == 429
        await first


async def test_a_dead_orchestrator_is_no_obstacle_and_is_used_when_it_returns(
    tmp_path: Path,
) -> None:
    dear = StubOrchestrator({"m": StubModel(Fraction(5))})
    cheap = StubOrchestrator()
    async with running(dear):
        async with running(cheap):
            pass
        port = int(cheap.uri.rpartition(":")[2])
        async with open_desk(tmp_path, [cheap, dear]) as desk:
            result = await desk.dispatcher.run("r1", Key(), request_for())
            assert (result.orchestrator, result.attempts) == (dear.uri, 1)
            async with running(cheap, port):
                await asyncio.sleep(1.0)
                result = await desk.dispatcher.run("r2", Key(), request_for())
                assert result.orchestrator == cheap.uri
            result = await desk.dispatcher.run("r3", Key(), request_for())
            assert result.orchestrator == dear.uri


async def test_without_any_orchestrator_the_reason_is_true(tmp_path: Path) -> None:
    async with open_desk(tmp_path, ["http://127.0.0.1:9"]) as desk:
        problem = await problem_of(desk)
        assert problem.code == "orchestrators_failed"
        assert "None of the 1 orchestrators" in problem.message
    async with open_desk(tmp_path, []) as desk:
        assert "no orchestrators configured" in (await problem_of(desk)).message


async def test_an_unknown_lora_is_told_from_other_faults_of_the_client(tmp_path: Path) -> None:
    stub = StubOrchestrator()
    stub.script.extend(["unknown_lora", "returned_400"])
    async with running(stub), open_desk(tmp_path, [stub]) as desk:
        problem = await problem_of(desk)
        assert (problem.status, problem.code, problem.param) == (404, "lora_not_found", "loras")
        assert (await problem_of(desk)).code == "invalid_request"


async def test_prompts_that_come_back_in_a_refusal_are_kept_nowhere(tmp_path: Path) -> None:
    stub = StubOrchestrator()
    stub.script.append("returned_400")
    async with running(stub), open_desk(tmp_path, [stub]) as desk:
        problem = await problem_of(desk, prompt="prompt too")
        assert problem.message == "[prompt] long"
        record = await desk.journal.request("r")
        assert record is not None
        assert record.reason == "[prompt] long"


async def test_nothing_is_sent_that_could_not_be_written_down(tmp_path: Path) -> None:
    stub = StubOrchestrator()
    async with running(stub), open_desk(tmp_path, [stub]) as desk:
        await desk.database.close()
        with pytest.raises(DatabaseError):
            await desk.dispatcher.run("r", Key(), request_for())
        assert not stub.seen


async def test_the_same_request_id_cannot_be_in_flight_twice(tmp_path: Path) -> None:
    stub = StubOrchestrator(job_seconds=0.1)
    async with running(stub), open_desk(tmp_path, [stub]) as desk:
        first = asyncio.create_task(desk.dispatcher.run("r", Key(), request_for()))
        await until(lambda: stub.under_way)
        assert (await problem_of(desk)).status == 400
        await first


async def test_a_seed_that_is_not_given_is_drawn_once_for_all_attempts(tmp_path: Path) -> None:
    stub = StubOrchestrator()
    stub.script.append("busy")
    async with running(stub), open_desk(tmp_path, [stub]) as desk:
        request = request_for(num_images_per_prompt=2).model_copy(update={"seed": None})
        result = await desk.dispatcher.run("r", Key(), request)
        first, second = (picture.seed for picture in result.images)
        assert second == first + 1 < 2**32
    assert stub.seen[0].body["seed"] == stub.seen[1].body["seed"] == first
