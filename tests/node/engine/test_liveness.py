"""Telling a hung worker from a busy one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.engine.liveness import (
    Patience,
    Pulse,
    Signs,
    effort_limit,
    hang_reason,
    is_still,
    restart_delay,
)
from node.engine.options import EngineOptions
from node.engine.protocol import Activity, ActivityKind

_PATIENCE = Patience(hang_after=5.0, still_after=8.0)
_KINDS: tuple[ActivityKind, ...] = ("work", "read", "wait")

seconds = st.floats(0, 1e4)


def _doing(**about: object) -> Signs:
    """Signs of a worker that was heard of just now, at one thing."""
    fields = {"name": "denoising", "age": 1.0, "allowed": 100.0} | about
    return Signs(100.0, (Activity(**fields),), 100.0)  # type: ignore[arg-type]


def test_a_silent_worker_that_does_not_stir_hangs_after_the_limit_and_not_before() -> None:
    signs = Signs(heard_at=100.0, activities=(), stirred_at=100.0)
    assert hang_reason(signs, 104.9, _PATIENCE) is None
    assert hang_reason(signs, 105.1, _PATIENCE) == "no sign of life for 5.1 s"


def test_a_silent_worker_that_runs_is_given_more_time() -> None:
    assert hang_reason(Signs(100.0, (), 114.0), 114.5, _PATIENCE) is None
    assert hang_reason(Signs(100.0, (), 115.0), 115.5, _PATIENCE) is not None
    # It stopped running, five seconds ago.
    assert hang_reason(Signs(100.0, (), 104.0), 109.5, _PATIENCE) is not None


def test_a_beating_worker_at_one_thing_for_too_long_hangs() -> None:
    assert hang_reason(_doing(age=11.9, allowed=7.0), 100.5, _PATIENCE) is None
    reason = hang_reason(_doing(age=12.1, allowed=7.0), 100.5, _PATIENCE)
    assert reason == "denoising for 12.1 s, 7.0 s allowed"


def test_a_thread_at_work_that_stands_still_hangs_long_before_its_time_is_over() -> None:
    assert hang_reason(_doing(still=7.9), 100.5, _PATIENCE) is None
    reason = hang_reason(_doing(still=8.1), 100.5, _PATIENCE)
    assert reason == "denoising, and its thread stands still for 8.1 s"


def test_a_thread_may_wait_for_those_that_work_for_it_as_long_as_its_work_can_take() -> None:
    def hangs(still: float, limit: float | None) -> bool:
        signs = _doing(still=still, helped=still, limit=limit)
        return hang_reason(signs, 100.5, _PATIENCE) is not None

    assert not hangs(39.0, limit=40.0)
    assert hangs(41.0, limit=40.0)
    # Helpers of small work are another thread's.
    assert not hangs(15.9, limit=0.5)
    assert hangs(16.1, limit=0.5)
    assert not hangs(79.0, limit=None)
    assert hangs(81.0, limit=None)
    assert hang_reason(_doing(still=20.0, helped=11.0, limit=40.0), 100.5, _PATIENCE) is not None


def test_reading_may_stand_still_for_longer_and_waiting_for_another_thread_for_ever() -> None:
    assert hang_reason(_doing(kind="read", still=29.0), 100.5, _PATIENCE) is None
    assert hang_reason(_doing(kind="read", still=31.0), 100.5, _PATIENCE) is not None
    assert hang_reason(_doing(kind="wait", still=99.0), 100.5, _PATIENCE) is None


def test_work_that_takes_far_more_than_it_ever_took_hangs_before_its_time_is_over() -> None:
    assert hang_reason(_doing(effort=6.9, limit=2.0), 100.5, _PATIENCE) is None
    reason = hang_reason(_doing(effort=7.1, limit=2.0), 100.5, _PATIENCE)
    assert reason is not None
    assert reason.startswith("denoising took 7.1 s of work")
    assert hang_reason(_doing(effort=99.0, limit=None), 100.5, _PATIENCE) is None


def test_one_thread_that_hangs_among_others_that_work_is_enough() -> None:
    well = Activity("denoising", age=0.1, allowed=100.0)
    hung = Activity("decoding", age=20.0, allowed=100.0, still=19.0)
    assert hang_reason(Signs(100.0, (well,), 100.0), 100.1, _PATIENCE) is None
    assert hang_reason(Signs(100.0, (well, hung), 100.0), 100.1, _PATIENCE) is not None


def test_silence_is_forgiven_while_libraries_or_weights_are_read() -> None:
    activities = (Activity("loading", age=1.0, allowed=600.0, kind="read"),)
    assert hang_reason(Signs(100.0, activities, 129.0), 130.0, _PATIENCE) is None
    assert hang_reason(Signs(100.0, activities, 160.0), 161.0, _PATIENCE) is not None
    # Whoever reads runs or waits for the disk; a stopped process does neither.
    assert hang_reason(Signs(100.0, activities, 100.0), 106.0, _PATIENCE) is not None


activities = st.builds(
    Activity,
    name=st.just("denoising"),
    age=seconds,
    allowed=seconds,
    kind=st.sampled_from(_KINDS),
    still=seconds,
    helped=seconds,
    effort=seconds,
    limit=st.none() | seconds,
)


@given(activities)
def test_a_thread_that_shows_signs_of_life_within_its_time_and_effort_is_never_disturbed(
    activity: Activity,
) -> None:
    healthy = (
        activity.still <= _PATIENCE.still_after
        and activity.age <= activity.allowed
        and (activity.limit is None or activity.effort <= activity.limit)
    )
    if healthy:
        assert hang_reason(Signs(100.0, (activity,), 100.0), 100.0, _PATIENCE) is None


@given(activities, seconds)
def test_a_hang_that_lasts_longer_stays_one(activity: Activity, more: float) -> None:
    later = Activity(
        activity.name,
        activity.age + more,
        activity.allowed,
        activity.kind,
        activity.still + more,
        activity.helped,
        activity.effort + more,
        activity.limit,
    )
    if hang_reason(Signs(100.0, (activity,), 100.0), 100.0, _PATIENCE) is not None:
        assert hang_reason(Signs(100.0, (later,), 100.0), 100.0, _PATIENCE) is not None


@given(usual=seconds, done_here=st.booleans(), on_gpu=st.booleans())
def test_work_that_takes_what_is_usual_is_within_its_limit(
    *, usual: float, done_here: bool, on_gpu: bool
) -> None:
    limit = effort_limit(usual, done_here=done_here, on_gpu=on_gpu)
    assert limit is None or limit >= usual
    assert effort_limit(None, done_here=done_here, on_gpu=on_gpu) is None


def test_the_first_work_of_a_process_may_take_more_and_on_a_gpu_compile() -> None:
    later = effort_limit(0.5, done_here=True, on_gpu=False)
    first = effort_limit(0.5, done_here=False, on_gpu=False)
    assert later is not None
    assert first is not None
    assert first > 2 * later
    assert effort_limit(0.5, done_here=False, on_gpu=True) is None


@pytest.mark.parametrize("on_gpu", [False, True])
def test_by_default_a_hung_worker_is_found_within_ten_seconds_of_when_its_work_was_due(
    *,
    on_gpu: bool,
) -> None:
    options = EngineOptions()
    late = 1.0 + 0.5  # until a beat tells of it, and until somebody looks
    # Silent, beating from a thread beside one that stands still, and silent but running.
    assert options.hang_after + late < 5.0
    assert options.still_after + 1.0 + late < 10.0
    beside_others = Activity("decoding", 8.0, 120.0, still=6.1, helped=6.1, limit=0.5)
    patience = Patience(options.hang_after, options.still_after)
    assert hang_reason(Signs(8.0, (beside_others,), 8.0), 8.0, patience) is not None
    assert beside_others.still + 1.0 + late < 10.0
    assert 3 * options.hang_after + 0.5 < 10.0
    # In circles: of work that takes up to two seconds on a CPU, a third of one on a GPU.
    usual = 0.3 if on_gpu else 1.8
    limit = effort_limit(usual, done_here=True, on_gpu=on_gpu)
    assert limit is not None
    assert limit + options.hang_after + late - usual < 10.0


@given(used=seconds, faults=st.integers(0, 9), stirring=st.booleans())
def test_a_thread_is_still_only_if_nothing_at_all_has_changed(
    *, used: float, faults: int, stirring: bool
) -> None:
    before = Pulse(used, faults, stirring)
    assert is_still(before, Pulse(used, faults, stirring=False))
    assert not is_still(before, Pulse(used, faults, stirring=True))
    assert not is_still(before, Pulse(used + 0.01, faults, stirring=False))
    assert not is_still(before, Pulse(used, faults + 1, stirring=False))
    assert not is_still(None, before)
    assert not is_still(before, None)


@given(st.integers(0, 10_000))
def test_restarts_slow_down_and_never_stop(crashes: int) -> None:
    delay = restart_delay(crashes, base=0.2, cap=30.0)
    assert 0.0 <= delay <= restart_delay(crashes + 1, base=0.2, cap=30.0) <= 30.0
    assert (delay == 0.0) == (crashes <= 1)
