"""Budgets and rates of keys and teams: exact under concurrency, and after the gateway was killed."""

import asyncio
import json
import os
from collections import Counter
from pathlib import Path

import aiohttp
import pytest

from gateway.home import open_gateway_database
from gateway.keys import UseLimits, create_key, set_team
from network.errors import ProblemError
from network.runtime.clock import SystemClock
from network.units import Wei
from scripts.local_network.network import Gateway, start_gateway
from tests.gateway.routing import Key, open_desk, request_for
from tests.gateway.stub_orchestrator import StubModel, StubOrchestrator, running
from tests.gateway.test_app import BODY, serving, settings_for
from tests.integration.journals import gateway_requests

#: What a request of `request_for` and of BODY costs: 64 x 64 pixels at 1 wei.
FEE = 64 * 64


async def test_of_a_thousand_at_once_a_budget_for_a_hundred_lets_exactly_a_hundred_through(
    tmp_path: Path,
) -> None:
    stub = StubOrchestrator(capacity=50)
    key = Key(limits=UseLimits(wei_per_day=Wei(100 * FEE + FEE - 1)))
    async with running(stub), open_desk(tmp_path, [stub]) as desk:

        async def one(number: int) -> str:
            try:
                result = await desk.dispatcher.run(f"r{number}", key, request_for())
            except ProblemError as error:
                return error.problem.code
            await result.settled
            return "delivered"

        answers = Counter(await asyncio.gather(*(one(number) for number in range(1000))))
        assert answers == {"delivered": 100, "budget_exceeded": 900}
        assert stub.delivered == 100


async def test_what_fails_is_given_back(tmp_path: Path) -> None:
    stub = StubOrchestrator()
    stub.script.append("returned_400")
    key = Key(limits=UseLimits(wei_per_month=Wei(FEE)))
    async with running(stub), open_desk(tmp_path, [stub]) as desk:
        with pytest.raises(ProblemError):
            await desk.dispatcher.run("r1", key, request_for())
        assert (await desk.dispatcher.run("r2", key, request_for())).fee == FEE
        with pytest.raises(ProblemError, match="may spend 4096 wei in a month: 4096 are spent"):
            await desk.dispatcher.run("r3", key, request_for())


async def limited(folder: Path, limits: UseLimits, team: UseLimits | None = None) -> str:
    """A key of a gateway that is not running or running, whichever."""
    settings = settings_for(folder, "http://127.0.0.1:9")
    async with open_gateway_database(settings) as database:
        if team is not None:
            given = {name: v for name, v in vars_of(team).items() if v is not None}
            await set_team(database, SystemClock(), "crew", given)
        _, key = await create_key(
            database,
            SystemClock(),
            name="limited",
            limits=limits,
            team=None if team is None else "crew",
        )
    return key


def vars_of(limits: UseLimits) -> dict[str, int | None]:
    return {name: getattr(limits, name) for name in UseLimits.__dataclass_fields__}


async def test_a_budget_is_402_with_its_reset_and_survives_a_restart(tmp_path: Path) -> None:
    async with running(StubOrchestrator({"m": StubModel()})) as stub:
        settings = settings_for(tmp_path, stub.uri)
        async with serving(settings) as stage:
            stage.key = await limited(tmp_path, UseLimits(wei_per_day=Wei(2 * FEE)))
            assert [(await stage.post()).status for _ in range(2)] == [200, 200]
            answer = await stage.post()
            assert answer.status == 402
            body = await answer.json()
            assert body["error"]["code"] == "budget_exceeded"
            assert f"may spend {2 * FEE} wei in a day" in body["detail"]["msg"]
            assert 0 < int(answer.headers["Retry-After"]) <= 86_400
            key = stage.key
        async with serving(settings) as stage:
            stage.key = key
            assert (await stage.post()).status == 402


async def test_what_no_day_allows_is_not_promised_for_the_next(tmp_path: Path) -> None:
    async with running(StubOrchestrator()) as stub, open_desk(tmp_path, [stub]) as desk:
        key = Key(limits=UseLimits(wei_per_day=Wei(FEE - 1)))
        with pytest.raises(ProblemError, match="more than any day allows") as caught:
            await desk.dispatcher.run("r1", key, request_for())
        assert "The next day begins" not in str(caught.value)


async def test_a_teams_budget_is_shared_by_its_keys(tmp_path: Path) -> None:
    async with (
        running(StubOrchestrator({"m": StubModel()})) as stub,
        serving(settings_for(tmp_path, stub.uri)) as stage,
    ):
        crew = UseLimits(wei_per_day=Wei(2 * FEE))
        keys = [await limited(tmp_path, UseLimits(), crew) for _ in range(2)]
        seen = []
        for key in (*keys, *keys):
            stage.key = key
            seen.append((await stage.post()).status)
        assert seen == [200, 200, 402, 402]


