"""The page's own arithmetic, in the browser that will do it, against Python's."""

import random
from fractions import Fraction
from typing import Any

import pytest

from gateway.api.cache_status import STATUSES
from network.prices import dollars_of
from network.units import Pixels, Wei, fee
from network.wire.limits import Limits
from tests.interop.browser.visiting import Visit, Visiting, needs_chromium

pytestmark = [needs_chromium, pytest.mark.interop, pytest.mark.slow]


@pytest.fixture
def seen(visit: Visiting) -> Visit:
    opened = visit()
    opened.page.goto(f"{opened.url}/")
    return opened


def call(seen: Visit, module: str, function: str, cases: list[Any]) -> list[Any]:
    """`function` of each case; BigInt goes in as {"wei": "1"} and comes out as text."""
    found: list[Any] = seen.page.evaluate(
        """async ([module, name, cases]) => {
          const found = (await import(`./page/${module}.js`))[name];
          const big = (value) => (value?.wei ? BigInt(value.wei) : value);
          return cases.map((one) => {
            const told = found(...one.map(big));
            return typeof told === "bigint" ? told.toString() : told;
          });
        }""",
        [module, function, cases],
    )
    return found


def test_fees_are_the_networks_to_the_wei(seen: Visit) -> None:
    rng = random.Random(1)  # noqa: S311
    cases = []
    for _ in range(300):
        price = Fraction(rng.randrange(10 ** rng.randrange(1, 22)), rng.randrange(1, 10**6))
        cases.append((rng.randrange(1, 2**26), price))
    told = call(seen, "money", "feeOf", [[pixels, str(price)] for pixels, price in cases])
    assert told == [str(fee(Pixels(pixels), price)) for pixels, price in cases]


def test_dollars_are_pythons_to_the_millionth(seen: Visit) -> None:
    rng = random.Random(2)  # noqa: S311
    cases = [
        (rng.randrange(10**9, 3 * 10**12), Fraction(rng.randrange(1, 10**7), 100))
        for _ in range(300)
    ]
    told = call(
        seen, "money", "dollarText", [[{"wei": str(wei)}, str(rate)] for wei, rate in cases]
    )
    for (wei, rate), text in zip(cases, told, strict=True):
        exact = wei * rate / 10**18
        if exact < Fraction(1, 10**6):
            assert text == "under $0.000001"
        elif exact < Fraction(1, 100):
            # A half is rounded up here and to even there.
            expected = Fraction(dollars_of(Wei(wei), rate))
            assert abs(Fraction(text.removeprefix("$")) - expected) <= Fraction(1, 10**6)
        else:
            assert abs(Fraction(text.removeprefix("$").replace(",", "")) - exact) <= Fraction(
                1, 200
            )


def test_every_size_that_is_proposed_is_within_bounds(seen: Visit) -> None:
    rng = random.Random(3)  # noqa: S311
    for _ in range(10):
        limits = Limits(
            size_multiple=rng.choice([1, 8, 32, 64]),
            min_side=rng.choice([1, 64, 100, 200]),
            max_width=rng.choice([256, 1000, 1024, 2048]),
            max_height=rng.choice([256, 576, 1024, 2048]),
        )
        bounds = {name: getattr(limits, name) for name in limits.__slots__}
        ratios = [(1, 1), (4, 3), (16, 9), (9, 16), (40, 1)]
        cases = [[*ratio, scale, bounds] for ratio in ratios for scale in (0.5, 0.75, 1)]
        for width, height in call(seen, "sizes", "sizeOf", cases):
            least, widest = limits.sides(limits.max_width)
            assert least <= width <= widest
            assert least <= height <= limits.sides(limits.max_height)[1]
            assert width % limits.size_multiple == height % limits.size_multiple == 0


def test_links_bring_back_what_went_in_and_nothing_that_is_no_parameter(seen: Visit) -> None:
    wanted = {
        "prompt": "50 % & more = #1 \u00e9\U0001f98a\nnext line",
        "negative_prompt": "<script>",
        "model_id": "a/b",
        "width": 512,
        "height": 384,
        "num_inference_steps": 7,
        "guidance_scale": 0,
        "num_images_per_prompt": 3,
        "seed": 2**32 - 1,
        "loras": {"a/one": 0.5, "b*c": 2},
        "safety_check": False,
        "deterministic": True,
        "output_format": "webp",
        "embed_metadata": True,
        "embed_prompt": False,
    }
    (fragment,) = call(seen, "share", "fragmentOf", [[wanted]])
    (back,) = call(seen, "share", "wantedIn", [["#" + fragment]])
    assert back == {**wanted, "loras": {"a/one": 0.5}}, "`*` is in no name that nodes take"
    nothing = ["", "#", "#prompt", "#width=3", "#key=limner_x", "#prompt=" + "x" * 30_000]
    assert call(seen, "share", "wantedIn", [[one] for one in nothing]) == [None] * len(nothing)
    (odd,) = call(
        seen, "share", "wantedIn", [["#prompt=a&width=x&seed=&lora=a*-1&lora=b*200&lora=*1"]]
    )
    assert odd == {"prompt": "a", "loras": {}}


def test_events_are_read_as_they_are_written(seen: Visit) -> None:
    text = (
        ': still there\n\nevent: queued\ndata: {"position":2}\n\n'
        'data: {"a": "b: c"}\n\nevent: over\ndata: {}'
    )
    assert call(seen, "events", "parseEvents", [[text]]) == [
        [
            {"name": "queued", "data": {"position": 2}},
            {"name": "message", "data": {"a": "b: c"}},
            {"name": "over", "data": {}},
        ]
    ]


def test_images_are_fetched_from_the_pages_own_gateway_whatever_its_public_name(
    seen: Visit,
) -> None:
    cases = {
        "https://images.example/gw/stream/a1/b2.png": "stream/a1/b2.png",
        "http://127.0.0.1:8937/stream/a1/b2.png": "stream/a1/b2.png",
        "data:image/png;base64,AA/a.b": "data:image/png;base64,AA/a.b",
        "https://b.example/p/a1/b2.webp?X-Amz-Credential=k/a.c&X-Amz-Date=1": "stream/a1/b2.webp",
    }
    told = call(seen, "gallery", "addressOf", [[{"url": url}] for url in cases])
    assert told == list(cases.values())


def test_files_are_called_what_they_are(seen: Visit) -> None:
    cases = {
        "https://a.example/stream/a1/b2.png": "limner-7.png",
        "https://a.example/stream/a1/b2.jpg": "limner-7.jpg",
        "https://b.example/p/a1/b2.webp?X-Amz-Signature=c.jpg": "limner-7.webp",
        "data:image/jpeg;base64,AAAA": "limner-7.jpg",
        "https://a.example/stream/a1/b2": "limner-7.png",
    }
    told = call(seen, "output", "nameOf", [[{"url": url, "seed": 7}] for url in cases])
    assert told == list(cases.values())


def test_it_is_told_which_pictures_were_not_made_for_this_request(seen: Visit) -> None:
    told = call(seen, "output", "originOf", [[one] for one in ("", *STATUSES.values())])
    assert dict(zip(("", *STATUSES), told, strict=True)) == {
        "": "",
        "hit": "made before",
        "coalesced": "made together with an equal request",
        "miss": "",
        "refreshed": "",
        "bypassed": "",
    }
