"""Late jobs on their way through real sockets to two scripted orchestrators at a time."""

import asyncio
import shutil
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from fractions import Fraction
from pathlib import Path

import pytest
from sqlalchemy import Connection, select

from gateway.accounting.journal import MIGRATIONS, open_journal
from gateway.accounting.tables import attempts, outcomes
from gateway.dispatch import DispatchResult, Routing
from gateway.dispatch.hedging import Hedging
from gateway.dispatch.journey import need_of
from gateway.keys import UseLimits
from gateway.orchestrators.client import NodeAnswer, Order
from gateway.orchestrators.job_events import Advanced, News
from gateway.orchestrators.offer import Offer
from gateway.orchestrators.trail import Trail, bind
from gateway.payments.budget import Limits
from network.errors import ProblemError
from network.runtime.clock import SystemClock
from network.runtime.database import open_database
from network.runtime.trace import begin_trace
from network.units import Wei
from tests.gateway.routing import Desk, Key, open_desk, request_for, until
from tests.gateway.stub_orchestrator import Behaviour, StubModel, StubOrchestrator, running

#: What the default request costs at 1 wei per pixel, and at 3.
FEE, DEAR = 64 * 64, 3 * 64 * 64
#: A job is late that takes longer than half of its like; two of them tell.
HEDGING = Hedging(Wei(DEAR), share=1.0, spare=5, quantile=0.5)
#: Nothing is tried again after a failure.
NO_RETRIES = Routing(retry_share=0.0, retry_spare=0, max_failures=1)


def two(seconds: float = 30.0, script: Behaviour = "deliver") -> tuple[StubOrchestrator, ...]:
    """The first is cheaper, and will be late by so many seconds."""
    first, second = StubOrchestrator(), StubOrchestrator({"m": StubModel(Fraction(3))})
    first.job_seconds = seconds
    first.script.append(script)
    return first, second


@asynccontextmanager
async def hedged_desk(
    tmp_path: Path,
    stubs: tuple[StubOrchestrator, ...],
    *,
    hedging: Hedging | None = HEDGING,
    routing: Routing = NO_RETRIES,
    limits: Limits = Limits(),  # noqa: B008
) -> AsyncIterator[Desk]:
    """It has seen quick jobs of the first."""
    first, second = stubs
    seconds, first.job_seconds = first.job_seconds, 0.0
    script = list(first.script)
    first.script.clear()
    async with (
        running(first),
        running(second),
        open_desk(tmp_path, stubs, hedging=hedging, routing=routing, limits=limits) as desk,
    ):
        for number in range(4):
            result = await desk.dispatcher.run(f"quick{number}", Key(), request_for())
            assert result.orchestrator == first.uri
        first.job_seconds = seconds
        first.script.extend(script)
        yield desk


def fates(desk: Desk) -> Mapping[str, int]:
    assert desk.dispatcher.hedges is not None
    return Counter(desk.dispatcher.hedges.figures())


async def run(desk: Desk, key: Key = Key()) -> DispatchResult:  # noqa: B008
    result = await desk.dispatcher.run("r", key, request_for())
    await result.settled
    return result


async def ends(desk: Desk) -> dict[str, tuple[str, int]]:
    """By orchestrator, what the journal says of the last request's attempts."""

    def query(connection: Connection) -> dict[str, tuple[str, int]]:
        columns = (attempts.c.orchestrator, outcomes.c.state, outcomes.c.fee)
        joined = select(*columns).join(outcomes, outcomes.c.attempt_id == attempts.c.attempt_id)
        rows = connection.execute(joined.where(attempts.c.request_id == "r"))
        return {uri: (state, fee) for uri, state, fee in rows}

    return await desk.journal.read(query)


def expected_of(desk: Desk, uri: str) -> int:
    """Femtoseconds that the usual job is expected to take there."""
    need = need_of(request_for(), None)
    found = desk.directory.best(
        need, SystemClock().monotonic(), set(desk.directory.uris()) - {uri}
    )
    assert found is not None
    return found.expected


