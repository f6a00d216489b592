"""The page as a person uses it, with a real gateway and a real node behind it."""

import json
import re
import time
import urllib.error
import urllib.request
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import expect

from scripts.local_network.network import LocalNetwork, get_json
from tests.interop.browser.visiting import Visiting, needs_chromium

pytestmark = [needs_chromium, pytest.mark.interop, pytest.mark.slow]


@pytest.fixture
def key(one_node: LocalNetwork) -> str:
    return one_node.gateway.key


def body_of(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=20) as answer:  # noqa: S310 - our own gateway
        body: bytes = answer.read()
        return body


def until_refused(request: urllib.request.Request) -> int:
    """The status with which it is refused at last; 0 if it never is."""
    for _ in range(200):
        try:
            urllib.request.urlopen(request, timeout=20).close()  # noqa: S310
        except urllib.error.HTTPError as refused:
            return refused.code
        time.sleep(0.05)
    return 0


def until_in_flight(network: LocalNetwork, count: int) -> None:
    """So many requests are under way, or the test's time is over."""
    while get_json(f"{network.gateway.admin_url}/status")["in_flight"] != count:
        time.sleep(0.05)


def test_a_prompt_becomes_a_picture_that_can_be_kept(visit: Visiting, key: str) -> None:
    seen = visit(width=1920)
    seen.enter(key)
    seen.ask("a red heart on a yellow background", side=512, steps=30, count=2)
    seen.find("#height").fill("768")
    promised = seen.find("#cost").get_attribute("title")
    assert promised == f"{2 * 512 * 768 * 2_400_000:,} wei"
    with seen.page.expect_response("**/text-to-image") as answered:
        seen.send()
        seen.is_done()
    answer = answered.value
    images = answer.json()["images"]

    # It was watched on its way.
    steps = [one for one in seen.seen("stages") if one.startswith("Step ")]
    assert steps
    assert all(re.fullmatch(r"Step [0-9]+ of 60", one) for one in steps)
    assert seen.seen("previews")
    expect(seen.find("#news")).to_have_text("Done: 2 pictures")
    expect(seen.page).to_have_title("Limner: pictures from words")

    # What it cost is what was promised.
    assert f"{int(answer.headers['limner-fee']):,} wei" == promised
    expect(seen.run().locator(".fee")).to_have_attribute("title", promised)
    expect(seen.find("#purse")).to_contain_text("Spent here")

    # The file is the gateway's, byte for byte.
    sent: dict[str, Any] = json.loads(answer.request.post_data or "")
    assert images[1]["seed"] == sent["seed"] + 1
    with seen.page.expect_download() as started:
        seen.run().locator("a[download]").nth(1).click()
    assert started.value.suggested_filename == f"limner-{sent['seed'] + 1}.png"
    assert Path(started.value.path()).read_bytes() == body_of(images[1]["url"])
    # Nothing of it is cut off, whatever its shape.
    shown = seen.run().locator("img").nth(1)
    assert shown.evaluate("(image) => image.naturalWidth") == 512
    assert shown.evaluate("(image) => image.clientWidth / image.clientHeight") == pytest.approx(
        512 / 768, rel=0.02
    )
    seen.was_clean()


def test_the_file_is_of_the_kind_and_tells_what_was_wished(visit: Visiting, key: str) -> None:
    seen = visit()
    seen.enter(key)
    seen.ask("a green square")
    seen.page.get_by_text("More", exact=True).click()
    seen.page.get_by_role("radio", name="JPEG").check()
    expect(seen.page.get_by_label("and the prompt")).to_be_disabled()
    seen.page.get_by_label("With its parameters in it").check()
    seen.page.get_by_label("and the prompt").check()
    seen.send()
    seen.is_done()
    with seen.page.expect_download() as started:
        seen.run().locator("a[download]").click()
    assert str(started.value.suggested_filename).endswith(".jpg")
    file = Path(started.value.path()).read_bytes()
    assert file.startswith(b"\xff\xd8\xff")
    assert b'"prompt": "a green square"' in file
    # Another visit to the page finds the wish as it was left.
    seen.page.reload()
    seen.is_ready()
    assert seen.page.get_by_role("radio", name="JPEG", include_hidden=True).is_checked()
    seen.was_clean()


