"""The page of a gateway that serves those without a key."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect

from scripts.local_network.network import Gateway, LocalNetwork, start_gateway
from tests.interop.browser.visiting import Visiting, needs_chromium, visiting

pytestmark = [needs_chromium, pytest.mark.interop, pytest.mark.slow]


@pytest.fixture(scope="module")
def free(one_node: LocalNetwork, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    gateway = start_gateway(
        tmp_path_factory.mktemp("free"),
        orchestrators=[one_node.nodes[0].url],
        settings={"anonymous.enabled": True, "repeats.cache": True},
    )
    yield gateway
    gateway.program.stop()


@pytest.fixture
def visit_free(browser: Browser, free: Gateway) -> Iterator[Visiting]:
    yield from visiting(browser, free.url)


def test_nobody_is_asked_for_a_key_and_pictures_are_made(visit_free: Visiting) -> None:
    seen = visit_free()
    seen.page.goto(f"{seen.url}/")
    seen.is_ready()
    expect(seen.find("#key-dialog")).to_be_hidden()
    seen.ask("a red heart on a yellow background")
    seen.send()
    seen.is_done()
    expect(seen.find("#purse")).to_contain_text("Requests left 9 of 10")
    expect(seen.find("#purse")).to_contain_text("Left")
    seen.was_clean()


def test_who_has_a_key_may_use_it_and_is_told_when_it_is_wrong(
    visit_free: Visiting, free: Gateway
) -> None:
    seen = visit_free()
    seen.page.goto(f"{seen.url}/")
    seen.is_ready()
    seen.find("#key").click()
    expect(seen.find("#key-optional")).to_be_visible()
    seen.page.get_by_label("API key").fill("limner_wrong")
    seen.page.get_by_role("button", name="Use this key").click()
    expect(seen.find("#key-problem")).to_have_text("Invalid bearer token.")
    seen.page.get_by_label("API key").fill(free.key)
    seen.page.get_by_role("button", name="Use this key").click()
    expect(seen.find("#key-dialog")).to_be_hidden()
    seen.ask("a blue circle")
    seen.send()
    seen.is_done()
    expect(seen.find("#purse")).not_to_contain_text("Requests left")
    seen.was_clean(refusals=True)


def test_what_was_made_before_is_told_and_free_and_no_more_steps_are_offered_than_allowed(
    visit_free: Visiting,
) -> None:
    seen = visit_free()
    seen.page.goto(f"{seen.url}/")
    seen.is_ready()
    expect(seen.find("#steps")).to_have_attribute("max", "50")
    seen.ask("a white ring on a blue background")
    seen.find("#seed").fill("20")
    seen.send()
    seen.is_done()
    expect(seen.run()).not_to_contain_text("made before")
    seen.run().get_by_role("button", name="Run again").click()
    seen.is_done()
    expect(seen.find("#runs > .run")).to_have_count(2)
    expect(seen.run()).to_contain_text("made before")
    expect(seen.run().locator(".fee")).to_have_attribute("title", "0 wei")
    seen.page.reload()
    expect(seen.run()).to_contain_text("made before")
    seen.was_clean()
