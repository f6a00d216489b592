"""What is shown of a model is how a request for it would fare."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from gateway.dispatch.journey import Routing
from gateway.dispatch.showcase import Showcase, showing
from gateway.keys import KeyGrant
from gateway.orchestrators.offer import Offer
from gateway.orchestrators.selection import FEMTOSECONDS, Need, Policy, Prospect, Reason, rank
from network.prices import CurrencyPrice, fixed_usd
from network.units import ModelId, Pixels

M = ModelId("m")
POLICY = Policy()
ONE = Prospect("http://a", 5, 2, 1, 10_000_000, FEMTOSECONDS // 4, fresh_until=100.0)


def need(cap: Fraction | None = None) -> Need:
    return Need(M, Pixels(1000), 10, cap)


def test_the_one_that_would_be_chosen_is_shown() -> None:
    dear = replace(ONE, uri="http://b", price_numerator=9, free=4)
    shown = showing(need(), [dear, ONE], POLICY, 0.0, {"http://a": False, "http://b": True})
    assert shown.reason == ""
    assert (shown.price, shown.overhead, shown.pace) == (Fraction(5, 2), 0.25, 1e-8)
    assert (shown.orchestrators, shown.free, shown.warm) == (2, 5, True)


def test_a_pace_that_nobody_measured_is_not_told() -> None:
    cold = replace(ONE, pace=POLICY.unmeasured_pace)
    assert showing(need(), [cold], POLICY, 0.0, {"http://a": False}).pace is None


@pytest.mark.parametrize(
    ("changed", "cap", "reason"),
    [
        ({"free": 0}, None, "no free place"),
        ({}, Fraction(1), "above the price cap"),
        ({"suspended_until": 9.0}, None, "paused after failures"),
        ({"fresh_until": -1.0}, None, "silent for too long"),
    ],
)
def test_where_nobody_takes_it_the_reason_is_told_with_the_price(
    changed: dict[str, float], cap: Fraction | None, reason: str
) -> None:
    one = replace(ONE, **changed)
    shown = showing(need(cap), [one], POLICY, 0.0, {"http://a": True})
    assert (shown.reason, shown.price) == (reason, Fraction(5, 2))


def test_an_orchestrator_that_cannot_be_used_counts_for_nothing() -> None:
    one = replace(ONE, barred=Reason.UNREACHABLE)
    shown = showing(need(), [one], POLICY, 0.0, {"http://a": True})
    assert shown == showing(need(), [one], POLICY, 0.0, {"http://a": False})
    assert (shown.reason, shown.price, shown.orchestrators) == ("unreachable", None, 0)
    assert showing(need(), [], POLICY, 0.0, {}).reason == "model not offered"


prospects = st.builds(
    Prospect,
    uri=st.sampled_from(["http://a", "http://b", "http://c", "http://d"]),
    price_numerator=st.integers(0, 5),
    price_denominator=st.integers(1, 3),
    free=st.integers(-1, 2),
    pace=st.integers(1, 10**9),
    overhead=st.integers(0, FEMTOSECONDS),
    fresh_until=st.sampled_from([-1.0, 5.0]),
    suspended_until=st.sampled_from([0.0, 5.0]),
    barred=st.sampled_from([None, None, Reason.UNPRICED, Reason.UNREACHABLE]),
)


@given(known=st.lists(prospects, max_size=4, unique_by=lambda one: one.uri), cap=st.integers(0, 5))
def test_it_is_available_exactly_when_a_request_would_find_somebody(
    known: list[Prospect], cap: int
) -> None:
    asked = need(Fraction(cap))
    shown = showing(asked, known, POLICY, 0.0, {one.uri: True for one in known})
    best = rank(asked, known, POLICY, 0.0).best
    assert (shown.reason == "") == (best is not None)
    if best is not None:
        assert shown.price == best.prospect.price


class Clock:
    """Stands still until told."""

    at = 10.0

    def monotonic(self) -> float:
        return self.at

    def now(self) -> float:
        return self.at


class Known:
    """Counts the looks."""

    def __init__(self) -> None:
        self.looks = 0

    def glance(self, model_id: ModelId) -> list[Prospect]:
        assert model_id == M
        self.looks += 1
        return [ONE]

    def offer(self, uri: str) -> Offer | None:
        assert uri == ONE.uri
        return None


def test_one_look_serves_all_with_the_same_cap_for_a_second() -> None:
    known, clock = Known(), Clock()
    showcase = Showcase(known, POLICY, Routing(), clock)
    free, capped = KeyGrant("k", "free"), KeyGrant("l", "capped", max_price=Fraction(1))
    assert showcase.look(M, free).reason == ""
    assert showcase.look(M, free) is showcase.look(M, free)
    assert showcase.look(M, capped).reason == "above the price cap"
    assert known.looks == 2
    clock.at += 1
    showcase.look(M, free)
    assert known.looks == 3


def test_a_cap_in_dollars_without_a_rate_lets_nothing_be_bought() -> None:
    buyer = KeyGrant("k", "dollars", max_price=CurrencyPrice(Fraction(1), "USD"))
    unknown = Showcase(Known(), POLICY, Routing(rates=fixed_usd(None)), Clock())
    assert unknown.look(M, buyer).reason == "above the price cap"
    known = Showcase(Known(), POLICY, Routing(rates=fixed_usd(Fraction(3000))), Clock())
    assert known.look(M, buyer).reason == ""
