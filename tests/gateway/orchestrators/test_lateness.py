"""When a job is late: a quantile in which jobs that were cut off count for as long as they were seen."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.orchestrators.lateness import Lateness, Took, kind_of, quantile
from gateway.orchestrators.selection import Candidate, Need, Prospect
from network.units import ModelId, Pixels, Wei

RATIOS = st.floats(0.01, 1000)
SHARES = st.sampled_from([0.5, 0.75, 0.9, 0.95, 0.99])
KIND = ("m", 10, True)


@given(st.lists(RATIOS, min_size=1, max_size=60), SHARES)
def test_without_any_cut_off_it_is_the_usual_quantile(ratios: list[float], share: float) -> None:
    ordered = sorted(ratios)
    found = quantile([Took(ratio) for ratio in ordered], share)
    assert found == ordered[math.ceil(share * len(ordered) - 1e-6) - 1]


@given(st.lists(st.builds(Took, RATIOS, st.booleans()), min_size=1, max_size=60), SHARES)
def test_what_was_cut_off_never_makes_jobs_look_shorter(jobs: list[Took], share: float) -> None:
    found = quantile(sorted(jobs), share)
    assert found <= max(jobs).ratio
    done = sorted(job for job in jobs if not job.was_cut_off)
    if done:
        # As if it had never been, or as if it had been done when it was cut off.
        assert found >= quantile(done, share)
    assert found >= quantile(sorted(Took(job.ratio) for job in jobs), share)


@given(st.lists(st.builds(Took, RATIOS, st.booleans()), min_size=1, max_size=60))
def test_a_larger_share_is_never_sooner(jobs: list[Took]) -> None:
    ordered = sorted(jobs)
    found = [quantile(ordered, share) for share in (0.5, 0.75, 0.9, 0.95, 0.99)]
    assert found == sorted(found)


def test_cutting_the_late_ones_off_does_not_make_ever_more_of_them_late() -> None:
    """Each late job is cut off soon after it is late; the quantile stays where it is."""
    randomness, lateness = random.Random(4), Lateness(0.9)  # noqa: S311
    drawn = [randomness.lognormvariate(0, 0.5) for _ in range(4000)]
    truth = sorted(drawn)[3600]
    dues = []
    for ratio in drawn:
        due = lateness.late_after(KIND, 1.0)
        end = ratio if due is None else min(ratio, due * 1.1)
        lateness.learn(KIND, end, 1.0, was_cut_off=end < ratio)
        dues.append(due)
    late = [due for due in dues[2000:] if due is not None]
    assert sum(late) / len(late) == pytest.approx(truth, rel=0.15)


def test_nothing_is_late_until_enough_was_seen_and_old_jobs_are_forgotten() -> None:
    lateness = Lateness(0.9)
    for _ in range(9):
        lateness.learn(KIND, 4.0, 2.0, was_cut_off=False)
    assert lateness.late_after(KIND, 3.0) is None
    lateness.learn(KIND, 4.0, 2.0, was_cut_off=False)
    assert lateness.late_after(KIND, 3.0) == 6.0
    assert lateness.late_after(("m", 11, True), 3.0) is None
    for _ in range(300):
        lateness.learn(KIND, 1.0, 2.0, was_cut_off=False)
    assert lateness.late_after(KIND, 3.0) == 1.5


def test_no_more_kinds_are_remembered_than_there_is_room_for() -> None:
    lateness = Lateness(0.5)
    for number in range(1000):
        for _ in range(2):
            lateness.learn((f"m{number}", 1, True), 1.0, 1.0, was_cut_off=False)
        # One that is used goes on being known.
        lateness.learn(KIND, 1.0, 1.0, was_cut_off=False)
    assert lateness.late_after(KIND, 1.0) == 1.0
    assert lateness.late_after(("m999", 1, True), 1.0) == 1.0
    assert lateness.late_after(("m3", 1, True), 1.0) is None


def test_expectations_that_rest_on_nothing_are_a_kind_of_their_own() -> None:
    need = Need(ModelId("m"), Pixels(64 * 64), 5, None)
    warm = Prospect("u", 1, 1, free=1, pace=1, overhead=0, fresh_until=9.0)
    cold = Prospect("u", 1, 1, free=1, pace=1, overhead=0, fresh_until=9.0, is_cold=True)
    known = kind_of(need, Candidate(0, "u", Wei(1), 1, warm), is_measured=True)
    assert known == ("m", need.size, True)
    assert kind_of(need, Candidate(0, "u", Wei(1), 1, warm), is_measured=False)[2] is False
    assert kind_of(need, Candidate(0, "u", Wei(1), 1, cold), is_measured=True)[2] is False
