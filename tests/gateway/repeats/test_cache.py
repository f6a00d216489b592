"""Answers given again, over a whole gateway: the images, the charge, the books, and who gets them."""

import asyncio
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from gateway.keys import UseLimits
from network.dollars import AttoUsd
from network.units import ModelId
from tests.gateway.pictures import real_png
from tests.gateway.repeats.shop import FEE, GatedOrchestrator, open_shop, per_day
from tests.gateway.stub_orchestrator import running
from tests.gateway.waiting import until_async

HIT, MISS, BYPASS = "Limner; hit", "Limner; fwd=miss", "Limner; fwd=bypass"


async def test_the_same_request_is_made_once_and_its_repeat_costs_nothing(tmp_path: Path) -> None:
    async with open_shop(tmp_path) as shop:
        first = await shop.ask(num_images_per_prompt=2)
        await shop.until_remembered()
        again = await shop.ask(num_images_per_prompt=2)
        assert (first.status, first.cache, first.fee) == (200, MISS, 2 * FEE)
        assert (again.status, again.cache, again.fee) == (200, HIT, 0)
        assert await shop.images(first) == await shop.images(again)
        # Of its own: an address tells nobody who else has the image, and lives as long as any.
        urls = {image["url"] for reply in (first, again) for image in reply.body["images"]}
        assert len(urls) == 4
        for told, repeated in zip(first.body["images"], again.body["images"], strict=True):
            assert {**told, "url": ""} == {**repeated, "url": ""}
        assert shop.stub.runs == 1
        origin, repeat = first.headers["Limner-Job-Id"], again.headers["Limner-Job-Id"]
        total, records = await shop.books(2)
        assert (total.images, total.fee) == (4, 2 * FEE)
        assert (total.repeats, total.repeats_fee, total.repeats_worth) == (1, 0, 2 * FEE)
        assert (records[repeat].state, records[repeat].attempts) == ("settled", 0)
        assert (records[repeat].repeat, records[repeat].origin) == ("hit", origin)
        assert (records[origin].repeat, records[origin].origin) == ("", "")


@pytest.mark.parametrize(
    "other",
    [
        {"seed": 8},
        {"prompt": "a ship"},
        {"negative_prompt": "a ship"},
        {"guidance_scale": 3.0},
        {"num_inference_steps": 6},
        {"num_images_per_prompt": 2},
        {"safety_check": False},
    ],
)
async def test_another_request_is_another(tmp_path: Path, other: dict[str, Any]) -> None:
    async with open_shop(tmp_path) as shop:
        assert (await shop.ask()).status == 200
        await shop.until_remembered()
        assert (await shop.ask(**other)).cache == MISS
        assert shop.stub.runs == 2


async def test_without_a_seed_every_request_is_made(tmp_path: Path) -> None:
    async with open_shop(tmp_path) as shop:
        for _ in range(2):
            assert (await shop.ask(seed=None)).cache == BYPASS
        assert shop.stub.runs == 2
        assert (await shop.figures())["remembered"] == 0


async def test_a_client_may_have_it_made_anew(tmp_path: Path) -> None:
    async with open_shop(tmp_path) as shop:

        async def ask(said: str = "") -> tuple[str, list[bytes]]:
            reply = await shop.ask(headers={"Cache-Control": said} if said else None)
            return reply.cache, await shop.images(reply)

        _, first = await ask()
        await shop.until_remembered()
        refreshed, second = await ask("no-cache")
        assert refreshed == "Limner; fwd=request"
        assert second != first
        assert await ask() == (HIT, second)
        hidden, third = await ask("no-store")
        assert hidden == BYPASS
        assert third not in (first, second)
        assert await ask("max-age=3600") == (HIT, second)
        assert shop.stub.runs == 3


async def test_a_client_may_want_it_remembered_or_not_at_all(tmp_path: Path) -> None:
    only = {"Cache-Control": "only-if-cached"}
    async with open_shop(tmp_path) as shop:
        refused = await shop.ask(headers=only)
        assert (refused.status, refused.code, shop.stub.runs) == (504, "not_cached", 0)
        await shop.ask()
        await shop.until_remembered()
        assert (await shop.ask(headers=only)).cache == HIT