async def test_a_late_job_is_delivered_by_a_second_and_the_first_is_freed(tmp_path: Path) -> None:
    first, second = stubs = two()
    trail = Trail(begin_trace(()))
    async with hedged_desk(tmp_path, stubs) as desk:
        bind(trail)
        believed = expected_of(desk, first.uri)
        result = await run(desk)
        assert (result.orchestrator, result.fee, result.attempts) == (second.uri, DEAR, 2)
        await until(lambda: first.cancelled == 1 and not first.under_way)
        assert fates(desk) == Counter(second=1)
        assert await ends(desk) == {first.uri: ("outrun", 0), second.uri: ("succeeded", DEAR)}
        # It is no fault to be slow, but it is remembered.
        states = {state.uri: state for state in desk.directory.states()}
        assert (states[first.uri].failures, states[first.uri].paused_for) == (0, 0)
        assert expected_of(desk, first.uri) > believed
        # Both were to make the same images.
        assert first.seen[-1].body == second.seen[-1].body
        assert first.seen[-1].attempt_id != second.seen[-1].attempt_id
    assert trail.hedge == "second"
    assert [attempt.outcome for attempt in trail.attempts] == ["outrun", "delivered"]
    assert trail.telling.orchestrator == second.uri


async def test_one_that_is_late_and_sooner_all_the_same_is_paid_alone(tmp_path: Path) -> None:
    first, second = stubs = two(0.4)
    second.script.append("hang")
    async with hedged_desk(tmp_path, stubs) as desk:
        began = SystemClock().monotonic()
        result = await run(desk)
        assert (result.orchestrator, result.fee, result.attempts) == (first.uri, FEE, 2)
        # The time in which both were asked counts once.
        assert 0.4 <= result.orchestrator_seconds <= SystemClock().monotonic() - began
        await until(lambda: second.cancelled == 1)
        assert fates(desk) == Counter(first=1)
        assert await ends(desk) == {first.uri: ("succeeded", FEE), second.uri: ("outrun", 0)}


async def test_what_is_in_time_is_left_alone(tmp_path: Path) -> None:
    first, second = stubs = two(0.0)
    async with hedged_desk(tmp_path, stubs) as desk:
        await run(desk)
        assert fates(desk) == Counter()
        assert not second.seen
    assert len(first.seen) == 5


async def test_of_two_that_deliver_together_the_client_pays_the_cheaper_and_we_owe_for_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = stubs = two(0.3)
    both = asyncio.Barrier(2)
    async with hedged_desk(tmp_path, stubs) as desk:
        ask = desk.client.text_to_image

        async def together(offer: Offer, order: Order, timeout_seconds: float) -> NodeAnswer:
            answer = await ask(offer, order, timeout_seconds)
            await both.wait()
            return answer

        monkeypatch.setattr(desk.client, "text_to_image", together)
        key = Key(limits=UseLimits(wei_per_day=Wei(5 * FEE + DEAR)))
        result = await run(desk, key)
        assert (result.orchestrator, result.fee) == (first.uri, FEE)
        assert fates(desk) == Counter(both=1)
        assert await ends(desk) == {first.uri: ("succeeded", FEE), second.uri: ("outrun", DEAR)}
        totals = {one.orchestrator: one for one in await desk.journal.orchestrator_totals()}
        spare = totals[second.uri]
        assert (spare.fee, spare.outrun, spare.outrun_fee) == (DEAR, 1, DEAR)
        assert (spare.succeeded, spare.failed) == (0, 0)
        # Neither key nor usage knows of the second fee.
        (used,) = await desk.journal.usage("key")
        assert used.fee == 5 * FEE


@pytest.mark.parametrize("script", ["drop", "crash_500"])
async def test_where_the_late_one_fails_the_second_is_no_retry(
    tmp_path: Path, script: Behaviour
) -> None:
    first, second = stubs = two(0.3, script)
    second.job_seconds = 0.6
    async with hedged_desk(tmp_path, stubs) as desk:
        result = await run(desk)
        assert (result.orchestrator, result.attempts) == (second.uri, 2)
        assert await ends(desk) == {first.uri: ("failed", 0), second.uri: ("succeeded", DEAR)}
        states = {state.uri: state.failures for state in desk.directory.states()}
        assert states == {first.uri: 1, second.uri: 0}


@pytest.mark.parametrize(
    "script", ["crash_500", "bad_request", "busy", "wrong_seed", "price_changed"]
)
async def test_what_is_wrong_with_the_second_is_nothing_to_the_first(
    tmp_path: Path, script: Behaviour
) -> None:
    first, second = stubs = two(0.4)
    second.script.append(script)
    async with hedged_desk(tmp_path, stubs) as desk:
        result = await run(desk)
        assert (result.orchestrator, result.fee) == (first.uri, FEE)
        assert len(second.seen) == 1
        assert fates(desk) == Counter(first=1)
        assert (await ends(desk))[first.uri] == ("succeeded", FEE)