async def test_requests_a_minute_are_told_on_every_answer_and_then_429(tmp_path: Path) -> None:
    async with (
        running(StubOrchestrator({"m": StubModel()})) as stub,
        serving(settings_for(tmp_path, stub.uri)) as stage,
    ):
        stage.key = await limited(tmp_path, UseLimits(requests_per_minute=2))
        first, second, third = [await stage.post() for _ in range(3)]
        assert [one.status for one in (first, second, third)] == [200, 200, 429]
        assert first.headers["RateLimit-Limit"] == "2"
        assert first.headers["RateLimit-Remaining"] == "1"
        assert third.headers["RateLimit-Remaining"] == "0"
        assert 1 <= int(third.headers["Retry-After"]) <= 30
        assert (await third.json())["error"]["type"] == "rate_limit_error"


async def test_pixels_a_minute_bound_what_is_asked_for(tmp_path: Path) -> None:
    async with (
        running(StubOrchestrator({"m": StubModel()})) as stub,
        serving(settings_for(tmp_path, stub.uri)) as stage,
    ):
        stage.key = await limited(tmp_path, UseLimits(pixels_per_minute=2 * FEE))
        assert (await stage.post(num_images_per_prompt=2)).status == 200
        assert (await stage.post()).status == 429
        too_many = await stage.post(num_images_per_prompt=3)
        assert too_many.status == 400
        assert (await too_many.json())["error"]["code"] == "above_rate_limit"


async def test_a_refusal_tells_of_the_limit_that_it_is_about(tmp_path: Path) -> None:
    async with (
        running(StubOrchestrator({"m": StubModel()})) as stub,
        serving(settings_for(tmp_path, stub.uri)) as stage,
    ):
        both = UseLimits(requests_per_minute=9, pixels_per_minute=FEE)
        stage.key = await limited(tmp_path, both)
        first, second = await stage.post(), await stage.post()
        assert (first.headers["RateLimit-Limit"], first.headers["RateLimit-Remaining"]) == (
            "9",
            "8",
        )
        assert (second.status, second.headers["RateLimit-Limit"]) == (429, str(FEE))
        assert int(second.headers["RateLimit-Remaining"]) < FEE


async def test_a_stream_tells_what_is_left_as_any_answer(tmp_path: Path) -> None:
    async with (
        running(StubOrchestrator({"m": StubModel()})) as stub,
        serving(settings_for(tmp_path, stub.uri)) as stage,
    ):
        stage.key = await limited(tmp_path, UseLimits(requests_per_minute=9))
        async with stage.client.post(
            f"{stage.gateway.url}/v1/images/generations",
            json={"prompt": "a boat", "size": "64x64", "stream": True},
            headers={"Authorization": f"Bearer {stage.key}"},
        ) as answer:
            assert answer.content_type == "text/event-stream"
            assert answer.headers["RateLimit-Remaining"] == "8"


async def _ask_until_refused(gateway: Gateway, key: str, count: int) -> Counter[int]:
    """How many answers of each status; 0 for none."""
    connector = aiohttp.TCPConnector(limit=200)
    seen: Counter[int] = Counter()

    async def one() -> None:
        headers = {"Authorization": f"Bearer {key}"}
        try:
            async with http.post(
                f"{gateway.url}/text-to-image", json=BODY, headers=headers
            ) as answer:
                await answer.read()
                seen[answer.status] += 1
        except aiohttp.ClientError:
            seen[0] += 1

    async with aiohttp.ClientSession(connector=connector) as http:
        await asyncio.gather(*(one() for _ in range(count)))
    return seen


@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_a_budget_holds_to_the_request_though_the_gateway_is_killed_meanwhile(
    tmp_path: Path,
) -> None:
    count = int(os.environ.get("LIMNER_BUDGET_REQUESTS", "1000"))
    budget = count // 10
    stub = StubOrchestrator({"m": StubModel()}, capacity=8, job_seconds=0.01)
    async with running(stub):
        gateway = await asyncio.to_thread(
            start_gateway,
            tmp_path,
            orchestrators=[stub.uri],
            settings={
                "default_model": "m",
                "server.max_in_flight": count + 1,
                "server.max_in_flight_per_key": count + 1,
            },
        )
        try:
            said = await asyncio.to_thread(
                gateway.run_tool, "keys", "create", "k", "--json", f"--wei-per-day={budget * FEE}"
            )
            key = json.loads(said)["key"]
            async with asyncio.TaskGroup() as group:
                asking = group.create_task(_ask_until_refused(gateway, key, count))
                while stub.delivered < budget // 3:  # noqa: ASYNC110  a stub's count has no event
                    await asyncio.sleep(0.002)
                gateway.program.kill()
            before = asking.result()
            await asyncio.to_thread(gateway.start)
            after = await _ask_until_refused(gateway, key, count)
        finally:
            await asyncio.to_thread(gateway.program.stop)
    settled = [request for request in gateway_requests(gateway) if request.state == "settled"]
    assert len(settled) == budget
    assert sum(request.fee for request in settled) == budget * FEE
    assert before[0], "the kill came too late to cut anything"
    # Whoever has an answer is in the journal; who was cut off may be, too.
    assert before[200] + after[200] <= budget
    assert after[402] == count - after[200]
