"""A visit to the gateway's page in a real Chromium, and all that went wrong meanwhile."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import (
    Browser,
    ConsoleMessage,
    Error,
    Locator,
    Page,
    Request,
    expect,
    sync_playwright,
)

#: Milliseconds; a busy machine is no failure.
PATIENCE = 60_000
PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
#: What a screen shows only for moments is written down as it appears.
WATCH = """
window.seen = { stages: [], previews: [], violations: [] };
addEventListener("securitypolicyviolation", (event) => window.seen.violations.push(event.violatedDirective));
new MutationObserver(() => {
  for (const stage of document.querySelectorAll(".stage")) {
    const words = stage.textContent;
    if (words && window.seen.stages.at(-1) !== words) window.seen.stages.push(words);
  }
  for (const preview of document.querySelectorAll("img.preview")) {
    if (preview.src && !window.seen.previews.includes(preview.src)) window.seen.previews.push(preview.src);
  }
}).observe(document, { subtree: true, childList: true, attributes: true, characterData: true });
"""


def _program() -> str | None:
    return os.environ.get("LIMNER_CHROMIUM") or next(
        filter(None, map(shutil.which, PROGRAMS)), None
    )


#: A mark, so that nothing is started for tests that cannot run.
needs_chromium = pytest.mark.skipif(
    _program() is None, reason="no Chromium is installed (Debian: apt install chromium)"
)


@contextmanager
def running_browser() -> Iterator[Browser]:
    """Debian's Chromium, driven by Playwright."""
    with sync_playwright() as playwright:
        # Chromium refuses to run as root with its sandbox, as containers do.
        options = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=_program(), args=options)
        yield browser
        browser.close()


@dataclass
class Visit:
    """One tab of a browser of its own."""

    url: str
    page: Page
    requests: list[str] = field(default_factory=list)
    #: What the console called an error, and what scripts let fall.
    complaints: list[str] = field(default_factory=list)

    def note_request(self, request: Request) -> None:
        self.requests.append(request.url)

    def note_error(self, error: Error) -> None:
        self.complaints.append(str(error))

    def note_console(self, said: ConsoleMessage) -> None:
        if said.type in {"error", "warning"}:
            self.complaints.append(said.text)

    def find(self, selector: str) -> Locator:
        return self.page.locator(selector)

    def enter(self, key: str) -> None:
        """Give the key, as a person does, and wait until the models are there."""
        self.page.goto(f"{self.url}/")
        self.page.get_by_label("API key").fill(key)
        self.page.get_by_role("button", name="Use this key").click()
        self.is_ready()

    def is_ready(self) -> None:
        expect(self.find("#model option").first).to_be_attached()
        expect(self.find("#cost strong")).to_be_visible()

    def ask(self, prompt: str, *, side: int = 128, steps: int | None = 4, count: int = 1) -> None:
        """Fill in the form without sending it."""
        self.find("#prompt").fill(prompt)
        self.find("#width").fill(str(side))
        self.find("#height").fill(str(side))
        self.find("#count").fill(str(count))
        if steps is not None:
            self.find("#steps").fill(str(steps))

    def send(self) -> None:
        self.find("#prompt").press("Control+Enter")

    def run(self, number: int = 0) -> Locator:
        """A card, the newest first."""
        return self.find("#runs > .run").nth(number)

    def is_done(self, number: int = 0) -> None:
        expect(self.run(number)).to_have_attribute("data-state", "done")

    def seen(self, what: str) -> list[str]:
        found: list[str] = self.page.evaluate(f"() => window.seen.{what}")
        return found

    def was_clean(self, *, refusals: bool = False) -> None:
        """Nothing was asked of anybody else, and nobody complained.

        `refusals`: what the gateway refused on purpose, browsers write to the console.
        """
        origin = urlsplit(self.url)[:2]
        assert self.requests
        elsewhere = [
            url
            for url in self.requests
            if urlsplit(url)[:2] != origin and not url.startswith("data:image/jpeg;base64,")
        ]
        assert elsewhere == []
        assert self.seen("violations") == []
        heard = [
            one
            for one in self.complaints
            if not (refusals and one.startswith("Failed to load resource"))
        ]
        assert heard == []


Visiting = Callable[..., Visit]


def visiting(browser: Browser, url: str) -> Iterator[Visiting]:
    """Open visits that know nothing of each other; they end with the test."""
    opened = []

    def visit(*, width: int = 1280, height: int = 900, **options: Any) -> Visit:
        context = browser.new_context(
            viewport={"width": width, "height": height}, accept_downloads=True, **options
        )
        context.set_default_timeout(PATIENCE)
        context.add_init_script(WATCH)
        opened.append(context)
        seen = Visit(url, context.new_page())
        seen.page.on("request", seen.note_request)
        seen.page.on("pageerror", seen.note_error)
        seen.page.on("console", seen.note_console)
        return seen

    expect.set_options(timeout=PATIENCE)
    yield visit
    for context in opened:
        context.close()
