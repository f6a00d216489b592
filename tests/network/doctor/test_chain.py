"""Endpoints, the head, the clock: asked of real ones, and judged by tables."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from aiohttp import web

from network.doctor.chain import (
    EndpointFacts,
    ask_endpoints,
    judge_clock,
    judge_endpoints,
    judge_head,
    judge_head_state,
    look_at_contracts,
)
from network.findings import Verdict
from network.runtime.clock import SystemClock
from tests.devnet import CHAIN_ID, Devnet
from tests.network.doctor.chains import chain_of

NOW = 1_800_000_000.0


def endpoint(
    *,
    problem: str = "",
    chain_id: int = 7,
    age: float | None = 1.0,
    ahead: float | None = 0.0,
) -> EndpointFacts:
    """`ahead` is how far our clock is before the endpoint's."""
    return EndpointFacts(
        host="rpc.example",
        problem=problem,
        chain_id=chain_id,
        block=100,
        block_time=None if age is None else NOW - age,
        date=None if ahead is None else NOW - ahead,
        seen_at=NOW,
    )


DEAD = endpoint(problem="no connection", ahead=None, age=None)
WRONG = endpoint(chain_id=8)
CHAIN = '{"result": "0x7"}'
BLOCK = '{"result": {"number": "0x9", "timestamp": "0x7"}}'
#: A server that answers both questions.
BOTH = "both"


@pytest.mark.parametrize(
    ("facts", "verdicts"),
    [
        ([endpoint()], [Verdict.OK]),
        ([DEAD], [Verdict.FAIL]),
        # One that works is enough; the other is still told.
        ([DEAD, endpoint()], [Verdict.WARN, Verdict.OK]),
        # Another chain ends every start.
        ([WRONG, endpoint()], [Verdict.FAIL, Verdict.OK]),
        ([DEAD, WRONG], [Verdict.FAIL, Verdict.FAIL]),
    ],
)
def test_endpoints_are_judged(facts: list[EndpointFacts], verdicts: list[Verdict]) -> None:
    assert [finding.verdict for finding in judge_endpoints(facts, 7)] == verdicts


@pytest.mark.parametrize(
    ("ages", "is_live", "verdict"),
    [
        ([1.0], True, Verdict.OK),
        ([120.0], True, Verdict.WARN),
        ([900.0], True, Verdict.FAIL),
        ([900.0, 2.0], True, Verdict.OK),
        ([900.0], False, Verdict.OK),
        ([-60.0], True, Verdict.WARN),
        ([-60.0], False, Verdict.OK),
    ],
)
def test_an_old_head_is_told_where_blocks_come_by_the_second(
    ages: list[float], *, is_live: bool, verdict: Verdict
) -> None:
    found = judge_head([endpoint(age=age) for age in ages], 7, is_live=is_live)
    assert found is not None
    assert found.verdict is verdict


def test_nobody_tells_no_head() -> None:
    assert judge_head([DEAD, WRONG], 7, is_live=True) is None


@pytest.mark.parametrize(
    ("ahead", "verdict", "words"),
    [
        ([0.4], Verdict.OK, "within 5 s"),
        ([-4.0], Verdict.OK, "within 5 s"),
        ([30.0], Verdict.WARN, "30 s ahead of 1 server;"),
        ([-30.0], Verdict.WARN, "30 s behind 1 server;"),
        ([-90.0], Verdict.FAIL, "90 s behind"),
        # One wrong server among three does not count, nor the worse one of two.
        ([0.0, 3000.0, 1.0], Verdict.OK, "3 server"),
        ([0.0, -3000.0], Verdict.OK, "2 server"),
        ([], Verdict.SKIP, "no server"),
    ],
)
def test_the_clock_is_held_against_servers(
    ahead: list[float], verdict: Verdict, words: str
) -> None:
    found = judge_clock([DEAD, *(endpoint(ahead=seconds) for seconds in ahead)])
    assert found.verdict is verdict
    assert words in found.detail


@asynccontextmanager
async def server(answer: str, date: str = "") -> AsyncIterator[str]:
    async def post(request: web.Request) -> web.Response:
        headers = {"Date": date} if date else {}
        text = answer
        if answer == BOTH:
            text = CHAIN if "eth_chainId" in await request.text() else BLOCK
        return web.Response(text=text, content_type="application/json", headers=headers)

    app = web.Application()
    app.router.add_post("/{key}", post)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/a-secret-key"
    finally:
        await runner.cleanup()


async def test_a_development_chain_answers(devnet: Devnet) -> None:
    (facts,) = await ask_endpoints([devnet.chain.url], SystemClock())
    assert (facts.problem, facts.chain_id) == ("", CHAIN_ID)
    assert facts.block > 0
    assert judge_clock([facts]).verdict in (Verdict.OK, Verdict.SKIP)


async def test_a_servers_date_shows_that_our_clock_is_wrong() -> None:
    async with server(BOTH, "Tue, 01 Jan 2041 00:00:00 GMT") as url:
        (facts,) = await ask_endpoints([url], SystemClock())
    assert (facts.problem, facts.block) == ("", 9)
    found = judge_clock([facts])
    assert found.verdict is Verdict.FAIL
    assert "behind 1 server" in found.detail


@pytest.mark.parametrize("answer", ["", "[]", "no json", '{"error": {"code": -1}}', "null"])
async def test_what_is_no_endpoint_is_told_without_its_url(answer: str) -> None:
    async with server(answer) as url:
        (facts,) = await ask_endpoints([url], SystemClock())
    (found,) = judge_endpoints([facts], 7)
    assert found.verdict is Verdict.FAIL
    assert "a-secret-key" not in repr((facts, found))


async def test_where_nothing_listens_there_is_no_connection() -> None:
    (facts,) = await ask_endpoints(["http://127.0.0.1:9/a-secret-key"], SystemClock())
    assert facts.problem.startswith("no connection")
    assert "a-secret-key" not in repr(facts)


async def test_contracts_are_found_and_a_round_that_is_not_initialised_is_told(
    devnet: Devnet, tmp_path: Path
) -> None:
    async with chain_of(devnet, tmp_path) as chain:
        found, head = await look_at_contracts(chain)
        assert found.verdict is Verdict.OK
        assert head is not None
        await devnet.next_round(initialize=False)
        found, _ = await look_at_contracts(chain)
    assert found.verdict is Verdict.WARN
    assert "is not initialised yet" in found.detail


async def test_paused_contracts_are_told(devnet: Devnet, tmp_path: Path) -> None:
    async with chain_of(devnet, tmp_path) as chain:
        _, head = await look_at_contracts(chain)
    assert head is not None
    found = judge_head_state(replace(head, is_paused=True))
    assert found.verdict is Verdict.WARN
    assert "paused" in found.detail