async def test_who_finds_the_images_unsafe_ends_both(tmp_path: Path) -> None:
    first, second = stubs = two()
    second.script.append("unsafe")
    async with hedged_desk(tmp_path, stubs) as desk:
        with pytest.raises(ProblemError) as caught:
            await run(desk)
        assert caught.value.problem.code == "content_policy_violation"
        await until(lambda: first.cancelled == 1)
        assert await ends(desk) == {first.uri: ("outrun", 0), second.uri: ("refused", 0)}


async def test_where_both_fail_the_client_learns_of_the_last(tmp_path: Path) -> None:
    first, second = stubs = two(0.3, "drop")
    second.script.append("crash_500")
    async with hedged_desk(tmp_path, stubs) as desk:
        with pytest.raises(ProblemError) as caught:
            await run(desk)
        assert caught.value.problem.code == "orchestrators_failed"
        assert fates(desk) == Counter(neither=1)
        assert await ends(desk) == {first.uri: ("failed", 0), second.uri: ("failed", 0)}


async def test_a_client_that_goes_away_frees_both(tmp_path: Path) -> None:
    first, second = stubs = two()
    second.script.append("hang")
    async with hedged_desk(tmp_path, stubs) as desk:
        request = asyncio.create_task(run(desk))
        await until(lambda: second.under_way)
        assert desk.budget.total == FEE + DEAR
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request
        await until(lambda: first.cancelled == second.cancelled == 1)
        assert await ends(desk) == {first.uri: ("cancelled", 0), second.uri: ("cancelled", 0)}
        record = await desk.journal.request("r")
        assert record is not None
        assert (record.state, record.fee, record.attempts) == ("cancelled", 0, 2)


async def test_the_deadline_ends_both(tmp_path: Path) -> None:
    first, second = stubs = two()
    second.script.append("hang")
    async with hedged_desk(tmp_path, stubs, routing=Routing(deadline=1.0)) as desk:
        with pytest.raises(ProblemError) as caught:
            await run(desk)
        assert caught.value.problem.code == "deadline_exceeded"
        await until(lambda: first.cancelled == second.cancelled == 1)
        assert await ends(desk) == {first.uri: ("failed", 0), second.uri: ("failed", 0)}


QUICK = 4 * FEE
LIMITED: list[tuple[Key, Limits, bool]] = [
    (Key(limits=UseLimits(wei_per_day=Wei(QUICK + FEE + DEAR))), Limits(), True),
    (Key(limits=UseLimits(wei_per_day=Wei(QUICK + FEE + DEAR - 1))), Limits(), False),
    (Key(), Limits(max_wei_in_flight=Wei(FEE + DEAR)), True),
    (Key(), Limits(max_wei_in_flight=Wei(FEE + DEAR - 1)), False),
    (Key(max_price=Fraction(3)), Limits(), True),
    (Key(max_price=Fraction(5, 2)), Limits(), False),
]


@pytest.mark.parametrize(("key", "limits", "is_hedged"), LIMITED)
async def test_both_fees_are_within_every_limit_or_there_is_no_second(
    tmp_path: Path, *, key: Key, limits: Limits, is_hedged: bool
) -> None:
    first, second = stubs = two(0.4)
    second.script.append("hang")
    async with hedged_desk(tmp_path, stubs, limits=limits) as desk:
        request = asyncio.create_task(run(desk, key))
        await until(lambda: second.under_way if is_hedged else fates(desk)["withheld"])
        assert desk.budget.total == (FEE + DEAR if is_hedged else FEE)
        result = await request
        assert (result.orchestrator, result.fee) == (first.uri, FEE)
        assert bool(second.seen) == is_hedged
        # What is spent is one fee, and nothing is held for the other: there is room for what is left.
        if key.limits.wei_per_day is not None:
            assert key.limits.wei_per_day >= QUICK + 2 * FEE
            first.job_seconds = 0.0
            await desk.dispatcher.run("r2", key, request_for())


