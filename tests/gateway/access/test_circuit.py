"""When a service that does not answer is asked again."""

from hypothesis import given
from hypothesis import strategies as st

from gateway.access.circuit import Circuit


def fail(circuit: Circuit, now: float, times: int) -> None:
    for _ in range(times):
        assert circuit.enter(now)
        circuit.failed(now)


def test_after_five_failures_one_at_a_time_tries_with_growing_pauses() -> None:
    circuit = Circuit()
    fail(circuit, 0.0, 5)
    assert circuit.is_open
    assert circuit.wait(0.0) == 1
    assert not circuit.enter(0.9)
    assert circuit.enter(1.0)
    assert not circuit.enter(1.0), "one probe is enough"
    circuit.failed(1.5)
    assert circuit.wait(1.5) == 2
    assert not circuit.enter(3.4)
    assert circuit.enter(3.5)
    circuit.succeeded()
    assert circuit.wait(3.5) == 0
    assert circuit.enter(3.5)
    assert circuit.enter(3.5)


def test_a_probe_that_is_cut_off_leaves_its_place_to_the_next() -> None:
    circuit = Circuit()
    fail(circuit, 0.0, 5)
    assert circuit.enter(2.0)
    circuit.left()
    assert circuit.enter(2.0)


def test_a_success_in_between_counts_from_the_start() -> None:
    circuit = Circuit()
    for _ in range(10):
        fail(circuit, 0.0, 4)
        circuit.succeeded()
    assert not circuit.is_open


@given(st.lists(st.tuples(st.floats(0, 100), st.booleans()), max_size=100))
def test_it_is_asked_again_within_half_a_minute_of_any_failure(
    steps: list[tuple[float, bool]],
) -> None:
    circuit = Circuit()
    now = 0.0
    for pause, is_good in steps:
        now += pause
        assert circuit.wait(now) <= 30
        if circuit.enter(now):
            if is_good:
                circuit.succeeded()
            else:
                circuit.failed(now)
    assert circuit.enter(now + 30)
