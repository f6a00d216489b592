"""What is shown of the last hours is what happened, and takes no more room for more of it."""

from fractions import Fraction
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from network.runtime.history import SLOT, SPANS, History

NOW = 1_800_000_000.0
#: Of the longest span.
SLOTS = 1440

happenings = st.lists(
    st.tuples(
        st.floats(0, 20_000),
        st.one_of(
            st.tuples(st.floats(0.001, 500), st.integers(0, 10**30)),
            st.sampled_from(["no_capacity", "budget_exceeded", "rate_limited"]),
        ),
    ),
    max_size=60,
)


@pytest.mark.parametrize("span", SPANS)
@given(happened=happenings)
def test_sums_are_exact_and_bins_add_up(
    span: int, happened: list[tuple[float, tuple[float, int] | str]]
) -> None:
    history = History()
    for ago, what in sorted(happened, key=lambda pair: -pair[0]):
        if isinstance(what, str):
            history.bad(NOW - ago, what)
        else:
            history.good(NOW - ago, *what)
    told = history.told(NOW, span)
    seen = [what for ago, what in happened if _slot(NOW - ago) >= told["since"]]
    good = [what for what in seen if not isinstance(what, str)]
    whole, bins = told["whole"], told["bins"]
    assert whole["good"] == len(good) == sum(one["good"] for one in bins)
    assert whole["bad"] == len(seen) - len(good) == sum(one["bad"] for one in bins)
    assert int(whole["wei"]) == sum(money for _, money in good)
    assert int(whole["wei"]) == sum(int(one["wei"]) for one in bins)
    assert [one["at"] for one in bins] == sorted({one["at"] for one in bins})
    assert all(told["since"] <= one["at"] < told["until"] for one in bins)
    assert all((one["at"] - told["since"]) % told["bin_seconds"] == 0 for one in bins)
    for percent, name in ((50, "p50"), (99, "p99")):
        if good:
            exact = sorted(seconds for seconds, _ in good)[ceil(len(good) * percent / 100) - 1]
            assert whole[name] == pytest.approx(exact, rel=0.1)
        else:
            assert whole[name] is None


def _slot(moment: float) -> int:
    return int(moment) // SLOT * SLOT


def test_room_is_bounded_by_time_and_not_by_what_happens() -> None:
    history = History()
    for second in range(0, 3 * SLOT * SLOTS, SLOT):
        history.good(NOW + second, 1.0, 1)
    now = NOW + 3 * SLOT * SLOTS - SLOT
    assert history.told(now, 21_600)["whole"]["good"] == SLOTS
    assert all(len(bins) <= 61 for bins in history._closed.values())
    for number in range(1000):
        history.bad(now, f"reason {number}")
    reasons = history.told(now, 900)["whole"]["reasons"]
    assert len(reasons) == 25
    assert reasons["other"] == 1000 - 24


def test_a_clock_that_goes_back_loses_nothing() -> None:
    history = History()
    history.good(NOW, 1.0, 5)
    history.good(NOW - 3600, 1.0, 7)
    assert history.told(NOW, 900)["whole"]["wei"] == "12"


def test_what_is_old_is_not_shown() -> None:
    history = History()
    history.good(NOW - 4000, 1.0, int(Fraction(5)))
    assert history.told(NOW, 3600)["bins"] == []
    assert history.told(NOW, 21_600)["whole"]["good"] == 1
