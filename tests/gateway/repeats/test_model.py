"""Which requests are the same, who shares, what a repeat costs, and whose failure a failure is."""

from fractions import Fraction

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.repeats.model import (
    Wish,
    charge_of,
    circle_of,
    concerns,
    parameters_of,
    read_wish,
)
from network.errors import Problem
from network.units import Wei
from network.wire import problems
from network.wire.messages import TextToImageRequest

WHOLE = {
    "prompt": "a boat",
    "negative_prompt": "a ship",
    "model_id": "m",
    "width": 64,
    "height": 128,
    "num_inference_steps": 5,
    "guidance_scale": 7.5,
    "seed": 7,
    "num_images_per_prompt": 2,
    "safety_check": True,
    "loras": '{"a/one": 1.0, "b/two": 0.5}',
    "deterministic": False,
}
#: Another value for each field there is.
OTHERS = {
    "prompt": "a boat ",
    "negative_prompt": "",
    "model_id": "n",
    "width": 128,
    "height": 64,
    "num_inference_steps": 6,
    "guidance_scale": 7.25,
    "seed": 8,
    "num_images_per_prompt": 1,
    "safety_check": False,
    "loras": '{"a/one": 0.5, "b/two": 1.0}',
    "deterministic": True,
}


def request(**fields: object) -> TextToImageRequest:
    return TextToImageRequest.model_validate({**WHOLE, **fields})


def test_every_field_of_a_request_counts() -> None:
    assert WHOLE.keys() == OTHERS.keys() == TextToImageRequest.model_fields.keys()
    seen = {parameters_of(request())}
    for name, value in OTHERS.items():
        seen.add(parameters_of(request(**{name: value})))
    assert len(seen) == len(OTHERS) + 1


@pytest.mark.parametrize(
    "same",
    [
        {"guidance_scale": 7.5, "width": 64.0},
        {"loras": '{"b/two": 0.5, "a/one": 1}'},
        {"loras": ' { "a/one" :1.00,"b/two":"0.5"} '},
    ],
)
def test_what_means_the_same_is_the_same(same: dict[str, object]) -> None:
    assert parameters_of(request(**same)) == parameters_of(request())


def test_no_loras_may_be_written_in_several_ways() -> None:
    assert len({parameters_of(request(loras=text)) for text in ("", "{}", " { } ")}) == 1


def test_without_a_seed_nothing_is_determined() -> None:
    left = {name: value for name, value in WHOLE.items() if name != "seed"}
    assert parameters_of(TextToImageRequest.model_validate(left)) is None


@given(st.dictionaries(st.text(max_size=4), st.floats(0, 99), max_size=4), st.randoms())
def test_the_order_of_loras_is_of_no_account(
    weights: dict[str, float], randomness: object
) -> None:
    pairs = list(weights.items())
    getattr(randomness, "shuffle")(pairs)  # noqa: B009
    first, second = (request(loras=orjson.dumps(dict(one)).decode()) for one in (weights, pairs))
    assert parameters_of(first) == parameters_of(second)


names = st.text(max_size=8)


@given(names, st.none() | names, names, st.none() | names)
def test_circles_are_one_only_where_they_may_be(
    key: str, team: str | None, other: str, others_team: str | None
) -> None:
    assert (circle_of(key, team, "key") == circle_of(other, others_team, "key")) == (key == other)
    shared = circle_of(key, team, "team") == circle_of(other, others_team, "team")
    if team is None and others_team is None:
        assert shared == (key == other)
    else:
        assert shared == (team == others_team)
    assert circle_of(key, team, "all") == circle_of(other, others_team, "all")


@given(st.integers(0, 10**30), st.fractions(0, 1))
def test_a_repeat_never_costs_more_than_its_part(fee: int, share: Fraction) -> None:
    charge = charge_of(Wei(fee), share)
    assert charge <= fee * share < charge + 1
    assert charge_of(Wei(fee), Fraction(0)) == 0
    assert charge_of(Wei(fee), Fraction(1)) == fee


@pytest.mark.parametrize(
    ("values", "wish"),
    [
        ([], Wish()),
        (["no-cache"], Wish(no_cache=True)),
        (["max-age=0"], Wish(no_cache=True)),
        (["max-age=60"], Wish()),
        (['No-Store, Max-Age="0"'], Wish(no_cache=True, no_store=True)),
        (["public", " only-if-cached "], Wish(only_if_cached=True)),
        (["no-cachet", "x" * 5000, ",,=,"], Wish()),
    ],
)
def test_what_a_request_may_wish(values: list[str], wish: Wish) -> None:
    assert read_wish(values) == wish


@given(st.lists(st.text()))
def test_any_header_is_read(values: list[str]) -> None:
    assert isinstance(read_wish(values), Wish)


@pytest.mark.parametrize(
    ("problem", "same_key", "another"),
    [
        (problems.bad_request("the scheduler does not know 77 steps"), True, True),
        (problems.model_not_found("m", []), True, True),
        (problems.orchestrators_failed("all of them"), True, True),
        (problems.no_capacity(1.0), True, True),
        (problems.budget_exceeded("spent", 1.0), True, False),
        (problems.rate_limited(1.0), True, False),
        (problems.forbidden(), True, False),
        (problems.price_above_cap("too dear"), True, False),
        (problems.timed_out("too late"), False, False),
    ],
)
def test_whose_failure_it_is(problem: Problem, *, same_key: bool, another: bool) -> None:
    assert concerns(problem, same_key=True) is same_key
    assert concerns(problem, same_key=False) is another
