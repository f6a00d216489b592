"""A key is told what it may do, and what it spent; and of models what a choice needs."""

from fractions import Fraction
from typing import Any

from gateway.dispatch.allowing import allowances_of
from network.units import Wei
from tests.gateway.api.surface import GRANTS, Surface


async def ask(surface: Surface, path: str, key: str) -> tuple[int, Any]:
    headers = {"Authorization": f"Bearer {key}"}
    async with surface.client.get(f"{surface.url}{path}", headers=headers) as response:
        return response.status, await response.json()


async def test_a_key_without_limits_has_nothing_left_to_tell(surface: Surface) -> None:
    status, told = await ask(surface, "/key", "good")
    assert status == 200
    assert told == {
        "id": "k1",
        "name": "good",
        "team": None,
        "expires_at": None,
        "max_price": None,
        "spent_today_wei": "0",
        "spent_this_month_wei": "0",
        "spent_today_usd": "0",
        "spent_this_month_usd": "0",
        "left_wei": None,
        "left_usd": None,
        "limits": [],
        "usd_per_eth": "2500",
    }


async def test_what_is_left_is_what_the_tightest_limit_leaves(surface: Surface) -> None:
    holders = allowances_of(GRANTS["limited"])
    _, told = await ask(surface, "/key", "limited")
    assert told["left_wei"] == "1000"
    now = told["limits"][0]["resets_at"] - 1
    surface.allowances.hold("r1", holders, Wei(200), now)
    surface.allowances.settle("r1", Wei(150), now)
    surface.allowances.hold("r2", holders, Wei(100), now)
    _, told = await ask(surface, "/key", "limited")
    assert told["left_wei"] == "750"
    assert told["team"] == "studio"
    assert told["spent_today_wei"] == told["spent_this_month_wei"] == "150"
    assert [(one["of"], one["period"], one["left_wei"]) for one in told["limits"]] == [
        ("key", "day", "750"),
        ("key", "month", "4750"),
        ("team", "month", "1750"),
    ]
    assert {one["held_wei"] for one in told["limits"]} == {"100"}


async def test_a_budget_in_dollars_is_told_in_dollars(surface: Surface) -> None:
    holders = allowances_of(GRANTS["dollars"])
    _, told = await ask(surface, "/key", "dollars")
    now = told["limits"][0]["resets_at"] - 1
    eth, rate = Wei(10**18), Fraction(5, 2)
    surface.allowances.hold("r1", holders, eth, now, rate)
    surface.allowances.settle("r1", Wei(eth // 2), now)
    surface.allowances.hold("r2", holders, Wei(eth // 10), now, rate)
    _, told = await ask(surface, "/key", "dollars")
    assert told["spent_today_usd"] == told["spent_this_month_usd"] == "1.25"
    assert (told["left_usd"], told["left_wei"]) == ("2.5", str(14 * 10**17))
    assert [
        (
            one["of"],
            one["period"],
            one["limit_usd"],
            one["spent_usd"],
            one["held_usd"],
            one["left_usd"],
        )
        for one in told["limits"]
        if "limit_usd" in one
    ] == [
        ("key", "day", "5", "1.25", "0.25", "3.5"),
        ("team", "month", "4", "1.25", "0.25", "2.5"),
    ]
    (in_wei,) = [one for one in told["limits"] if "limit_wei" in one]
    assert (in_wei["of"], in_wei["spent_wei"]) == ("team", str(5 * 10**17))


async def test_strangers_are_told_nothing(surface: Surface) -> None:
    status, told = await ask(surface, "/key", "bad")
    assert (status, told["error"]["code"]) == (401, "invalid_api_key")


async def test_models_tell_price_pace_and_bounds(surface: Surface) -> None:
    _, told = await ask(surface, "/v1/models", "good")
    first, second = (model["limner"] for model in told["data"])
    assert first["wei_per_pixel"] == "7/2"
    assert (first["available"], first["warm"], first["free"]) == (True, True, 3)
    assert (first["overhead_seconds"], first["seconds_per_pixel_step"]) == (0.25, 1e-8)
    assert (first["default"], second["default"]) == (True, False)
    assert (first["loras"], second["loras"]) == (["a/one", "b/two"], [])
    assert (first["limits"]["max_steps"], second["limits"]["max_width"]) == (60, 2048)
