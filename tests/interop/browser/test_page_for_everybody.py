"""The page by keyboard, by ear, on a phone, in the dark."""

from typing import Any

import pytest
from playwright.sync_api import Page, expect

from scripts.local_network.network import LocalNetwork
from tests.interop.browser.visiting import Visit, Visiting, needs_chromium

pytestmark = [needs_chromium, pytest.mark.interop, pytest.mark.slow]

#: Of each control: what it is called, as the accessible name is computed in the simple cases.
NAMES = """() => [...document.querySelectorAll("button, input, select, textarea, a[href], summary, [role]")]
  .filter((one) => one.checkVisibility() && one.getAttribute("role") !== "status")
  .map((one) => {
    const labels = [...(one.labels ?? [])].map((label) => label.textContent);
    const inside = [...one.querySelectorAll("img")].map((image) => image.alt);
    const names = [one.getAttribute("aria-label"), ...labels, one.textContent, ...inside];
    return [one.outerHTML.slice(0, 120), names.filter(Boolean).join(" ").trim()];
  })"""

#: Ids that are used twice, references to none, pictures without a text, jumps in the order of tabs.
FAULTS = """() => {
  const ids = [...document.querySelectorAll("[id]")].map((one) => one.id);
  const refers = (name) => [...document.querySelectorAll(`[${name}]`)].flatMap((one) => one.getAttribute(name).split(" "));
  return [
    ...ids.filter((id, index) => ids.indexOf(id) !== index),
    ...["for", "aria-labelledby", "aria-describedby", "list"].flatMap(refers).filter((id) => !ids.includes(id)),
    ...[...document.querySelectorAll("img:not([alt]), [tabindex]:not([tabindex='-1'])")].map((one) => one.outerHTML),
    ...(document.documentElement.lang ? [] : ["no language"]),
    ...(document.querySelectorAll("h1").length === 1 ? [] : ["not one h1"]),
    ...(document.querySelectorAll("main").length === 1 ? [] : ["not one main"]),
  ];
}"""

#: WCAG 2's contrast of every text that can be seen, and of the edges of fields, where it is too small.
CONTRAST = """() => {
  const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  const rgba = (colour) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const over = ([r, g, b, a], under) => [r, g, b].map((one, at) => (one * a + under[at] * (255 - a)) / 255);
  const behind = (one) => {
    if (!one) return rgba(getComputedStyle(document.body).backgroundColor);
    const own = rgba(getComputedStyle(one).backgroundColor);
    return own[3] === 255 ? own : over(own, behind(one.parentElement));
  };
  const light = (colour) => {
    const [r, g, b] = colour.map((one) => (one / 255 <= 0.04045 ? one / 255 / 12.92 : ((one / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const contrast = (one, other) => {
    const [high, low] = [light(one), light(other)].sort((a, b) => b - a);
    return (high + 0.05) / (low + 0.05);
  };
  const top = document.querySelector("dialog[open]") ?? document.body;
  const seen = [...top.querySelectorAll("*")].filter((one) => one.checkVisibility() && !one.closest("figcaption, .unseen, .skip, :disabled"));
  const texts = seen
    .filter((one) => [...one.childNodes].some((child) => child.nodeType === 3 && child.data.trim()) || one.matches("input:not([type=range]), textarea, select"))
    .map((one) => {
      const style = getComputedStyle(one);
      const size = parseFloat(style.fontSize);
      const least = size >= 24 || (size >= 18.66 && style.fontWeight >= 700) ? 3 : 4.5;
      const under = behind(one);
      return [one.textContent.trim().slice(0, 40) || one.id, contrast(over(rgba(style.color), under), under), least];
    });
  const edges = seen
    .filter((one) => one.matches("input[type=text], input[type=number], input[type=password], textarea, select"))
    .map((one) => ["edge of " + one.id, contrast(rgba(getComputedStyle(one).borderTopColor), behind(one.parentElement)), 3]);
  return { looked: texts.length, poor: [...texts, ...edges].filter(([, found, least]) => found < least) };
}"""

#: What has the focus, and whether that can be seen: on itself, or on the label around it.
FOCUS = """() => {
  const one = document.activeElement;
  const isMarked = (node) => {
    const style = getComputedStyle(node);
    return style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2;
  };
  const box = one.getBoundingClientRect();
  return { id: one.id || one.getAttribute("aria-label") || one.textContent.trim(), isMarked: isMarked(one) || isMarked(one.parentElement), isBody: one === document.body, width: box.width };
}"""


def tab_through(page: Page) -> list[dict[str, Any]]:
    """Every stop of the page once, from where the focus is and round to there again."""
    stops: list[dict[str, Any]] = []
    while len(stops) < 100:
        page.keyboard.press("Tab")
        stop: dict[str, Any] = page.evaluate(FOCUS)
        if stops and stop == stops[0]:
            break
        stops.append(stop)
    return [stop for stop in stops if not stop["isBody"]]


def press(page: Page, *keys: str) -> None:
    for one in keys:
        page.keyboard.press(one)


