"""The operator's page in a real browser, with a real gateway behind it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Literal

import pytest
from playwright.async_api import Page, expect

from gateway.keys import UseLimits
from network.dollars import AttoUsd, charged_usd
from network.units import Wei
from tests.chromium import DESK, PHONE, Visit, visiting
from tests.gateway.stub_orchestrator import StubModel, StubOrchestrator, running
from tests.gateway.test_app import Stage, serving, settings_for
from tests.gateway.test_budgets import limited

FEE = 64 * 64 * 3
GONE = "http://127.0.0.1:9"


@dataclass
class Scene:
    stage: Stage
    stub: StubOrchestrator
    visit: Visit

    @property
    def page(self) -> Page:
        return self.visit.page


@asynccontextmanager
async def looking(
    folder: Path, size: tuple[int, int] = DESK, scheme: Literal["light", "dark"] = "light"
) -> AsyncIterator[Scene]:
    """A gateway that delivered two requests and refused three, and its page in a window."""
    async with AsyncExitStack() as stack:
        visit = await stack.enter_async_context(visiting(size, scheme))
        stub = StubOrchestrator({"m": StubModel(Fraction(3))})
        await stack.enter_async_context(running(stub))
        settings = settings_for(folder, stub.uri, GONE, usd_per_eth="4000")
        stage = await stack.enter_async_context(serving(settings))
        half = AttoUsd(2 * charged_usd(Wei(2 * FEE), Fraction(4000)))
        limits = UseLimits(wei_per_day=Wei(2 * FEE), usd_per_month=half)
        stage.key = await limited(folder, limits)
        assert [(await stage.post()).status for _ in range(2)] == [200, 200]
        assert (await stage.post()).status == 402
        assert (await stage.post(width=1)).status == 422
        assert (await stage.post(model_id="nobody/has-this")).status == 404
        await visit.page.goto(stage.gateway.admin_url)
        await expect(visit.page.locator("#delivered")).to_have_text("2")
        yield Scene(stage, stub, visit)


async def test_it_shows_what_the_gateway_did_and_asks_nobody_else(tmp_path: Path) -> None:
    async with looking(tmp_path) as scene:
        page = scene.page
        await expect(page.locator("#state")).to_have_text("serving")
        await expect(page.locator("#spent")).to_have_text("24,576wei")
        await expect(page.locator("#delivered-note")).to_have_text("40 % of 5 asked for")
        legend = page.locator("#refusals .legend")
        for reason in ("budget exceeded1", "validation error1", "model not found1"):
            await expect(legend).to_contain_text(reason)
        known, lost = await page.locator("#orchestrators tbody tr").all()
        await expect(known).to_contain_text(scene.stub.uri)
        await expect(known).to_contain_text("ready")
        await expect(lost).to_contain_text(GONE)
        await expect(lost).to_contain_text("unreachable")
        keys = page.locator("#keys tbody tr")
        await expect(keys.first).to_contain_text("limited")
        await expect(keys.first).to_contain_text("100 % of 24,576 wei")
        await expect(keys.first).to_contain_text("50 % of $0.000000000196608")
        await expect(page.locator("#requests svg rect.bar")).to_have_count(2)
        await expect(page.locator("#latency svg circle.spot")).to_have_count(2)
        key = await scene.stage.client.get(f"{scene.stage.gateway.admin_url}/history")
        assert scene.stage.key.split("_", 2)[2] not in await key.text()
        own = scene.stage.gateway.admin_url + "/"
        assert [url for url in scene.visit.asked if not url.startswith(own)] == []
        assert scene.visit.complaints == []


async def test_it_follows_what_happens(tmp_path: Path) -> None:
    async with looking(tmp_path) as scene:
        scene.stage.key = await limited(tmp_path, UseLimits())
        assert (await scene.stage.post()).status == 200
        await expect(scene.page.locator("#delivered")).to_have_text("3", timeout=15_000)
        scene.stub.job_seconds = 30
        under_way = scene.page.locator("#in-flight")
        request = asyncio.ensure_future(scene.stage.post())
        await expect(under_way).to_have_text("1", timeout=15_000)
        request.cancel()
        await expect(under_way).to_have_text("0", timeout=15_000)
        assert scene.visit.complaints == []


async def test_the_keyboard_reaches_all_of_it(tmp_path: Path) -> None:
    async with looking(tmp_path) as scene:
        page = scene.page
        await page.keyboard.press("Tab")
        await expect(page.locator("a.skip")).to_be_focused()
        await page.keyboard.press("Tab")
        await expect(page.locator("input[value='3600']")).to_be_focused()
        async with page.expect_response("**/history?seconds=21600"):
            await page.keyboard.press("ArrowRight")
        await page.keyboard.press("Tab")
        await expect(page.get_by_role("button", name="Dark colours")).to_be_focused()
        await page.keyboard.press("Enter")
        await expect(page.locator("html")).to_have_attribute("data-theme", "dark")
        await page.keyboard.press("Tab")
        chart = page.locator("#requests")
        await expect(chart.locator("svg")).to_be_focused()
        await expect(chart.locator(".sub")).to_have_text("2 delivered, 3 refused")
        await page.keyboard.press("ArrowLeft")
        await expect(chart.locator(".sub")).to_contain_text(": delivered 2, refused 3")
        await page.keyboard.press("Escape")
        await expect(chart.locator(".sub")).to_have_text("2 delivered, 3 refused")
        await page.reload()
        await expect(page.locator("html")).to_have_attribute("data-theme", "dark")
        assert scene.visit.complaints == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_a_phone_shows_it_without_scrolling_sideways(
    tmp_path: Path, scheme: Literal["light", "dark"]
) -> None:
    async with looking(tmp_path, PHONE, scheme) as scene:
        page = scene.page
        await expect(page.locator("html")).to_have_attribute("data-theme", scheme)
        await expect(page.locator("#keys tbody tr").first).to_contain_text("limited")
        width = await page.evaluate("document.documentElement.scrollWidth")
        assert width <= PHONE[0]
        small = await page.locator("body").evaluate(
            "body => [...body.querySelectorAll('td, .value, .note, .sub')]"
            ".filter(one => one.getBoundingClientRect().right > innerWidth).map(one => one.textContent)"
        )
        assert small == []
        assert scene.visit.complaints == []


async def test_what_is_switched_on_is_shown_and_what_is_off_is_not(tmp_path: Path) -> None:
    async with looking(tmp_path) as scene:
        await expect(scene.page.locator("#extras")).to_be_hidden()
    settings = settings_for(
        tmp_path / "free",
        anonymous={"enabled": True},
        repeats={"cache": True},
        routing={"hedging": {"share": 0.05}},
    )
    async with visiting(PHONE) as visit, serving(settings) as stage:
        await visit.page.goto(stage.gateway.admin_url)
        facts = visit.page.locator("#extras-facts")
        await expect(facts).to_contain_text("first 0, second 0, both 0, neither 0, withheld 0")
        await expect(facts).to_contain_text("Answers that can be given again")
        await expect(facts).to_contain_text("Addresses without a key0")
        await expect(facts).not_to_contain_text("Service that knows keys")
        # Those without a key are one tenant among the keys.
        await expect(visit.page.locator("#keys tbody tr").first).to_contain_text("anonymous")
        assert visit.complaints == []


async def test_a_gateway_that_is_gone_is_told(tmp_path: Path) -> None:
    async with visiting() as visit:
        async with serving(settings_for(tmp_path)) as stage:
            await visit.page.goto(stage.gateway.admin_url)
            await expect(visit.page.locator("#state")).to_have_text("no orchestrator is ready")
            await expect(visit.page.locator("#orchestrators p.none")).to_be_visible()
            await expect(visit.page.locator("#banner")).to_be_hidden()
        await expect(visit.page.locator("#banner")).to_contain_text(
            "The gateway does not answer", timeout=15_000
        )


async def test_nothing_but_its_own_files_may_run_and_what_is_asked_is_bounded(
    tmp_path: Path,
) -> None:
    async with serving(settings_for(tmp_path)) as stage:
        admin = stage.gateway.admin_url
        for path in ("/", "/page/page.js", "/page/console.js", "/page/style.css"):
            async with stage.client.get(admin + path) as answer:
                assert answer.status == 200
                policy = answer.headers["Content-Security-Policy"]
                assert "default-src 'none'" in policy
                assert "script-src 'self'" in policy
                assert "unsafe" not in policy
        for seconds in ("0", "99999999", "a", ""):
            async with stage.client.get(f"{admin}/history?seconds={seconds}") as answer:
                assert answer.status == 400
        async with stage.client.get(f"{stage.gateway.url}/history") as answer:
            assert answer.status == 404
