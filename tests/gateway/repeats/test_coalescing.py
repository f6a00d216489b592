"""Equal requests under way are run once, over a whole gateway: whoever leaves, fails or comes late."""

import asyncio
from pathlib import Path

import pytest

from tests.gateway.repeats.shop import (
    FEE,
    GatedOrchestrator,
    Reply,
    Shop,
    hung_up,
    open_shop,
    per_day,
)
from tests.gateway.waiting import until

TOGETHER = "Limner; fwd=miss; collapsed"


def asking(shop: Shop, count: int, key: str | None = None) -> "list[asyncio.Future[Reply]]":
    return [asyncio.ensure_future(shop.ask(key)) for _ in range(count)]


@pytest.mark.parametrize("cache", [True, False])
async def test_200_equal_requests_are_one_run_and_everybody_gets_its_image(
    tmp_path: Path, *, cache: bool
) -> None:
    async with open_shop(tmp_path, cache=cache) as shop:
        shop.stub.gate.clear()
        replies = asking(shop, 200)
        await shop.until_waiting(200)
        shop.stub.gate.set()
        answered = await asyncio.gather(*replies)
        assert shop.stub.runs == 1
        assert {reply.status for reply in answered} == {200}
        fees = sorted(reply.fee for reply in answered)
        assert fees == [0] * 199 + [FEE]
        assert sum(reply.cache == TOGETHER for reply in answered) == 199
        urls = {reply.body["images"][0]["url"] for reply in answered}
        assert len(urls) == 200
        assert len({(await shop.images(reply))[0] for reply in answered}) == 1
        total, records = await shop.books(200)
        assert (total.fee, total.repeats) == (FEE, 199)
        origins = {one.origin for one in records.values() if one.repeat}
        (origin,) = origins
        assert records[origin].fee == FEE
        assert (await shop.figures())["runs"] == 0


async def test_whoever_begins_may_hang_up_and_the_others_get_their_image(tmp_path: Path) -> None:
    async with open_shop(tmp_path, price="full") as shop:
        shop.stub.gate.clear()
        (first,) = asking(shop, 1)
        await shop.until_waiting(1)
        (second,) = asking(shop, 1)
        await shop.until_waiting(2)
        (third,) = asking(shop, 1)
        await shop.until_waiting(3)
        await hung_up(first)
        await shop.until_waiting(2)
        assert shop.stub.under_way == 1
        shop.stub.gate.set()
        # The one that left bought the run: its key pays for two images, and two were delivered.
        assert [(await reply).fee for reply in (second, third)] == [0, FEE]
        assert (shop.stub.runs, shop.stub.cancelled) == (1, 0)
        total, _ = await shop.books(3)
        assert (total.fee, total.repeats_fee) == (2 * FEE, FEE)
        assert (await shop.figures())["unclaimed_wei"] == FEE
        assert (await shop.stage.status())["spent_wei"] == "0"


async def test_the_last_to_hang_up_stops_the_run_and_nothing_is_charged(tmp_path: Path) -> None:
    async with open_shop(tmp_path) as shop:
        shop.stub.gate.clear()
        replies = asking(shop, 3)
        await shop.until_waiting(3)
        for reply in replies:
            await hung_up(reply)
        await until(lambda: shop.stub.cancelled == 1)
        assert (await shop.figures())["runs"] == 0
        shop.stub.gate.set()
        # Nobody joins what was stopped.
        assert (await shop.ask()).cache == "Limner; fwd=miss"
        total, _ = await shop.books(1)
        assert total.fee == FEE


async def test_everybody_is_told_why_it_failed_and_pays_nothing(tmp_path: Path) -> None:
    async with open_shop(tmp_path) as shop:
        shop.stub.gate.clear()
        shop.stub.script.append("bad_request")
        replies = asking(shop, 5)
        await shop.until_waiting(5)
        shop.stub.gate.set()
        for reply in await asyncio.gather(*replies):
            assert (reply.status, reply.code) == (400, "invalid_request")
            assert "the scheduler does not know 77 steps" in reply.body["detail"]["msg"]
        assert shop.stub.runs == 1
        assert (await shop.ask()).fee == FEE
        total, _ = await shop.books(1)
        assert total.repeats == 0


async def test_who_ran_out_of_time_does_not_take_the_others_along(tmp_path: Path) -> None:
    """Each has a deadline of its own: the first that is left begins anew."""
    times = {"routing": {"deadline_seconds": 2, "attempt_seconds": 10, "max_wait_seconds": 1}}
    async with open_shop(tmp_path, others=times) as shop:
        shop.stub.script.append("hang")
        (first,) = asking(shop, 1)
        await shop.until_waiting(1)
        await asyncio.sleep(1)
        late = asking(shop, 3)
        await shop.until_waiting(4)
        refused = await first
        assert (refused.status, refused.code) == (503, "deadline_exceeded")
        answered = await asyncio.gather(*late)
        assert {reply.status for reply in answered} == {200}
        assert sorted(reply.fee for reply in answered) == [0, 0, FEE]
        assert shop.stub.runs == 2