def with_pictures(seen: Visit, one_node: LocalNetwork) -> None:
    """A page in use: a picture, a warning, a refusal, a card under way."""
    seen.enter(one_node.gateway.key)
    seen.ask("a red cross " + "and a very long tail of words " * 12)
    seen.send()
    seen.is_done()
    expect(seen.run().locator(".warning")).to_be_visible()
    seen.ask("a blue cross")
    seen.find("#lora-add").click()
    seen.page.get_by_label("LoRA", exact=True).fill("no/such")
    seen.send()
    expect(seen.run().get_by_role("alert")).to_be_visible()
    seen.page.get_by_role("button", name="Remove this LoRA").click()
    seen.ask("a green cross", side=1024, steps=100, count=4)
    seen.find("summary").click()
    seen.send()
    expect(seen.run().locator(".stage")).to_contain_text("Step ")


def test_everything_can_be_done_by_keyboard_and_the_focus_is_seen(
    visit: Visiting, one_node: LocalNetwork
) -> None:
    seen = visit()
    page = seen.page
    page.goto(f"{seen.url}/")
    expect(page.get_by_label("API key")).to_be_focused()
    page.keyboard.type(one_node.gateway.key)
    press(page, "Enter")
    seen.is_ready()

    # The first stop leads past the bar, and a key from anywhere to the prompt.
    page.evaluate("() => document.activeElement.blur()")
    press(page, "/")
    expect(seen.find("#prompt")).to_be_focused()
    page.keyboard.type("a yellow diamond")
    press(page, "Tab", "Tab", "Tab")
    expect(page.locator("input[name=ratio]:checked")).to_be_focused()
    press(page, "ArrowRight")
    expect(page.locator("input[value='4:3']")).to_be_checked()
    expect(seen.find("#height")).to_have_value("768")
    press(page, "Tab", "ArrowLeft", "ArrowLeft")
    expect(seen.find("#width")).to_have_value("512")
    press(page, "Tab", "Control+a")
    page.keyboard.type("130")
    press(page, "Tab")
    expect(seen.find("#width")).to_have_value("128")
    press(page, "Tab", "Tab")
    expect(seen.find("#count")).to_be_focused()
    press(page, "ArrowRight", "Tab", "Home")
    expect(seen.find("#steps-shown")).to_have_text("1")
    expect(seen.find("#steps-auto")).not_to_be_checked()
    press(page, "Control+Enter")
    seen.is_done()
    expect(seen.run().locator(".tile img")).to_have_count(2)

    # From the form on to the pictures, each stop of which is seen.
    stops = tab_through(page)
    assert [stop for stop in stops if not stop["isMarked"]] == []
    names = [stop["id"] for stop in stops]
    assert names.index("go") < names.index("Run again") < names.index("Delete")
    assert {"theme", "key", "model", "swap", "dice", "lock", "lora-add", "clear"} <= set(names)
    seen.run().locator(".open").first.focus()
    press(page, "Enter")
    expect(seen.find("#viewer-text")).to_contain_text("1 of 2")
    press(page, "ArrowRight")
    expect(seen.find("#viewer-text")).to_contain_text("2 of 2")
    press(page, "Escape")
    expect(seen.run().locator(".open").first).to_be_focused()
    seen.run().get_by_role("button", name="Delete").focus()
    press(page, "Enter")
    expect(seen.find("#prompt")).to_be_focused()
    seen.was_clean()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_everything_has_a_name_is_readable_and_fits(
    visit: Visiting, one_node: LocalNetwork, scheme: str, width: int
) -> None:
    seen = visit(width=width, height=740, color_scheme=scheme, reduced_motion="reduce")
    with_pictures(seen, one_node)
    page = seen.page
    nameless = [html for html, name in page.evaluate(NAMES) if not name]
    assert nameless == []
    assert page.evaluate(FAULTS) == []
    found = page.evaluate(CONTRAST)
    assert found["poor"] == []
    assert found["looked"] > 40
    # Nothing hangs over the side, and what sends is at hand wherever one is.
    assert page.evaluate("() => document.documentElement.scrollWidth") == width
    expect(seen.find("#go")).to_be_in_viewport(ratio=1)
    small = page.evaluate(
        """() => [...document.querySelectorAll("button, select")]
          .filter((one) => one.checkVisibility() && !one.closest("figcaption") && one.getBoundingClientRect().height < 40)
          .map((one) => one.outerHTML)"""
    )
    assert small == []
    moving = page.evaluate(
        """() => document.getAnimations().filter((one) => one.effect.getComputedTiming().iterations > 1).length"""
    )
    assert moving == 0, "who asks for less motion gets less"
    seen.run().get_by_role("button", name="Cancel").click()
    expect(seen.run()).to_have_attribute("data-state", "cancelled")
    seen.find("#key").click()
    found = page.evaluate(CONTRAST)
    assert (found["poor"], found["looked"] > 5) == ([], True)
    assert [html for html, name in page.evaluate(NAMES) if not name] == []
    seen.was_clean(refusals=True)


def test_the_switch_outweighs_the_system_and_stays(
    visit: Visiting, one_node: LocalNetwork
) -> None:
    seen = visit(color_scheme="light")
    seen.enter(one_node.gateway.key)

    def background() -> str:
        found: str = seen.page.evaluate("() => getComputedStyle(document.body).backgroundColor")
        return found

    light = background()
    seen.page.get_by_role("button", name="Switch to dark").click()
    dark = background()
    assert dark != light
    seen.page.reload()
    expect(seen.page.get_by_role("button", name="Switch to light")).to_be_visible()
    assert background() == dark
    other = visit(color_scheme="dark")
    other.enter(one_node.gateway.key)
    expect(other.page.get_by_role("button", name="Switch to light")).to_be_visible()
    seen.was_clean()
