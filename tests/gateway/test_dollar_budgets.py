"""Budgets in US dollars: exact while the price of an ETH moves, after a restart, and without a rate."""

import asyncio
import json
import os
from collections import Counter
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import expect

from gateway.dispatch import Routing
from gateway.keys import UseLimits
from gateway.payments.exchange import usd_per_eth, why_unknown
from network.dollars import AttoUsd, charged_usd, format_usd, parse_usd
from network.errors import ProblemError
from network.prices import USD, FixedRate, Rate, fixed_usd
from network.runtime.clock import SystemClock
from network.units import Wei
from scripts.local_network.network import start_gateway
from tests.chromium import visiting
from tests.gateway.routing import Key, open_desk, request_for
from tests.gateway.stub_orchestrator import StubModel, StubOrchestrator, running
from tests.gateway.test_app import Stage, serving, settings_for
from tests.gateway.test_budgets import FEE, _ask_until_refused, limited
from tests.gateway.test_cli import limner

#: Dollars for an ETH.
LOW, HIGH = Fraction(3000), Fraction("3127.51234567")


def cost(requests: int, rate: Fraction) -> AttoUsd:
    """What so many requests count for, each rounded up by itself."""
    return AttoUsd(requests * charged_usd(Wei(FEE), rate))


@dataclass
class RestlessRates:
    """EthRates that are others at every look."""

    told: "cycle[Fraction]" = field(default_factory=lambda: cycle((LOW, HIGH)))
    problem: str = ""

    @property
    def current(self) -> Rate:
        return Rate(USD, next(self.told), "a test")

    def lately(self) -> tuple[Rate, ...]:
        return ()


async def test_of_many_at_once_no_more_get_through_than_the_dollars_last_though_the_price_moves(
    tmp_path: Path,
) -> None:
    stub = StubOrchestrator(capacity=20)
    budget = cost(30, HIGH)
    key = Key(limits=UseLimits(usd_per_day=budget))
    routing = Routing(rates=RestlessRates())
    async with running(stub), open_desk(tmp_path, [stub], routing=routing) as desk:

        async def one(number: int) -> str:
            try:
                result = await desk.dispatcher.run(f"r{number}", key, request_for())
            except ProblemError as error:
                return error.problem.code
            await result.settled
            return "delivered"

        answers = Counter(await asyncio.gather(*(one(number) for number in range(300))))
        records = await desk.journal.requests(limit=None)
        (day,) = await desk.journal.spending(0.0)
    spent = [one.usd or 0 for one in records if one.state == "settled"]
    assert {*spent} == {cost(1, LOW), cost(1, HIGH)}
    assert day.usd == sum(spent) <= budget
    # And as many as it lasts for: for another, at the higher price, too little is left.
    assert budget - sum(spent) < cost(1, HIGH)
    assert answers == {"delivered": len(spent), "budget_exceeded": 300 - len(spent)}
    assert stub.delivered == len(spent)


async def own_key(stage: Stage) -> dict[str, Any]:
    headers = {"Authorization": f"Bearer {stage.key}"}
    async with stage.client.get(f"{stage.gateway.url}/key", headers=headers) as answer:
        found: dict[str, Any] = await answer.json()
        return found


async def test_what_was_spent_in_dollars_stays_though_the_rate_is_another_after_a_restart(
    tmp_path: Path,
) -> None:
    budget = AttoUsd(cost(2, LOW) + cost(1, HIGH))
    async with running(StubOrchestrator({"m": StubModel()})) as stub:
        async with serving(settings_for(tmp_path, stub.uri, usd_per_eth=str(LOW))) as stage:
            key = stage.key = await limited(tmp_path, UseLimits(usd_per_day=budget))
            assert [(await stage.post()).status for _ in range(2)] == [200, 200]
        async with serving(settings_for(tmp_path, stub.uri, usd_per_eth="3127.51234567")) as stage:
            stage.key = key
            told = await own_key(stage)
            assert told["spent_today_usd"] == format_usd(cost(2, LOW))
            assert told["left_usd"] == format_usd(cost(1, HIGH))
            assert (await stage.post()).status == 200
            answer = await stage.post()
            assert answer.status == 402
            body = await answer.json()
            assert body["error"]["code"] == "budget_exceeded"
            assert (
                f"This key may spend {format_usd(budget)} USD in a day: {format_usd(budget)} are spent, "
                f"0 are held by requests under way, and this request costs {format_usd(cost(1, HIGH))}. "
                "The next day begins at "
            ) in body["detail"]["msg"]
            assert 0 < int(answer.headers["Retry-After"]) <= 86_400
            # A key without dollars goes on.
            stage.key = await limited(tmp_path, UseLimits(wei_per_day=Wei(FEE)))
            assert (await stage.post()).status == 200
    data = ("--data-dir", str(tmp_path / "data"))
    listed = json.loads((await limner("usage", "--json", *data)).out)
    assert [one["usd"] for one in listed] == [
        format_usd(cost(1, rate)) for rate in (HIGH, HIGH, LOW, LOW)
    ]
    in_all = format_usd(AttoUsd(cost(2, LOW) + cost(2, HIGH)))
    assert f"(16384 wei), counted as {in_all} USD" in (await limner("usage", *data)).out


