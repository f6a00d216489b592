"""The ranking is exact, complete, and does not depend on who was looked at first."""

import random
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from gateway.orchestrators.selection import (
    FEMTOSECONDS,
    Need,
    Policy,
    Prospect,
    Ranking,
    Reason,
    rank,
)
from network.units import ModelId, Pixels, fee

NOW = 1000.0

prices = st.fractions(min_value=0, max_value=10**7, max_denominator=1000)


def uri_of(name: int) -> str:
    return f"https://o{name}:8936"


@st.composite
def prospects(draw: st.DrawFn) -> list[Prospect]:
    names = draw(st.lists(st.integers(0, 99), unique=True, max_size=12))
    return [draw(prospect(uri_of(name))) for name in names]


@st.composite
def prospect(draw: st.DrawFn, uri: str) -> Prospect:
    price = draw(prices)
    return Prospect(
        uri=uri,
        price_numerator=price.numerator,
        price_denominator=price.denominator,
        free=draw(st.integers(-1, 3)),
        pace=draw(st.integers(1, 10**9)),
        overhead=draw(st.integers(0, 40 * FEMTOSECONDS)),
        fresh_until=draw(st.sampled_from([NOW - 1, NOW, NOW + 1, NOW + 60])),
        suspended_until=draw(st.sampled_from([0.0, NOW, NOW + 1])),
        barred=draw(st.sampled_from([None, None, None, Reason.UNREACHABLE, Reason.INCOMPATIBLE])),
    )


needs = st.builds(
    Need,
    model_id=st.just(ModelId("m")),
    pixels=st.integers(1, 4 * 2048 * 2048).map(Pixels),
    steps=st.integers(1, 100),
    price_cap=st.none() | prices,
)
policies = st.builds(
    Policy, time_value=st.fractions(min_value=0, max_value=10**15, max_denominator=99)
)


def exhaustive_score(need: Need, policy: Policy, one: Prospect) -> Fraction:
    """The design's formula, in fractions and in full."""
    seconds = Fraction(one.overhead + int(need.pixels) * need.steps * one.pace, FEMTOSECONDS)
    return fee(need.pixels, one.price) + policy.time_value * seconds


def is_eligible(need: Need, one: Prospect, tried: set[str]) -> bool:
    return (
        one.barred is None
        and one.uri not in tried
        and (need.price_cap is None or one.price <= need.price_cap)
        and one.fresh_until >= NOW
        and one.suspended_until <= NOW
        and one.free > 0
    )


def ranked(
    need: Need, policy: Policy, everybody: list[Prospect], tried: set[str] | None = None
) -> Ranking:
    return rank(need, everybody, policy, NOW, tried or set())


@given(needs, policies, prospects(), st.sets(st.integers(0, 99).map(uri_of)))
def test_the_order_is_that_of_the_exhaustive_scores(
    need: Need, policy: Policy, everybody: list[Prospect], tried: set[str]
) -> None:
    ranking = ranked(need, policy, everybody, tried)
    expected = sorted(
        (exhaustive_score(need, policy, one), one.uri)
        for one in everybody
        if is_eligible(need, one, tried)
    )
    assert [(ranking.score(c), c.uri) for c in ranking.candidates] == expected
    best = ranking.best
    assert (best.uri if best else None) == (expected[0][1] if expected else None)


@given(needs, policies, prospects(), st.randoms(use_true_random=False))
def test_the_order_of_looking_does_not_matter(
    need: Need, policy: Policy, everybody: list[Prospect], order: random.Random
) -> None:
    shuffled = list(everybody)
    order.shuffle(shuffled)
    first, second = ranked(need, policy, everybody), ranked(need, policy, shuffled)
    assert first.candidates == second.candidates
    assert first.refusals == second.refusals
    assert first.best == second.best


@given(needs, policies, prospects())
def test_everybody_is_either_a_candidate_or_refused_with_a_reason(
    need: Need, policy: Policy, everybody: list[Prospect]
) -> None:
    ranking = ranked(need, policy, everybody)
    chosen = [candidate.uri for candidate in ranking.candidates]
    refused = [refusal.uri for refusal in ranking.refusals]
    assert sorted(chosen + refused) == sorted(one.uri for one in everybody)
    assert all(refusal.reason.value in refusal.text() for refusal in ranking.refusals)


@given(needs, policies, prospects())
def test_no_candidate_asks_more_than_the_cap_and_no_fee_exceeds_it(
    need: Need, policy: Policy, everybody: list[Prospect]
) -> None:
    for candidate in ranked(need, policy, everybody).candidates:
        assert candidate.fee == fee(need.pixels, candidate.prospect.price)
        if need.price_cap is not None:
            assert candidate.prospect.price <= need.price_cap
            assert candidate.fee <= fee(need.pixels, need.price_cap)


@given(needs, prospects())
def test_without_a_value_of_time_the_cheapest_wins(need: Need, everybody: list[Prospect]) -> None:
    ranking = ranked(need, Policy(time_value=Fraction(0)), everybody)
    fees = [candidate.fee for candidate in ranking.candidates]
    assert fees == sorted(fees)


def test_a_high_value_of_time_prefers_the_fast_and_the_warm() -> None:
    def one(uri: str, price: int, pace: int, overhead: int) -> Prospect:
        return Prospect(uri, price, 1, 1, pace, overhead, NOW + 1)

    cheap_and_slow = one("https://slow", 1, 10**9, 0)
    dear_and_fast = one("https://fast", 5, 10**6, 0)
    cheap_and_cold = one("https://cold", 1, 10**6, 30 * FEMTOSECONDS)
    everybody = [cheap_and_slow, dear_and_fast, cheap_and_cold]
    need = Need(ModelId("m"), Pixels(512 * 512), 20, None)
    thrifty = ranked(need, Policy(time_value=Fraction(1)), everybody)
    hasty = ranked(need, Policy(time_value=Fraction(10**9)), everybody)
    assert thrifty.candidates[-1].uri == "https://fast"
    assert hasty.candidates[0].uri == "https://fast"
    assert hasty.candidates[0].expected_seconds < 0.01


def test_the_cheapest_price_above_the_cap_is_known() -> None:
    def one(uri: str, price: int) -> Prospect:
        return Prospect(uri, price, 2, 1, 1, 0, NOW + 1)

    need = Need(ModelId("m"), Pixels(64), 1, Fraction(2))
    ranking = ranked(need, Policy(), [one("https://a", 9), one("https://b", 5)])
    assert ranking.best is None
    assert ranking.cheapest_price() == Fraction(5, 2)
    assert ranking.refusals[1].text() == ("https://b: above the price cap (5/2 > 2 wei per pixel)")
