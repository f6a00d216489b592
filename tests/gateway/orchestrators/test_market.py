"""The best of a market is the one that looking at everybody finds, whatever changed before."""

from fractions import Fraction
from random import Random

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule
from msgspec.structs import fields, replace

from gateway.orchestrators.market import Market
from gateway.orchestrators.pace import spread
from gateway.orchestrators.selection import Need, Policy, Prospect, Reason, rank
from network.units import ModelId, Pixels

URIS = [f"https://o{number}" for number in range(5)]
#: Few, as in life: what is remembered of a shape is put to use only when it is asked for again.
NEEDS = [
    Need(ModelId("m"), Pixels(pixels), steps, cap, images)
    for pixels, images, steps, cap in (
        (4096, 1, 20, None),
        (4096, 4, 20, None),
        (7, 1, 1, Fraction(2)),
        (1, 1, 20, Fraction(5, 3)),
    )
]


def prospect(uri: str, **changes: object) -> Prospect:
    usual = Prospect(uri, 3, 2, free=1, pace=10**8, overhead=10**13, fresh_until=50.0)
    return replace(usual, **changes)


class Trading(RuleBasedStateMachine):
    """Orchestrators come, change and go while requests of several shapes ask for the best."""

    @initialize(value=st.sampled_from([Fraction(0), Fraction(7, 3), Fraction(10**9)]))
    def begin(self, value: Fraction) -> None:
        self.policy = Policy(time_value=value)
        self.market = Market(self.policy)
        self.known: dict[str, Prospect] = {}
        self.now = 0.0

    @rule(
        uri=st.sampled_from(URIS),
        price=st.integers(0, 6),
        unit=st.sampled_from([1, 3]),
        free=st.integers(-1, 2),
        pace=st.sampled_from([10**7, 10**8]),
        slower=st.sampled_from([1, 1, 3]),
        overhead=st.sampled_from([0, 10**13]),
        life=st.integers(-1, 30),
        pause=st.sampled_from([0, 0, 0, 5, 20]),
        barred=st.sampled_from([None, None, None, Reason.UNREACHABLE]),
    )
    def change(
        self,
        *,
        uri: str,
        price: int,
        unit: int,
        free: int,
        pace: int,
        slower: int,
        overhead: int,
        life: int,
        pause: int,
        barred: Reason | None,
    ) -> None:
        self.known[uri] = prospect(
            uri,
            price_numerator=price,
            price_denominator=unit,
            free=free,
            pace=pace,
            overhead=overhead,
            fresh_until=self.now + life,
            suspended_until=self.now + pause if pause else 0.0,
            barred=barred,
            # Where sizes differ, large images take longer for a pixel.
            paces=() if slower == 1 else spread({1: pace, 11: 2 * pace, 13: slower * pace}),
        )
        self.market.put(self.known[uri])

    @rule(uri=st.sampled_from(URIS), change=st.sampled_from([-1, 1]))
    def claim_or_release(self, uri: str, change: int) -> None:
        if uri in self.known:
            self.known[uri] = replace(self.known[uri], free=self.known[uri].free + change)
            self.market.recount(uri, self.known[uri].free)

    @rule(uri=st.sampled_from(URIS))
    def refresh(self, uri: str) -> None:
        if uri in self.known:
            self.known[uri] = replace(self.known[uri], fresh_until=self.now + 15)
            self.market.put(self.known[uri])

    @rule(uri=st.sampled_from(URIS))
    def leave(self, uri: str) -> None:
        assert self.market.remove(uri) == (self.known.pop(uri, None) is not None)

    @rule(seconds=st.sampled_from([0.5, 4.0, 11.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(need=st.sampled_from(NEEDS), tried=st.sets(st.sampled_from(URIS), max_size=3))
    def ask(self, need: Need, tried: set[str]) -> None:
        exhaustive = rank(need, self.known.values(), self.policy, self.now, tried).best
        assert self.market.best(need, self.now, tried) == exhaustive

    @rule(need=st.sampled_from(NEEDS), seconds=st.sampled_from([0.5, 4.0, 11.0]))
    def ask_and_ask_again_later(self, need: Need, seconds: float) -> None:
        self.ask(need, set())
        self.now += seconds
        self.ask(need, set())

    @rule(uri=st.sampled_from(URIS), fresh=st.sampled_from([5, 30]), pause=st.sampled_from([0, 3]))
    def change_its_times_alone(self, uri: str, fresh: int, pause: int) -> None:
        """As a refresh and a failure do; its score is what it was."""
        if uri in self.known:
            until = self.now + pause if pause else 0.0
            self.known[uri] = replace(
                self.known[uri], fresh_until=self.now + fresh, suspended_until=until
            )
            self.market.put(self.known[uri])


TestTrading = Trading.TestCase


def best_of(market: Market, now: float) -> str | None:
    found = market.best(NEEDS[0], now)
    return None if found is None else found.uri


def test_who_lapsed_is_found_again_as_soon_as_the_offer_is_renewed() -> None:
    market = Market(Policy(time_value=Fraction(0)))
    market.put(prospect(URIS[0], fresh_until=5.0))
    assert best_of(market, 0.0) == URIS[0]
    assert best_of(market, 6.0) is None
    market.put(prospect(URIS[0], fresh_until=20.0))
    assert best_of(market, 6.0) == URIS[0]
    # And once more, which what was noted of the first time must not prevent.
    assert best_of(market, 21.0) is None
    market.put(prospect(URIS[0], fresh_until=40.0))
    assert best_of(market, 21.0) == URIS[0]


def test_a_pause_ends_when_it_is_over_and_sooner_when_it_is_lifted() -> None:
    market = Market(Policy(time_value=Fraction(0)))
    market.put(prospect(URIS[0], suspended_until=10.0))
    market.put(prospect(URIS[1], price_numerator=30))
    assert best_of(market, 0.0) == URIS[1]
    assert best_of(market, 10.0) == URIS[0]
    market.put(prospect(URIS[0], suspended_until=40.0))
    assert best_of(market, 11.0) == URIS[1]
    market.put(prospect(URIS[0], suspended_until=0.0))
    assert best_of(market, 11.0) == URIS[0]


def test_only_the_free_places_are_others() -> None:
    filled = {one.name: (one.name, "any") for one in fields(Prospect)}
    of_all = Prospect(**filled)  # type: ignore[arg-type]
    assert of_all.with_free(5) == replace(of_all, free=5)


@pytest.mark.parametrize("shapes", [1, 40])
def test_a_long_life_with_many_orchestrators_stays_small_and_exact(shapes: int) -> None:
    randomness = Random(5)  # noqa: S311
    policy = Policy(time_value=Fraction(10**6))
    market = Market(policy)
    uris = [f"https://o{number}" for number in range(60)]
    for uri in uris:
        market.put(prospect(uri, fresh_until=1e9))
    for _ in range(6000):
        uri = randomness.choice(uris)
        changed = {
            "price_numerator": randomness.randrange(1, 9),
            "pace": randomness.randrange(10**7, 10**9),
            "free": randomness.randrange(0, 3),
        }
        market.put(prospect(uri, fresh_until=1e9, **changed))
        pixels = Pixels(4096 * randomness.randrange(1, shapes + 1))
        need = Need(ModelId("m"), pixels, 20, None)
        exhaustive = rank(need, market.prospects(), policy, 0.0).best
        assert market.best(need, 0.0) == exhaustive
    assert market.entries() <= 17 * (2 * len(uris) + 65)