async def test_the_page_tells_what_is_left_in_dollars(tmp_path: Path) -> None:
    async with (
        visiting() as visit,
        running(StubOrchestrator({"m": StubModel()})) as stub,
        serving(settings_for(tmp_path, stub.uri, usd_per_eth=str(LOW))) as stage,
    ):
        key = stage.key = await limited(tmp_path, UseLimits(usd_per_day=parse_usd("5 usd")))
        assert (await stage.post()).status == 200
        await visit.page.goto(f"{stage.gateway.url}/")
        await visit.page.get_by_label("API key").fill(key)
        await visit.page.get_by_role("button", name="Use this key").click()
        left = visit.page.locator("#purse").get_by_text("Left $5")
        await expect(left).to_have_attribute("title", "$4.999999999987712")
        assert visit.complaints == []


async def test_a_teams_dollars_are_shared_by_its_keys(tmp_path: Path) -> None:
    async with (
        running(StubOrchestrator({"m": StubModel()})) as stub,
        serving(settings_for(tmp_path, stub.uri, usd_per_eth=str(LOW))) as stage,
    ):
        crew = UseLimits(usd_per_month=cost(2, LOW))
        keys = [await limited(tmp_path, UseLimits(), crew) for _ in range(2)]
        seen = []
        for key in (*keys, *keys):
            stage.key = key
            seen.append((await stage.post()).status)
        assert seen == [200, 200, 402, 402]


@dataclass
class Feed:
    """EthRates that a test sets."""

    current: Rate | None = None
    problem: str = ""

    def lately(self) -> tuple[Rate, ...]:
        return ()


async def test_without_a_rate_that_may_be_gone_by_only_keys_with_dollars_are_refused(
    tmp_path: Path,
) -> None:
    stub, feed = StubOrchestrator(), Feed(problem="no endpoint answers")
    in_dollars = Key("k1", limits=UseLimits(usd_per_day=cost(100, HIGH)))
    in_wei = Key("k2", limits=UseLimits(wei_per_day=Wei(100 * FEE)))
    routing = Routing(rates=feed, max_rate_age=100.0)
    async with running(stub), open_desk(tmp_path, [stub], routing=routing) as desk:

        async def is_refused(request_id: str) -> bool:
            with pytest.raises(ProblemError) as caught:
                await desk.dispatcher.run(request_id, in_dollars, request_for())
            problem = caught.value.problem
            assert "This key has a budget in US dollars" in problem.message
            assert "Retry-After" in problem.headers
            return (problem.status, problem.code) == (503, "payments_unavailable")

        async def buy(key: Key, request_id: str) -> None:
            await (await desk.dispatcher.run(request_id, key, request_for())).settled

        now = SystemClock().now()
        assert await is_refused("r1")
        await buy(in_wei, "r2")
        feed.current = Rate(USD, LOW, "a feed", now - 50)
        await buy(in_dollars, "r3")
        feed.current = Rate(USD, LOW, "a feed", now - 150)
        assert await is_refused("r4")
        await buy(in_wei, "r5")
        records = {one.accepted.request_id: one for one in await desk.journal.requests()}
    assert {name: one.usd for name, one in records.items()} == {
        "r2": None,
        "r3": cost(1, LOW),
        "r5": None,
    }


def test_a_rate_is_gone_by_for_so_long_and_one_that_was_fixed_for_ever() -> None:
    fixed = fixed_usd(LOW)
    told = Feed(Rate(USD, LOW, "a feed", 1000.0))
    assert usd_per_eth(fixed, 1.0, 1e9) == usd_per_eth(told, 100.0, 1100.0) == LOW
    assert usd_per_eth(told, 100.0, 1101.0) is None
    euros = Feed(Rate("EUR", LOW, "a feed"))
    assert usd_per_eth(euros, 100.0, 0.0) is None
    assert why_unknown(euros, 100.0, 0.0) == "a feed tells what an ETH costs in EUR"
    assert "usd_per_eth" in why_unknown(FixedRate(), 100.0, 0.0)
    told.problem = "nobody answers"
    assert why_unknown(told, 3600.0, 8200.0) == (
        "what was last told is 2.0 hours old, and budgets.max_rate_age_seconds allows 1.0: "
        "nobody answers"
    )