@pytest.mark.parametrize(("price", "charge"), [("full", FEE), ("1/3", FEE // 3), (0.25, FEE // 4)])
async def test_a_repeat_is_charged_its_part_and_the_key_spends_it(
    tmp_path: Path, price: object, charge: int
) -> None:
    async with open_shop(tmp_path, price=price) as shop:
        # One image and three repeats of it, and not a wei more.
        key = await shop.new_key(limits=per_day(FEE + 3 * charge))
        fees = [(await shop.ask(key)).fee]
        await shop.until_remembered()
        fees += [(await shop.ask(key)).fee for _ in range(3)]
        assert fees == [FEE, charge, charge, charge]
        refused = await shop.ask(key)
        assert (refused.status, refused.code) == (402, "budget_exceeded")
        assert shop.stub.runs == 1
        total, _ = await shop.books(4)
        assert (total.fee, total.repeats_fee) == (FEE + 3 * charge, 3 * charge)
    async with open_shop(tmp_path, price=price) as shop:
        # What repeats cost is spent after a restart as well.
        assert (await shop.ask(key, seed=99)).status == 402


async def test_a_repeat_counts_in_dollars_as_well(tmp_path: Path) -> None:
    rate = 2500
    async with open_shop(tmp_path, price="1/2", others={"usd_per_eth": rate}) as shop:
        # An image and one repeat. What an ETH costs, so many 10**-18 dollars a wei costs.
        budget = AttoUsd((FEE + FEE // 2) * rate)
        key = await shop.new_key(limits=UseLimits(usd_per_day=budget))
        assert (await shop.ask(key)).fee == FEE
        await shop.until_remembered()
        assert (await shop.ask(key)).fee == FEE // 2
        assert (await shop.ask(key)).code == "budget_exceeded"
        total, records = await shop.books(2)
        assert total.usd == budget
        assert {one.usd for one in records.values()} == {FEE * rate, FEE // 2 * rate}


async def test_a_key_that_has_spent_all_may_have_what_costs_nothing(tmp_path: Path) -> None:
    async with open_shop(tmp_path) as shop:
        key = await shop.new_key(limits=per_day(FEE))
        await shop.ask(key)
        await shop.until_remembered()
        assert (await shop.ask(key)).cache == HIT
        assert (await shop.ask(key, seed=8)).status == 402


@pytest.mark.parametrize(
    ("scope", "of_the_team", "of_strangers"),
    [("key", MISS, MISS), ("team", HIT, MISS), ("all", HIT, HIT)],
)
async def test_answers_are_shared_as_far_as_the_operator_says(
    tmp_path: Path, scope: str, of_the_team: str, of_strangers: str
) -> None:
    async with open_shop(tmp_path, scope=scope) as shop:
        mine, mate = [await shop.new_key(team="crew") for _ in range(2)]
        strangers = [await shop.new_key(team="others"), await shop.new_key()]
        await shop.ask(mine)
        await shop.until_remembered()
        assert (await shop.ask(mine)).cache == HIT
        assert (await shop.ask(mate)).cache == of_the_team
        for stranger in strangers:
            assert (await shop.ask(stranger)).cache == of_strangers


async def test_what_a_key_may_not_buy_it_is_not_given_either(tmp_path: Path) -> None:
    async with open_shop(tmp_path, scope="all", price="full") as shop:
        await shop.ask()
        await shop.until_remembered()
        narrow = await shop.new_key(models=[ModelId("other")])
        assert (await shop.ask(narrow)).status == 403
        thrifty = await shop.new_key(max_price=Fraction(1, 2))
        refused = await shop.ask(thrifty)
        assert (refused.status, refused.code) == (503, "price_above_cap")
        assert shop.stub.runs == 1


async def test_no_answer_outlives_its_images(tmp_path: Path) -> None:
    short = {"images": {"lifetime_seconds": 0.05}}
    async with open_shop(tmp_path, others=short) as shop:
        for _ in range(2):
            assert (await shop.ask()).cache == MISS
            await asyncio.sleep(0.1)
        assert shop.stub.runs == 2


async def test_what_came_from_an_accused_orchestrator_is_forgotten(tmp_path: Path) -> None:
    cheat, honest = GatedOrchestrator(), GatedOrchestrator()
    for one, marker in ((cheat, 0), (honest, 99)):
        one.draw = partial(real_png_of, marker)
        one.models["m"].price = Fraction(1 + bool(marker))
    async with running(honest):
        checks = {"share": 1.0, "wei_per_day": 10**9, "trusted": honest.uri, "least_likeness": 60}
        uris = {"orchestrators": [{"uri": honest.uri}], "spot_checks": checks}
        async with open_shop(tmp_path, cheat, others=uris) as shop:
            assert (await shop.ask()).cache == MISS
            assert cheat.runs == 1

            async def is_accused() -> bool:
                status = await shop.stage.status()
                return bool(status["spot_checks"]["disagreed"] == 1)

            await until_async(is_accused)
            assert (await shop.figures())["remembered"] == 0
            assert (await shop.ask()).cache == MISS


def real_png_of(marker: int, width: int, height: int, seed: int) -> bytes:
    return real_png(width, height, marker=marker + seed)


async def test_only_so_many_are_remembered(tmp_path: Path) -> None:
    async with open_shop(tmp_path, max_answers=2) as shop:
        for seed in (1, 2, 3):
            await shop.ask(seed=seed)
            await shop.until_remembered(min(seed, 2))
        assert [(await shop.ask(seed=seed)).cache for seed in (2, 3)] == [HIT, HIT]
        assert (await shop.ask(seed=1)).cache == MISS


async def test_a_restart_forgets(tmp_path: Path) -> None:
    async with open_shop(tmp_path) as shop:
        await shop.ask()
        await shop.until_remembered()
    async with open_shop(tmp_path) as shop:
        assert (await shop.ask()).cache == MISS


async def test_no_failure_is_remembered(tmp_path: Path) -> None:
    async with open_shop(tmp_path) as shop:
        shop.stub.script.append("bad_request")
        assert (await shop.ask()).status == 400
        assert (await shop.ask()).cache == MISS
        await shop.until_remembered()


async def test_switched_off_nothing_of_it_is_there(tmp_path: Path) -> None:
    async with open_shop(tmp_path, cache=False, coalesce=False) as shop:
        for _ in range(2):
            reply = await shop.ask(headers={"Cache-Control": "only-if-cached"})
            assert (reply.status, reply.cache) == (200, "")
        assert shop.stub.runs == 2
        assert (await shop.stage.status())["repeats"] is None
        total, _ = await shop.books(2)
        assert total.repeats == 0
