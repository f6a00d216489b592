"""Requests and pixels a minute: of a key and of its team, all of which must allow it, or none is charged."""

import pytest
from typing_extensions import override

from gateway.api import rates as module
from gateway.api.rates import Rates
from gateway.keys import KeyGrant, Team, UseLimits
from network.errors import ProblemError
from network.units import Pixels


class StandingClock:
    def now(self) -> float:
        return 0.0

    def monotonic(self) -> float:
        return 100.0


def grant(key_id: str, own: UseLimits, team: UseLimits) -> KeyGrant:
    return KeyGrant(key_id, key_id, limits=own, team=Team("crew", team))


def test_what_the_team_forbids_is_not_taken_from_the_key() -> None:
    rates = Rates(StandingClock())
    crew = UseLimits(requests_per_minute=1, pixels_per_minute=100)
    one = grant("k1", UseLimits(requests_per_minute=3, pixels_per_minute=150), crew)
    rates.take_request(one)
    rates.take_pixels(one, Pixels(100))
    for _ in range(5):
        with pytest.raises(ProblemError, match="The team 'crew' of this key may use 1 requests"):
            rates.take_request(one)
        with pytest.raises(ProblemError, match="may use 100 pixels a minute"):
            rates.take_pixels(one, Pixels(50))
    # Out of the team, the key has what it did not use.
    alone = KeyGrant("k1", "k1", limits=one.limits)
    assert [_remaining(rates, alone) for _ in range(2)] == [1, 0]
    rates.take_pixels(alone, Pixels(50))
    with pytest.raises(ProblemError, match="This key"):
        rates.take_pixels(alone, Pixels(1))


def test_what_the_key_forbids_is_not_taken_from_the_team() -> None:
    rates = Rates(StandingClock())
    crew = UseLimits(requests_per_minute=2)
    one, other = (grant(name, UseLimits(requests_per_minute=1), crew) for name in ("k1", "k2"))
    rates.take_request(one)
    for _ in range(5):
        with pytest.raises(ProblemError, match="This key may use 1 requests a minute"):
            rates.take_request(one)
    rates.take_request(other)


def test_of_several_limits_the_tightest_is_told() -> None:
    rates = Rates(StandingClock())
    wide, narrow = UseLimits(requests_per_minute=9), UseLimits(requests_per_minute=4)
    assert _remaining(rates, grant("k1", wide, narrow)) == 3
    rates = Rates(StandingClock())
    assert _remaining(rates, grant("k1", narrow, wide)) == 3


def _remaining(rates: Rates, who: KeyGrant) -> int | None:
    left = rates.take_request(who)
    return None if left is None else left.remaining


class HandClock(StandingClock):
    def __init__(self) -> None:
        self.time = 100.0

    @override
    def monotonic(self) -> float:
        return self.time


def test_counts_that_are_as_good_as_new_are_forgotten_and_others_are_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_MANY", 100)
    clock = HandClock()
    rates = Rates(clock)
    busy = KeyGrant("busy", "busy", limits=UseLimits(requests_per_minute=1))
    for number in range(1000):
        clock.time += 1
        one = KeyGrant(f"k{number}", "one", limits=UseLimits(requests_per_minute=60))
        if number % 60 == 0:
            rates.take_request(busy)
        assert _remaining(rates, one) == 59
        assert _is_refused(rates, busy), "whatever was forgotten meanwhile"
    assert len(rates._buckets) <= 101


def _is_refused(rates: Rates, grant: KeyGrant) -> bool:
    with pytest.raises(ProblemError, match="may use 1 requests a minute"):
        rates.take_request(grant)
    return True