async def test_who_waited_for_others_has_no_more_time_for_it(tmp_path: Path) -> None:
    """What the first of the late ones begins ends with that one's own deadline, not with the run's."""
    times = {"routing": {"deadline_seconds": 2, "attempt_seconds": 10, "max_wait_seconds": 1}}
    async with open_shop(tmp_path, others=times) as shop:
        shop.stub.script.extend(["hang"] * 4)
        (first,) = asking(shop, 1)
        await shop.until_waiting(1)
        await asyncio.sleep(0.5)
        late = asking(shop, 2)
        for reply in [await first, *await asyncio.gather(*late)]:
            assert (reply.status, reply.code) == (503, "deadline_exceeded")
        await until(lambda: shop.stub.under_way == 0)
        shop.stub.script.clear()
        assert (await shop.ask()).status == 200
        _, records = await shop.books(1)
        states = [one.state for one in records.values() if "No orchestrator" in one.reason]
        assert states == ["failed"]  # the first's


async def test_another_key_is_not_refused_for_the_first_ones_reasons(tmp_path: Path) -> None:
    stub = GatedOrchestrator(capacity=1)
    patient = {"routing": {"refresh_seconds": 0.3, "max_wait_seconds": 30}}
    async with open_shop(tmp_path, stub, scope="all", others=patient) as shop:
        stub.gate.clear()
        another = asyncio.ensure_future(shop.ask(seed=99))
        await until(lambda: stub.under_way == 1)
        (poor,) = asking(shop, 1, await shop.new_key(limits=per_day(FEE - 1)))
        await shop.until_waiting(2)
        rich = asking(shop, 2)
        await shop.until_waiting(4)
        stub.gate.set()
        # It led, and found that it cannot pay when there was a place at last.
        refused = await poor
        assert (refused.status, refused.code) == (402, "budget_exceeded")
        assert sorted([(await reply).fee for reply in rich]) == [0, FEE]
        assert (await another).status == 200
        assert stub.runs == 2


async def test_a_repeat_beyond_the_budget_is_402_and_the_others_are_not(tmp_path: Path) -> None:
    async with open_shop(tmp_path, price="full") as shop:
        key = await shop.new_key(limits=per_day(3 * FEE))
        shop.stub.gate.clear()
        replies = asking(shop, 20, key)
        await shop.until_waiting(20)
        shop.stub.gate.set()
        answered = await asyncio.gather(*replies)
        assert sorted(reply.status for reply in answered) == [200] * 3 + [402] * 17
        assert {reply.code for reply in answered if reply.status == 402} == {"budget_exceeded"}
        total, _ = await shop.books(3)
        assert (total.fee, total.repeats_fee) == (3 * FEE, 2 * FEE)


async def test_keys_do_not_wait_for_each_other_unless_they_may(tmp_path: Path) -> None:
    async with open_shop(tmp_path) as shop:
        shop.stub.gate.clear()
        replies = asking(shop, 1) + asking(shop, 1, await shop.new_key())
        await until(lambda: shop.stub.under_way == 2)
        shop.stub.gate.set()
        assert [(await reply).fee for reply in replies] == [FEE, FEE]


async def test_who_wants_it_made_anew_waits_for_nobody(tmp_path: Path) -> None:
    async with open_shop(tmp_path) as shop:
        shop.stub.gate.clear()
        (first,) = asking(shop, 1)
        await shop.until_waiting(1)
        anew = asyncio.ensure_future(shop.ask(headers={"Cache-Control": "no-cache"}))
        await until(lambda: shop.stub.under_way == 2)
        shop.stub.gate.set()
        assert await shop.images(await first) != await shop.images(await anew)


async def test_progress_is_that_of_the_run_that_is_waited_for(tmp_path: Path) -> None:
    name = "0123456789abcdef"
    async with open_shop(tmp_path) as shop:
        shop.stub.gate.clear()
        (first,) = asking(shop, 1)
        await shop.until_waiting(1)
        second = asyncio.ensure_future(shop.ask(headers={"X-Request-Id": name}))
        await shop.until_waiting(2)
        told = await shop.job(name)
        assert (told["state"], told["done_steps"]) == ("running", 3)
        assert (await shop.job(name, "DELETE"))["state"] == "cancelled"
        stopped = await second
        assert (stopped.status, stopped.code) == (409, "cancelled")
        shop.stub.gate.set()
        assert (await first).fee == FEE
        total, _ = await shop.books(1)
        assert total.fee == FEE


async def test_stopping_the_gateway_keeps_nobody_waiting(tmp_path: Path) -> None:
    stub = GatedOrchestrator()
    async with open_shop(tmp_path, stub) as shop:
        stub.gate.clear()
        replies = asking(shop, 3)
        await shop.until_waiting(3)
    ended = await asyncio.gather(*replies, return_exceptions=True)
    assert all(isinstance(one, BaseException) for one in ended)
    async with open_shop(tmp_path) as shop:
        assert (await shop.ask()).status == 200
        total, records = await shop.books(1)
        assert total.fee == FEE
        assert {one.state for one in records.values()} <= {"settled", "cancelled", "interrupted"}
