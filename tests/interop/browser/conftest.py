"""One browser for all tests of a page."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from scripts.local_network.network import LocalNetwork
from tests.interop.browser.visiting import Visiting, running_browser, visiting


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    # By module: while it is open, no other event loop can run in this thread.
    with running_browser() as opened:
        yield opened


@pytest.fixture
def visit(browser: Browser, one_node: LocalNetwork) -> Iterator[Visiting]:
    yield from visiting(browser, one_node.gateway.url)
