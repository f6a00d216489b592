"""Late jobs on their way through real sockets to two scripted orchestrators at a time."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from fractions import Fraction
from pathlib import Path

import pytest
from sqlalchemy import Connection, select

from gateway.accounting.events import Fulfilment
from gateway.accounting.tables import attempts, outcomes
from gateway.dispatch import Delivered, DispatchResult, Routing, hedging
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


def two() -> tuple[StubOrchestrator, StubOrchestrator]:
    """The first is cheaper."""
    return StubOrchestrator(), StubOrchestrator({"m": StubModel(Fraction(3))})


@asynccontextmanager
async def hedged_desk(
    tmp_path: Path,
    stubs: tuple[StubOrchestrator, StubOrchestrator],
    *,
    rules: Hedging | None = HEDGING,
    routing: Routing = NO_RETRIES,
    limits: Limits = Limits(),  # noqa: B008
) -> AsyncIterator[Desk]:
    """It has seen as many quick jobs of the first as tell what is late; the next waits for its gate."""
    first, second = stubs
    async with (
        running(first),
        running(second),
        open_desk(tmp_path, stubs, hedging=rules, routing=routing, limits=limits) as desk,
    ):
        for number in range(3):
            result = await desk.dispatcher.run(f"quick{number}", Key(), request_for())
            assert result.orchestrator == first.uri
        first.gate = asyncio.Event()
        yield desk


def fates(desk: Desk) -> Mapping[str, int]:
    assert desk.dispatcher.hedges is not None
    return Counter(desk.dispatcher.hedges.figures())


async def run(desk: Desk, key: Key = Key()) -> DispatchResult:  # noqa: B008
    result = await desk.dispatcher.run("r", key, request_for())
    await result.settled
    return result


@asynccontextmanager
async def under_way(desk: Desk, key: Key = Key()) -> AsyncIterator["asyncio.Task[DispatchResult]"]:  # noqa: B008
    """A request that is over at the block's end."""
    request = asyncio.create_task(run(desk, key))
    try:
        yield request
        await asyncio.wait_for(asyncio.wait((request,)), 10)
    finally:
        request.cancel()


def let_on(stub: StubOrchestrator) -> None:
    assert stub.gate is not None
    stub.gate.set()


def is_done(stub: StubOrchestrator) -> bool:
    """It had a job, and has none."""
    return bool(stub.seen) and not stub.under_way


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
    first, second = stubs = two()
    second.script.append("hang")
    async with hedged_desk(tmp_path, stubs) as desk:
        began = SystemClock().monotonic()
        async with under_way(desk) as request:
            await until(lambda: second.under_way)
            await asyncio.sleep(0.2)
            let_on(first)
        result = request.result()
        assert (result.orchestrator, result.fee, result.attempts) == (first.uri, FEE, 2)
        # The time in which both were asked counts once.
        assert 0.2 <= result.orchestrator_seconds <= SystemClock().monotonic() - began
        await until(lambda: second.cancelled == 1)
        assert fates(desk) == Counter(first=1)
        assert await ends(desk) == {first.uri: ("succeeded", FEE), second.uri: ("outrun", 0)}


async def test_what_is_in_time_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = stubs = two()
    monkeypatch.setattr(hedging, "_SHORTEST", 30.0)
    async with hedged_desk(tmp_path, stubs) as desk:
        let_on(first)
        await run(desk)
        assert fates(desk) == Counter()
        assert not second.seen
    assert len(first.seen) == 4


async def test_of_two_that_deliver_together_the_client_pays_the_cheaper_and_we_owe_for_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = stubs = two()
    both = asyncio.Barrier(2)
    async with hedged_desk(tmp_path, stubs) as desk:
        ask = desk.client.text_to_image

        async def together(offer: Offer, order: Order, timeout_seconds: float) -> NodeAnswer:
            answer = await ask(offer, order, timeout_seconds)
            await both.wait()
            return answer

        monkeypatch.setattr(desk.client, "text_to_image", together)
        key = Key(limits=UseLimits(wei_per_day=Wei(4 * FEE + DEAR)))
        async with under_way(desk, key) as request:
            await until(lambda: second.delivered)
            let_on(first)
        result = request.result()
        assert (result.orchestrator, result.fee) == (first.uri, FEE)
        assert fates(desk) == Counter(both=1)
        assert await ends(desk) == {first.uri: ("succeeded", FEE), second.uri: ("outrun", DEAR)}
        totals = {one.orchestrator: one for one in await desk.journal.orchestrator_totals()}
        spare = totals[second.uri]
        assert (spare.fee, spare.outrun, spare.outrun_fee) == (DEAR, 1, DEAR)
        assert (spare.succeeded, spare.failed) == (0, 0)
        # Neither key nor usage knows of the second fee.
        (used,) = await desk.journal.usage("key")
        assert used.fee == 4 * FEE


@pytest.mark.parametrize("script", ["drop", "crash_500"])
async def test_where_the_late_one_fails_the_second_is_no_retry(
    tmp_path: Path, script: Behaviour
) -> None:
    first, second = stubs = two()
    second.gate = asyncio.Event()
    async with hedged_desk(tmp_path, stubs) as desk:
        first.script.append(script)
        async with under_way(desk) as request:
            await until(lambda: second.under_way)
            let_on(first)
            await until(lambda: desk.budget.total == DEAR)
            let_on(second)
        result = request.result()
        assert (result.orchestrator, result.attempts) == (second.uri, 2)
        assert await ends(desk) == {first.uri: ("failed", 0), second.uri: ("succeeded", DEAR)}
        states = {state.uri: state.failures for state in desk.directory.states()}
        assert states == {first.uri: 1, second.uri: 0}


WRONG: list[Behaviour] = ["crash_500", "bad_request", "busy", "wrong_seed", "price_changed"]


@pytest.mark.parametrize("script", WRONG)
async def test_what_is_wrong_with_the_second_is_nothing_to_the_first(
    tmp_path: Path, script: Behaviour
) -> None:
    first, second = stubs = two()
    second.script.append(script)
    async with hedged_desk(tmp_path, stubs) as desk:
        async with under_way(desk) as request:
            await until(lambda: is_done(second) and desk.budget.total == FEE)
            let_on(first)
        result = request.result()
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
    first, second = stubs = two()
    second.script.append("crash_500")
    async with hedged_desk(tmp_path, stubs) as desk:
        first.script.append("drop")
        async with under_way(desk) as request:
            await until(lambda: is_done(second) and desk.budget.total == FEE)
            let_on(first)
        with pytest.raises(ProblemError) as caught:
            request.result()
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
    async with hedged_desk(tmp_path, stubs, routing=Routing(deadline=2.0)) as desk:
        with pytest.raises(ProblemError) as caught:
            await run(desk)
        assert caught.value.problem.code == "deadline_exceeded"
        await until(lambda: first.cancelled == second.cancelled == 1)
        assert await ends(desk) == {first.uri: ("failed", 0), second.uri: ("failed", 0)}


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


async def test_an_answer_that_is_kept_is_made_once(tmp_path: Path) -> None:
    _, second = stubs = two()
    kept: list[str] = []

    async def keep(delivered: Delivered) -> Fulfilment:
        kept.append(delivered.orchestrator)
        return Fulfilment("r", "done", 200, "the answer", "{}", 5.0)

    async with hedged_desk(tmp_path, stubs) as desk:
        result = await desk.dispatcher.run("r", Key(), request_for(), keep)
        await result.settled
        assert (result.orchestrator, result.fee) == (second.uri, DEAR)
    assert kept == [second.uri]