def test_a_seed_is_kept_changed_and_run_again(visit: Visiting, key: str) -> None:
    seen = visit()
    seen.enter(key)
    seen.ask("a blue star")
    seen.find("#seed").fill("1234")
    expect(seen.find("#lock")).to_have_attribute("aria-pressed", "true")
    seen.send()
    seen.is_done()
    seen.run().get_by_role("button", name="Run again").click()
    seen.is_done()
    expect(seen.find("#runs > .run")).to_have_count(2)
    pictures = [
        body_of(str(seen.run(number).locator("a[download]").evaluate("(link) => link.href")))
        for number in (0, 1)
    ]
    assert pictures[0] == pictures[1]
    seen.run().get_by_role("button", name="New seed").click()
    seen.is_done()
    expect(seen.find("#runs > .run")).to_have_count(3)
    assert "seed 1234" not in seen.run().inner_text()
    seen.find("#dice").click()
    drawn = seen.find("#seed").input_value()
    assert drawn != "1234"
    seen.send()
    expect(seen.run()).to_contain_text(f"seed {drawn}")
    seen.is_done()
    # A lock that is open draws another seed each time.
    seen.find("#lock").click()
    seen.send()
    seen.is_done()
    assert f"seed {drawn}" not in seen.run().inner_text()
    seen.run(4).get_by_role("button", name="Use", exact=True).click()
    expect(seen.find("#seed")).to_have_value("1234")
    seen.was_clean()


def test_a_link_carries_the_parameters_and_not_the_key(visit: Visiting, key: str) -> None:
    seen = visit(permissions=["clipboard-read", "clipboard-write"])
    seen.enter(key)
    seen.ask("a <b>ring</b> & a \U0001f98a", side=160, steps=3, count=2)
    seen.find("#negative").fill("blue")
    seen.find("#lora-add").click()
    seen.page.get_by_label("LoRA", exact=True).fill("limner/night")
    seen.page.get_by_label("Strength").fill("0.5")
    seen.send()
    seen.is_done()
    seen.run().get_by_role("button", name="Share").click()
    expect(seen.find("#toast")).to_have_text("Link copied")
    link = str(seen.page.evaluate("() => navigator.clipboard.readText()"))
    assert key not in link
    fields = parse_qs(urlsplit(link).fragment)
    assert fields["prompt"] == ["a <b>ring</b> & a \U0001f98a"]
    assert fields["lora"] == ["limner/night*0.5"]
    seen.was_clean()

    other = visit()
    other.page.goto(link)
    other.page.get_by_label("API key").fill(key)
    other.page.keyboard.press("Enter")
    other.is_ready()
    expect(other.find("#prompt")).to_have_value("a <b>ring</b> & a \U0001f98a")
    expect(other.find("#negative")).to_have_value("blue")
    expect(other.find("#width")).to_have_value("160")
    expect(other.find("#steps-shown")).to_have_text("3")
    expect(other.find("#seed")).to_have_value(fields["seed"][0])
    expect(other.page.get_by_label("LoRA", exact=True)).to_have_value("limner/night")
    assert "#" not in other.page.url
    other.send()
    other.is_done()
    assert other.run().locator("b").count() == 0, "words are words"
    other.was_clean()


