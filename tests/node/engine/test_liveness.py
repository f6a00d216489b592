"""Telling a hung worker from a busy one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.engine.liveness import Signs, hang_reason, restart_delay, step_allowance
from node.engine.options import EngineOptions
from node.engine.protocol import Activity

_HANG_AFTER = 5.0


def test_a_silent_worker_that_does_not_stir_hangs_after_the_limit_and_not_before() -> None:
    signs = Signs(heard_at=100.0, activities=(), stirred_at=100.0)
    assert hang_reason(signs, 104.9, _HANG_AFTER) is None
    assert hang_reason(signs, 105.1, _HANG_AFTER) == "no sign of life for 5.1 s"


def test_a_silent_worker_that_runs_is_given_more_time() -> None:
    assert hang_reason(Signs(100.0, (), 114.0), 114.5, _HANG_AFTER) is None
    assert hang_reason(Signs(100.0, (), 115.0), 115.5, _HANG_AFTER) is not None
    # It stopped running, five seconds ago.
    assert hang_reason(Signs(100.0, (), 104.0), 109.5, _HANG_AFTER) is not None


def test_a_beating_worker_whose_step_takes_too_long_hangs() -> None:
    within = Signs(100.0, (Activity("denoising", age=11.9, allowed=7.0),), 100.0)
    beyond = Signs(100.0, (Activity("denoising", age=12.1, allowed=7.0),), 100.0)
    assert hang_reason(within, 100.5, _HANG_AFTER) is None
    assert hang_reason(beyond, 100.5, _HANG_AFTER) == "denoising for 12.1 s, 7.0 s allowed"


@pytest.mark.parametrize("name", ["starting", "loading"])
def test_silence_is_forgiven_while_libraries_or_weights_are_read(name: str) -> None:
    activities = (Activity(name, age=1.0, allowed=600.0),)
    assert hang_reason(Signs(100.0, activities, 129.0), 130.0, _HANG_AFTER) is None
    assert hang_reason(Signs(100.0, activities, 160.0), 161.0, _HANG_AFTER) is not None
    # Whoever reads runs or waits for the disk; a stopped process does neither.
    assert hang_reason(Signs(100.0, activities, 100.0), 106.0, _HANG_AFTER) is not None


def test_by_default_a_hung_worker_is_found_in_time_to_be_replaced_within_ten_seconds() -> None:
    options = EngineOptions()
    late = 1.0 + 0.5  # until a beat tells of it, and until somebody looks
    found = options.hang_after + late
    assert found < 5.0
    stuck_step = step_allowance(0.5, options.longest_step) + options.hang_after + late
    assert stuck_step < 10.0


@given(st.floats(0, 1e4), st.floats(1, 1e3))
def test_a_step_is_never_allowed_more_than_the_longest_nor_less_than_it_needs(
    expected: float, longest: float
) -> None:
    allowed = step_allowance(expected, longest)
    assert allowed <= longest
    assert allowed >= min(expected, longest)
    assert step_allowance(None, longest) == longest


@given(st.integers(0, 10_000))
def test_restarts_slow_down_and_never_stop(crashes: int) -> None:
    delay = restart_delay(crashes, base=0.2, cap=30.0)
    assert 0.0 <= delay <= restart_delay(crashes + 1, base=0.2, cap=30.0) <= 30.0
    assert (delay == 0.0) == (crashes <= 1)
