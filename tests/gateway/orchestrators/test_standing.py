"""What an orchestrator did decides whether it is spared, and for how long."""

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from gateway.orchestrators.standing import (
    Fault,
    Pace,
    Pausing,
    Standing,
    after_failure,
    after_sign_of_life,
    after_success,
    measured_pace,
)
from network.units import ModelId

PAUSING = Pausing(first=2.0, longest=60.0)
MODELS = [ModelId("a"), ModelId("b")]


class Record(RuleBasedStateMachine):
    """An orchestrator that works and fails at random."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 100.0
        self.standing = Standing()
        self.measured: dict[ModelId, list[int]] = {}

    @rule(seconds=st.floats(0.0, 100.0))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(
        model=st.sampled_from(MODELS),
        pace=st.none() | st.builds(Pace, st.integers(1, 10**18), st.integers(1, 10**9)),
    )
    def it_delivers(self, model: ModelId, pace: Pace | None) -> None:
        self.standing = after_success(self.standing, model, pace)
        if pace is not None:
            self.measured.setdefault(model, []).append(pace.per_pixel_step)
        assert self.standing.failures == 0
        assert not self.standing.is_suspended(self.now)

    @rule(fault=st.sampled_from(Fault))
    def it_fails(self, fault: Fault) -> None:
        before = self.standing
        self.standing = after_failure(before, fault, "why", PAUSING, self.now)
        assert self.standing.is_suspended(self.now)
        assert self.standing.paces == before.paces
        if before.is_suspended(self.now):
            # Jobs that were under way together are one failure.
            assert self.standing.failures == before.failures
            assert self.standing.suspended_until == before.suspended_until
        else:
            assert self.standing.failures == before.failures + 1

    @rule()
    def it_answers_a_question(self) -> None:
        before = self.standing
        self.standing = after_sign_of_life(before)
        if before.fault is Fault.FAULTY or before.failures > 1:
            assert self.standing == before
        elif before.fault is Fault.UNREACHABLE:
            assert not self.standing.is_suspended(self.now)

    @invariant()
    def pauses_are_bounded(self) -> None:
        assert self.standing.suspended_until <= self.now + PAUSING.longest
        assert self.standing.failures >= 0

    @invariant()
    def a_pace_is_within_what_was_measured(self) -> None:
        for model, paces in self.measured.items():
            pace = self.standing.pace(model)
            assert pace is not None
            # Each halving of what is remembered rounds down by less than one.
            assert min(paces) - len(paces) <= pace <= max(paces) + 1


TestRecord = Record.TestCase


def test_pauses_double_up_to_the_longest() -> None:
    standing, now, pauses = Standing(), 0.0, []
    for _ in range(8):
        standing = after_failure(standing, Fault.FAULTY, "why", PAUSING, now)
        pauses.append(standing.suspended_until - now)
        now = standing.suspended_until
    assert pauses == [2, 4, 8, 16, 32, 60, 60, 60]


def test_a_thousand_failures_do_not_overflow() -> None:
    standing = Standing(failures=5000)
    standing = after_failure(standing, Fault.FAULTY, "why", PAUSING, 0.0)
    assert standing.suspended_until == PAUSING.longest


@given(st.floats(0, 1e6), st.integers(1, 10**8), st.integers(1, 1000))
def test_a_measured_pace_gives_the_seconds_back(seconds: float, pixels: int, steps: int) -> None:
    pace = measured_pace(seconds, pixels, steps).per_pixel_step
    assert pace >= 1
    assert pace * pixels * steps <= max(round(seconds * 1e15), pixels * steps)


def test_a_new_speed_is_known_after_a_few_jobs() -> None:
    standing = Standing()
    for _ in range(10):
        standing = after_success(standing, MODELS[0], measured_pace(10.0, 512 * 512, 20))
    for _ in range(12):
        standing = after_success(standing, MODELS[0], measured_pace(1.0, 512 * 512, 20))
    pace = standing.pace(MODELS[0])
    assert pace is not None
    assert pace * 512 * 512 * 20 < 2 * 10**15


def test_small_jobs_do_not_make_an_orchestrator_look_slow() -> None:
    standing = after_success(Standing(), MODELS[0], measured_pace(2.0, 512 * 512, 20))
    for _ in range(5):
        standing = after_success(standing, MODELS[0], measured_pace(0.3, 64 * 64, 5))
    pace = standing.pace(MODELS[0])
    assert pace is not None
    assert pace * 512 * 512 * 20 < 4 * 10**15