def test_a_request_is_cancelled_the_whole_way(
    visit: Visiting, one_node: LocalNetwork, key: str
) -> None:
    seen = visit()
    seen.enter(key)
    seen.ask("a green ring", side=1024, steps=100, count=4)
    with seen.page.expect_request("**/text-to-image") as asked:
        seen.send()
    request_id = asked.value.headers["x-request-id"]
    # Progress means that it is at the node.
    expect(seen.run().locator(".stage")).to_contain_text("Step ")
    expect(seen.page).to_have_title(re.compile("[0-9]+ % · Limner"))
    seen.run().get_by_role("button", name="Cancel").click()
    expect(seen.run()).to_have_attribute("data-state", "cancelled")
    expect(seen.run()).to_contain_text("nothing was charged")
    progress = urllib.request.Request(  # noqa: S310 - our own gateway
        f"{one_node.gateway.url}/jobs/{request_id}", headers={"Authorization": f"Bearer {key}"}
    )
    assert until_refused(progress) == 404
    seen.was_clean()


def test_who_waits_in_line_is_told_where(
    visit: Visiting, one_node: LocalNetwork, key: str
) -> None:
    seen = visit()
    seen.enter(key)
    seen.ask("a brown cross")
    # Others take both places of the node, until they hang up.
    long = {"prompt": "a circle", "width": 1024, "height": 1024, "num_images_per_prompt": 4}
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    others = [HTTPConnection(str(urlsplit(one_node.gateway.url).netloc)) for _ in range(2)]
    for other in others:
        other.request("POST", "/text-to-image", json.dumps(long), headers)
    until_in_flight(one_node, len(others))
    seen.send()
    expect(seen.run().locator(".stage")).to_have_text("In line: place 1")
    for other in others:
        other.close()
    seen.is_done()
    until_in_flight(one_node, 0)
    seen.was_clean()


def test_a_wrong_key_is_told_and_a_right_one_helps(visit: Visiting, key: str) -> None:
    seen = visit()
    seen.page.goto(f"{seen.url}/")
    seen.page.get_by_label("API key").fill("limner_wrong")
    seen.page.keyboard.press("Enter")
    expect(seen.find("#key-problem")).to_have_text("Invalid bearer token.")
    seen.page.get_by_label("API key").fill(key)
    seen.page.keyboard.press("Enter")
    seen.is_ready()
    stored = seen.page.evaluate(
        "() => [JSON.stringify(localStorage), JSON.stringify(sessionStorage)]"
    )
    assert key not in stored[0]
    assert key in stored[1]
    # It outlives the tab only where that is wished, and can be forgotten.
    seen.find("#key").click()
    seen.page.get_by_label("Remember it").check()
    seen.page.get_by_role("button", name="Use this key").click()
    assert key in str(seen.page.evaluate("() => JSON.stringify(localStorage)"))
    seen.find("#key").click()
    seen.page.get_by_role("button", name="Forget the key").click()
    stored = seen.page.evaluate(
        "() => [JSON.stringify(localStorage), JSON.stringify(sessionStorage)]"
    )
    assert key not in stored[0] + stored[1]
    seen.was_clean(refusals=True)


def test_a_refusal_is_told_in_the_gateways_words_with_what_to_do(
    visit: Visiting, one_node: LocalNetwork
) -> None:
    poor = one_node.gateway.create_key(
        "poor", "--wei-per-day", "100000000000", "--requests-per-minute", "9"
    )
    seen = visit()
    seen.enter(poor)
    expect(seen.find("#purse")).to_contain_text("Left 100 gwei")
    seen.ask("a pink moon", side=256)
    seen.send()
    problem = seen.run().get_by_role("alert")
    expect(problem).to_contain_text("This key may spend 100000000000 wei in a day")
    expect(problem).to_contain_text("more than any day allows")
    expect(problem).to_contain_text("A key with a larger budget helps")
    expect(seen.find("#purse")).to_contain_text("of 9")
    # What can be mended is mended, and sent again.
    seen.ask("a pink moon", side=64)
    seen.find("#lora-add").click()
    seen.page.get_by_label("LoRA", exact=True).fill("no/such")
    seen.send()
    expect(seen.run().get_by_role("alert")).to_contain_text("limner/night")
    seen.page.get_by_role("button", name="Remove this LoRA").click()
    seen.send()
    seen.is_done()
    expect(seen.find("#purse")).to_contain_text("Left 90.17 gwei")
    seen.was_clean(refusals=True)