async def test_budgets_in_dollars_are_set_changed_shown_and_lifted(tmp_path: Path) -> None:
    data = ("--data-dir", str(tmp_path / "data"))
    rate = {"LIMNER_GATEWAY__USD_PER_ETH": "3127.5"}
    refused = await limner("keys", "create", "me", "--budget-day", "5usd", *data)
    assert refused.status == 2
    assert (
        "usd_per_eth: a budget is in US dollars, and nothing says what an ETH costs" in refused.err
    )
    assert json.loads((await limner("keys", "list", "--json", *data)).out) == []
    said = await limner("keys", "team", "crew", "--budget-month", "$50", *data, **rate)
    assert said.out.strip() == "crew: 50 usd per month"
    options = ("--team", "crew", "--budget-day", "5usd", "--json")
    made = await limner("keys", "create", "me", *options, *data, **rate)
    key_id = json.loads(made.out)["key_id"]

    async def after(*changes: str, **environment: str) -> str:
        said = await limner("keys", "limit", key_id, *changes, *data, **environment)
        assert said.status == 0, said.err
        return said.out.strip().removeprefix(f"{key_id} (me): ")

    assert await after("--requests-per-minute", "7") == "5 usd per day, 7 requests per minute"
    assert "0.25 usd per day" in await after("--budget-day", "0.25 USD", **rate)
    # One takes the other's place, unless both are named.
    assert "5000000000 wei per day, 7" in await after("--budget-day", "5 gwei")
    both = ("--budget-day", "1 usd", "--wei-per-day", "3")
    assert "3 wei per day, 1 usd per day" in await after(*both, **rate)
    (listed,) = json.loads((await limner("keys", "list", "--json", *data)).out)
    assert listed["limits"] == {
        "wei_per_day": "3",
        "wei_per_month": None,
        "usd_per_day": "1",
        "usd_per_month": None,
        "requests_per_minute": "7",
        "pixels_per_minute": None,
    }
    assert await after("--budget-day", "none") == "7 requests per minute"
    for wrong in ("5", "much", "-1usd", "5 eur"):
        assert (await limner("keys", "limit", key_id, "--budget-day", wrong, *data)).status == 2
    twice = ("--budget-day", "5 gwei", "--wei-per-day", "3")
    assert (await limner("keys", "limit", key_id, *twice, *data)).status == 2
    audited = (await limner("audit", "--json", *data)).out
    assert '"usd_per_month":"50"' in audited.replace(" ", "")


@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_dollars_hold_to_the_request_though_the_gateway_is_killed_and_the_price_moves_meanwhile(
    tmp_path: Path,
) -> None:
    count = int(os.environ.get("LIMNER_BUDGET_REQUESTS", "300"))
    budget = cost(count // 5, LOW)
    stub = StubOrchestrator({"m": StubModel()}, capacity=8, job_seconds=0.01)
    async with running(stub):
        gateway = await asyncio.to_thread(
            start_gateway,
            tmp_path,
            orchestrators=[stub.uri],
            settings={
                "default_model": "m",
                "usd_per_eth": str(LOW),
                "server.max_in_flight": count + 1,
                "server.max_in_flight_per_key": count + 1,
            },
        )
        config = tmp_path / "gateway.toml"
        try:
            options = ("--config", str(config), "--budget-day", f"{format_usd(budget)} usd")
            key = await asyncio.to_thread(gateway.create_key, "k", *options)
            async with asyncio.TaskGroup() as group:
                asking = group.create_task(_ask_until_refused(gateway, key, count))
                while stub.delivered < count // 15:  # noqa: ASYNC110  a stub's count has no event
                    await asyncio.sleep(0.002)
                gateway.program.kill()
            before = asking.result()
            text = await asyncio.to_thread(config.read_text)
            moved = text.replace(f'usd_per_eth = "{LOW}"', f'usd_per_eth = "{2 * LOW}"')
            assert moved != text
            await asyncio.to_thread(config.write_text, moved)
            await asyncio.to_thread(gateway.start)
            after = await _ask_until_refused(gateway, key, count)
            told = await asyncio.to_thread(gateway.usage)
        finally:
            await asyncio.to_thread(gateway.program.stop)
    paid = Counter(request["usd"] for request in told if request["state"] == "settled")
    cheap, dear = paid.pop(format_usd(cost(1, LOW))), paid.pop(format_usd(cost(1, 2 * LOW)))
    assert not paid
    assert before[0], "the kill came too late to cut anything"
    # What was spent before the kill counts as it did; the rest of the dollars lasts for half as many.
    assert dear == (count // 5 - cheap) // 2 == after[200]
    assert after[402] == count - after[200]
