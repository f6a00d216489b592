"""A real browser, and what it complains of."""

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Literal

import pytest
from playwright.async_api import Page, async_playwright

PHONE, DESK = (390, 844), (1360, 900)


@dataclass
class Visit:
    """One page with its own storage. `complaints` are errors of script, network and policy."""

    page: Page
    complaints: list[str] = field(default_factory=list)
    #: Every address that was asked for anything.
    asked: list[str] = field(default_factory=list)


def chromium() -> str:
    """Where it is. A test that asks is skipped where there is none."""
    for name in (os.environ.get("CHROMIUM", ""), "chromium", "chromium-browser", "google-chrome"):
        found = shutil.which(name) if name else None
        if found is not None:
            return found
    pytest.skip("no chromium: apt-get install chromium, or name one in CHROMIUM")


@asynccontextmanager
async def visiting(
    size: tuple[int, int] = DESK, scheme: Literal["light", "dark"] = "light"
) -> AsyncIterator[Visit]:
    """A headless window of this size."""
    program = chromium()
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=program, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        try:
            width, height = size
            context = await browser.new_context(
                viewport={"width": width, "height": height},
                color_scheme=scheme,
                locale="en-GB",
                timezone_id="UTC",
            )
            visit = Visit(await context.new_page())
            page = visit.page
            page.on("pageerror", lambda error: visit.complaints.append(str(error)))
            page.on(
                "console",
                lambda told: (
                    visit.complaints.append(told.text)
                    if told.type in {"error", "warning"}
                    else None
                ),
            )
            page.on("request", lambda request: visit.asked.append(request.url))
            yield visit
        finally:
            await browser.close()
