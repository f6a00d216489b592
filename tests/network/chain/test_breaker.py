"""An endpoint that keeps failing is left alone for longer and longer, one question at a time."""

from hypothesis import given
from hypothesis import strategies as st

from network.chain.breaker import Breaker


def opened(at: float = 0.0) -> Breaker:
    breaker = Breaker()
    for _ in range(5):
        assert breaker.admits(at)
        breaker.failed(at)
    assert breaker.is_open
    return breaker


def test_single_failures_do_not_matter() -> None:
    breaker = Breaker()
    for _ in range(20):
        breaker.failed(0)
        breaker.succeeded()
    assert breaker.admits(0)


def test_one_question_tells_whether_it_is_back() -> None:
    breaker = opened()
    assert not breaker.admits(1.9)
    assert breaker.admits(2.0)
    assert not breaker.admits(2.0)
    breaker.succeeded()
    assert breaker.admits(2.0)
    assert breaker.admits(2.0)


def test_a_cancelled_question_tells_nothing_and_another_may_ask() -> None:
    breaker = opened()
    assert breaker.admits(2.0)
    breaker.abandoned()
    assert breaker.admits(2.0)


@given(probes=st.integers(1, 30))
def test_pauses_double_up_to_half_a_minute(probes: int) -> None:
    breaker, now, pause = opened(), 0.0, 2.0
    for _ in range(probes):
        assert not breaker.admits(now + pause - 0.001)
        now += pause
        assert breaker.admits(now)
        breaker.failed(now)
        pause = min(30.0, pause * 2)
    assert not breaker.admits(now + pause - 0.001)
    assert breaker.admits(now + pause)


def test_late_failures_of_questions_before_it_opened_change_nothing() -> None:
    breaker = opened()
    breaker.failed(1.0)
    assert breaker.admits(2.0)
