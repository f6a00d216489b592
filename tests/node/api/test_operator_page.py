"""The operator's page of a node in a real browser, with a real node behind it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from playwright.async_api import expect

from network.wire.codec import Gpu
from node.app import RunningNode
from node.discovery import hardware
from node.discovery.hardware import GpuReading
from node.engine.work import FailureKind, JobFailedError
from tests.chromium import PHONE, Visit, visiting
from tests.node.fakes import MODEL, FakeEngine
from tests.node.nodes import Buyer, running_node


@asynccontextmanager
async def looking(
    folder: Path, size: tuple[int, int] = (1360, 900)
) -> AsyncIterator[tuple[RunningNode, Visit]]:
    """A node that delivered two jobs, failed one and refused two, and its page in a window."""
    engine = FakeEngine()
    async with (
        visiting(size) as visit,
        running_node(folder, engine, usd_per_eth="4000") as node,
        Buyer(node) as buyer,
    ):
        assert [(await buyer.ask()).status for _ in range(2)] == [200, 200]
        engine.failures.append(JobFailedError(FailureKind.OUT_OF_MEMORY, "no memory"))
        assert (await buyer.ask()).status == 503
        assert (await buyer.ask(width=1)).status == 400
        assert (await buyer.ask(model_id="nobody/has-this")).status == 503
        await visit.page.goto(node.admin_url)
        await expect(visit.page.locator("#delivered")).to_have_text("2")
        yield node, visit


async def test_it_shows_what_the_node_did_and_asks_nobody_else(tmp_path: Path) -> None:
    async with looking(tmp_path) as (node, visit):
        page = visit.page
        await expect(page.locator("#state")).to_have_text("working")
        await expect(page.locator("#earned")).to_have_text("20,480wei")
        await expect(page.locator("#delivered-note")).to_have_text("40 % of 5 asked for")
        legend = page.locator("#refusals .legend")
        for reason in ("out of memory1", "bad request1", "unknown model1"):
            await expect(legend).to_contain_text(reason)
        row = page.locator("#models tbody tr")
        await expect(row).to_have_count(1)
        await expect(row).to_contain_text(MODEL)
        await expect(row).to_contain_text("2 of 2")
        await expect(page.locator("#gpus p.none")).to_be_visible()
        await expect(page.locator("#jobs svg rect.bar")).to_have_count(2)
        assert [url for url in visit.asked if not url.startswith(node.admin_url)] == []
        assert visit.complaints == []


async def test_its_devices_are_shown_and_a_phone_has_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu = Gpu("GPU-1", "NVIDIA H100 80GB HBM3", 9, 0, 20 * 2**30, 80 * 2**30)
    monkeypatch.setattr(hardware, "read_nvml", lambda: (GpuReading(gpu, 63, 20),))
    async with looking(tmp_path, PHONE) as (_, visit):
        shown = visit.page.locator("#gpus .gpus")
        await expect(shown).to_contain_text("0: NVIDIA H100 80GB HBM3")
        await expect(shown).to_contain_text("63 % busy")
        await expect(shown).to_contain_text("60 GiB of 80 GiB in use")
        assert await visit.page.evaluate("document.documentElement.scrollWidth") <= PHONE[0]
        assert visit.complaints == []


async def test_what_is_asked_of_the_history_is_bounded(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node, Buyer(node) as buyer:
        for seconds in ("0", "7", "x"):
            answer = await buyer.get(f"/history?seconds={seconds}", admin=True)
            assert answer.status == 400
        page = await buyer.get("/", admin=True)
        assert "default-src 'none'" in page.headers["Content-Security-Policy"]
        assert (await buyer.get("/history")).status == 404