def test_pictures_are_still_there_the_next_time_until_deleted(visit: Visiting, key: str) -> None:
    seen = visit()
    seen.enter(key)
    for prompt in ("a first cross", "a second cross", "a third cross"):
        seen.ask(prompt)
        seen.send()
        expect(seen.run()).to_contain_text(prompt)
        seen.is_done()
    seen.page.reload()
    expect(seen.find("#runs > .run .prompt")).to_have_text(
        ["a third cross", "a second cross", "a first cross"]
    )
    expect(seen.find("#prompt")).to_have_value("a third cross")
    expect(seen.run().locator("img")).to_have_js_property("naturalWidth", 128)
    seen.run(1).get_by_role("button", name="Delete").click()
    expect(seen.find("#runs > .run")).to_have_count(2)
    seen.find("#clear").click()
    expect(seen.find("#empty")).to_be_visible()
    assert json.loads(str(seen.page.evaluate("() => localStorage['limner.history']"))) == []
    seen.was_clean()


def test_what_another_version_kept_is_no_reason_to_fail(visit: Visiting, key: str) -> None:
    seen = visit()
    seen.enter(key)
    seen.page.evaluate(
        """() => {
          const wanted = { prompt: "x", loras: {}, width: 64, height: 64 };
          const image = { url: "/stream/a/b.png", seed: 1 };
          const runs = [
            7, null, {}, { wanted: { prompt: "x" }, images: [image] }, { id: "a", wanted, images: [{}] },
            { id: "b", wanted, images: [null] }, { id: "c", wanted, images: [image], fee: "much" },
          ];
          localStorage.setItem("limner.history", JSON.stringify(runs));
          sessionStorage.setItem("limner.spent", JSON.stringify("much"));
          sessionStorage.setItem("limner.draft", JSON.stringify(7));
        }"""
    )
    seen.page.reload()
    # What the gateway tells is asked for last of all.
    expect(seen.find("#model option")).not_to_have_count(0)
    expect(seen.find("#runs > .run")).to_have_count(0)
    seen.was_clean()


def test_a_picture_whose_time_is_over_says_so(visit: Visiting, key: str) -> None:
    seen = visit()
    seen.enter(key)
    seen.ask("an old square")
    seen.send()
    seen.is_done()
    seen.page.evaluate(
        """() => {
          const kept = JSON.parse(localStorage["limner.history"]);
          kept[0].images[0].url = location.origin + "/stream/gone/gone.png";
          localStorage["limner.history"] = JSON.stringify(kept);
        }"""
    )
    seen.page.reload()
    expect(seen.run()).to_contain_text("time here is over. Run it again")
    seen.run().get_by_role("button", name="Run again").click()
    seen.is_done()
    expect(seen.run().locator("img")).to_have_js_property("naturalWidth", 128)
    seen.was_clean(refusals=True)


def test_more_requests_than_go_at_a_time_wait_in_the_page(visit: Visiting, key: str) -> None:
    seen = visit()
    seen.enter(key)
    seen.ask("a hexagon", side=1024, steps=100, count=4)
    for number in range(4):
        expect(seen.find("#runs > .run")).to_have_count(number)
        seen.send()
    expect(seen.run().locator(".stage")).to_have_text("Waits for your other requests")
    # The newest first: those that were not sent yet are cancelled without anybody hearing of them.
    for number in range(4):
        seen.run(number).get_by_role("button", name="Cancel").click()
        expect(seen.run(number)).to_have_attribute("data-state", "cancelled")
    assert len([url for url in seen.requests if url.endswith("/text-to-image")]) == 2
    seen.was_clean()
