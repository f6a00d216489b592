"""What an orchestrator did decides whether it is spared, and for how long."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from gateway.orchestrators.standing import (
    Delivery,
    Fault,
    Pausing,
    Standing,
    after_failure,
    after_sign_of_life,
    after_success,
    has_moved,
    newcomer,
)
from network.units import ModelId

PAUSING = Pausing(first=2.0, longest=60.0, longest_wrong=300.0)
MODELS = [ModelId("a"), ModelId("b")]


class Record(RuleBasedStateMachine):
    """An orchestrator that works and fails at random."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 100.0
        self.standing = Standing()
        self.has_just_failed = False
        self.measured: dict[tuple[ModelId, int], list[int]] = {}
        self.loads: dict[ModelId, list[int]] = {}

    @rule(seconds=st.floats(0.0, 100.0))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(
        model=st.sampled_from(MODELS),
        side=st.sampled_from([64, 512, 700, 1024]),
        images=st.integers(1, 4),
        steps=st.integers(1, 50),
        seconds=st.floats(0.0, 1e5),
        was_cold=st.booleans(),
    )
    def it_delivers(
        self, model: ModelId, side: int, images: int, steps: int, seconds: float, *, was_cold: bool
    ) -> None:
        job = Delivery(model, side * side * images, steps, seconds, images, was_cold)
        before = self.standing
        self.standing = after_success(before, job, believed=10**9)
        if was_cold:
            assert self.standing.paces == before.paces
            assert self.standing.loads[model] >= 0
            self.loads.setdefault(model, []).append(max(job.time - job.work * 10**9, 0))
        else:
            key = model, (side * side).bit_length()
            self.measured.setdefault(key, []).append(max(job.time // job.work, 1))
        self.has_just_failed = False
        assert not self.standing.is_suspended(self.now)
        if before.fault is Fault.WRONG:
            assert self.standing.failures in {0, before.failures // 2}
        else:
            assert self.standing.failures == 0
        assert (self.standing.fault is None) is (self.standing.failures == 0)

    @rule(fault=st.sampled_from(Fault))
    def it_fails(self, fault: Fault) -> None:
        before = self.standing
        self.standing = after_failure(before, fault, "why", PAUSING, self.now)
        self.has_just_failed = True
        assert self.standing.is_suspended(self.now)
        assert self.standing.paces == before.paces
        assert self.standing.suspended_until >= before.suspended_until
        if before.is_suspended(self.now) and not fault.is_heavier_than(before.fault):
            # Jobs that were under way together are one failure.
            assert self.standing.failures == before.failures
            assert self.standing.suspended_until == before.suspended_until
        else:
            assert self.standing.failures > before.failures
        # What is heavier is not forgotten for what is lighter.
        assert self.standing.fault is not None
        assert not fault.is_heavier_than(self.standing.fault)
        assert before.fault is None or not before.fault.is_heavier_than(self.standing.fault)

    @rule()
    def it_answers_a_question(self) -> None:
        before = self.standing
        self.standing = after_sign_of_life(before)
        if before.fault in {Fault.FAULTY, Fault.WRONG} or before.failures > 1:
            assert self.standing == before
        elif before.fault is Fault.UNREACHABLE:
            assert not self.standing.is_suspended(self.now)

    @invariant()
    def whoever_failed_last_is_tried_with_one_job(self) -> None:
        allowance = self.standing.allowance
        assert allowance is None or 1 <= allowance <= 16
        assert (allowance == 1) is self.has_just_failed

    @invariant()
    def pauses_are_bounded(self) -> None:
        assert self.standing.suspended_until <= self.now + PAUSING.longest_wrong
        if self.standing.fault is not Fault.WRONG:
            assert self.standing.suspended_until <= self.now + PAUSING.longest
        assert self.standing.failures >= 0

    @invariant()
    def a_pace_is_within_what_was_measured(self) -> None:
        for (model, size), paces in self.measured.items():
            pace = self.standing.pace(model, size)
            assert pace is not None
            # Each halving of what is remembered rounds down by less than one.
            assert min(paces) - len(paces) <= pace <= max(paces) + 1

    @invariant()
    def a_load_time_is_within_what_was_measured(self) -> None:
        for model, loads in self.loads.items():
            assert min(loads) - 1 <= self.standing.loads[model] <= max(loads)


TestRecord = Record.TestCase


def test_pauses_double_up_to_the_longest() -> None:
    standing, now, pauses = Standing(), 0.0, []
    for _ in range(8):
        standing = after_failure(standing, Fault.FAULTY, "why", PAUSING, now)
        pauses.append(standing.suspended_until - now)
        now = standing.suspended_until
    assert pauses == [2, 4, 8, 16, 32, 60, 60, 60]


def test_a_wrong_delivery_weighs_more_than_a_slow_one_and_is_forgotten_by_halves() -> None:
    slow = after_failure(Standing(), Fault.FAULTY, "late", PAUSING, 0.0)
    wrong = after_failure(Standing(), Fault.WRONG, "two images of one", PAUSING, 0.0)
    assert wrong.suspended_until == 4 * slow.suspended_until
    job = Delivery(MODELS[0], 100, 1, 1.0)
    assert after_success(slow, job, 0).failures == 0
    once_good = after_success(wrong, job, 0)
    assert (once_good.failures, once_good.fault) == (1, Fault.WRONG)
    twice_good = after_success(once_good, job, 0)
    assert (twice_good.failures, twice_good.fault, twice_good.reason) == (0, None, "")
    # Whoever is wrong every other time is paused longer and longer.
    pauses, standing = [], Standing()
    for _ in range(4):
        standing = after_failure(standing, Fault.WRONG, "again", PAUSING, 0.0)
        pauses.append(standing.suspended_until)
        standing = after_success(standing, job, 0)
    assert pauses == sorted(pauses)
    assert pauses[-1] > pauses[0]


def test_a_newcomer_earns_one_place_more_with_each_delivery_until_nothing_limits_it() -> None:
    standing, job = newcomer(), Delivery(MODELS[0], 100, 1, 1.0)
    allowed = []
    while standing.allowance is not None:
        allowed.append(standing.allowance)
        standing = after_success(standing, job, 0)
    assert allowed == list(range(1, 17))
    assert after_success(standing, job, 0).allowance is None


def test_of_faults_at_the_same_time_the_heaviest_counts() -> None:
    cut = after_failure(Standing(), Fault.FAULTY, "cut", PAUSING, 0.0)
    both = after_failure(cut, Fault.WRONG, "a GIF", PAUSING, 1.0)
    assert (both.failures, both.reason) == (Fault.WRONG.weight, "a GIF")
    assert after_failure(both, Fault.FAULTY, "cut", PAUSING, 2.0) == both


def test_a_thousand_failures_do_not_overflow() -> None:
    standing = Standing(failures=5000)
    standing = after_failure(standing, Fault.FAULTY, "why", PAUSING, 0.0)
    assert standing.suspended_until == PAUSING.longest


def paced(standing: Standing, seconds: float, side: int, steps: int, times: int = 1) -> Standing:
    for _ in range(times):
        job = Delivery(MODELS[0], side * side, steps, seconds)
        standing = after_success(standing, job, believed=0)
    return standing


def seconds_for(standing: Standing, side: int, steps: int) -> float:
    pace = standing.pace(MODELS[0], (side * side).bit_length())
    assert pace is not None
    return pace * side * side * steps / 1e15


@given(st.floats(0.001, 1e5), st.integers(8, 2048), st.integers(1, 1000))
def test_a_measured_pace_gives_the_seconds_back(seconds: float, side: int, steps: int) -> None:
    standing = paced(Standing(), seconds, side, steps)
    assert abs(seconds_for(standing, side, steps) - seconds) <= 1e-4


@pytest.mark.parametrize("side", [64, 512, 1024])
def test_a_new_speed_is_known_after_a_few_jobs_of_any_size(side: int) -> None:
    standing = paced(Standing(), 10.0, side, 20, times=10)
    standing = paced(standing, 1.0, side, 20, times=20)
    assert seconds_for(standing, side, 20) < 1.5


def test_small_jobs_do_not_make_an_orchestrator_look_slow_at_large_ones() -> None:
    standing = paced(Standing(), 2.0, 512, 20)
    standing = paced(standing, 0.3, 64, 5, times=5)
    assert seconds_for(standing, 512, 20) == pytest.approx(2.0, rel=1e-6)


def test_a_cold_models_job_tells_of_loading_and_not_of_the_pace() -> None:
    job = Delivery(MODELS[0], 1000, 10, 30.0, was_cold=True)
    standing = after_success(Standing(), job, believed=10**11)
    assert standing.loads[MODELS[0]] == 29 * 10**15
    assert standing.pace(MODELS[0], job.size) is None


def test_small_changes_wait_and_first_measurements_do_not() -> None:
    assert has_moved(None, 5)
    assert has_moved(100, 111)
    assert has_moved(100, 89)
    assert not has_moved(100, 110)
    assert not has_moved(5, 5)