async def test_when_the_second_failed_nothing_more_is_held_for_it(tmp_path: Path) -> None:
    first, second = stubs = two(0.8)
    second.script.append("crash_500")
    async with hedged_desk(tmp_path, stubs) as desk:
        request = asyncio.create_task(run(desk))
        await until(lambda: second.seen and not second.under_way)
        await until(lambda: desk.budget.total == FEE)
        assert (await request).orchestrator == first.uri


OTHERS: list[tuple[Hedging, bool]] = [
    (Hedging(Wei(DEAR - 1), share=1.0, spare=5, quantile=0.5), False),
    (Hedging(Wei(FEE - 1), share=1.0, spare=5, quantile=0.5), False),
    (Hedging(Wei(DEAR), share=0.05, spare=0, quantile=0.5), False),
    (Hedging(Wei(DEAR), share=0.25, spare=0, quantile=0.5), True),
    (Hedging(Wei(DEAR), share=1.0, spare=5, quantile=0.95), False),
]


@pytest.mark.parametrize(("hedging", "is_hedged"), OTHERS)
async def test_what_is_dear_too_often_or_not_known_to_be_late_gets_no_second(
    tmp_path: Path, *, hedging: Hedging, is_hedged: bool
) -> None:
    first, second = stubs = two(0.3)
    async with hedged_desk(tmp_path, stubs, hedging=hedging) as desk:
        result = await run(desk)
        assert bool(second.seen) == is_hedged
        assert result.orchestrator == (second.uri if is_hedged else first.uri)


async def test_without_the_setting_nothing_of_it_is_there(tmp_path: Path) -> None:
    _, second = stubs = two(0.3)
    async with hedged_desk(tmp_path, stubs, hedging=None) as desk:
        assert desk.dispatcher.hedges is None
        assert (await run(desk)).attempts == 1
        assert not second.seen


def copy_files(source: Path, target: Path) -> None:
    target.mkdir()
    for file in source.glob("*.*"):
        shutil.copy(file, target)


async def test_a_gateway_that_is_killed_with_two_under_way_charges_nothing(tmp_path: Path) -> None:
    _, second = stubs = two()
    second.script.append("hang")
    left = tmp_path / "left"
    async with hedged_desk(tmp_path, stubs) as desk:
        request = asyncio.create_task(run(desk))
        await until(lambda: second.under_way)
        # What a process leaves behind that is killed now.
        await asyncio.to_thread(copy_files, tmp_path, left)
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request
    async with (
        open_database(f"sqlite:///{left / 'gateway.db'}", MIGRATIONS) as database,
        open_journal(database, left / "journal.ahead") as journal,
    ):
        assert await journal.close_interrupted(0.0) == 1
        record = await journal.request("r")
        assert record is not None
        assert (record.state, record.fee, record.attempts) == ("interrupted", 0, 2)
        assert await journal.close_interrupted(0.0) == 0


async def test_whoever_is_ahead_is_shown_and_never_both(tmp_path: Path) -> None:
    first, second = stubs = two()
    second.script.append("hang")
    # The stubs tell how far they are when they are asked, and nothing by themselves.
    async with hedged_desk(tmp_path, stubs) as desk:
        request = asyncio.create_task(run(desk))
        await until(lambda: second.under_way)
        watching = desk.dispatcher.watching
        shown: list[News] = []

        async def watch() -> None:
            async for news in watching.watch("r", "key"):
                shown.append(news)  # noqa: PERF401  it is looked at meanwhile

        at_first, at_second = first.seen[-1].attempt_id, second.seen[-1].attempt_id
        first.progress[at_first], second.progress[at_second] = 4, 1
        watcher = asyncio.create_task(watch())
        await until(lambda: Advanced(4, 5) in shown)
        told = await watching.progress("r", "key")
        assert told is not None
        assert (told.state, told.done_steps) == ("running", 4)
        second.progress[at_second] = 5
        await until(lambda: Advanced(5, 5) in shown)
        first.progress[at_first] = 4
        told = await watching.progress("r", "key")
        assert told is not None
        assert told.done_steps == 5
        count = len(shown)
        await until(lambda: len(shown) >= count + 3)
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request
        await asyncio.wait_for(watcher, 5)
    steps = [news.done for news in shown if isinstance(news, Advanced)]
    # Which of the two is heard of first is open; from the moment that one is ahead it is that one.
    assert steps == sorted(steps)
    assert set(steps) <= {1, 4, 5}
