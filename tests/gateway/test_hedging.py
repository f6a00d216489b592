"""The rules by which a late job gets a second orchestrator."""

from hypothesis import given
from hypothesis import strategies as st

from gateway.dispatch.hedging import Fate, Hedging, Objection, due_in, fate_of, objection_to
from gateway.orchestrators.standing import Delivery, Standing, after_overdue, after_success
from network.units import ModelId, Wei


@given(fee=st.integers(0, 10**30), most=st.integers(0, 10**30), cancels_free=st.booleans())
def test_only_what_is_cheap_and_costs_nothing_once_cancelled_may_be_one_of_two(
    *, fee: int, most: int, cancels_free: bool
) -> None:
    found = objection_to(Hedging(Wei(most), 0.1), Wei(fee), cancels_free=cancels_free)
    assert (found is None) == (fee <= most and cancels_free)
    if fee > most:
        assert found is Objection.DEAR


@given(st.none() | st.floats(0, 1000), st.floats(-10, 1000))
def test_a_second_is_asked_after_jitter_and_before_the_deadline(
    late_after: float | None, left: float
) -> None:
    due = due_in(late_after, left)
    if isinstance(due, Objection):
        assert late_after is None or max(late_after, 0.1) >= left
    else:
        assert late_after is not None
        assert late_after <= due < left
        assert due >= 0.1


def test_every_end_of_two_attempts_has_a_name() -> None:
    fates = {
        (first, second, won): fate_of(
            first_delivered=first, second_delivered=second, second_won=won
        )
        for first in (False, True)
        for second in (False, True)
        for won in (False, True)
    }
    assert fates[True, False, False] is Fate.FIRST
    assert fates[False, True, True] is Fate.SECOND
    assert fates[True, True, True] is fates[True, True, False] is Fate.BOTH
    assert fates[False, False, False] is Fate.NEITHER


SECONDS = st.floats(0.001, 1000)


@given(SECONDS, SECONDS)
def test_a_job_that_was_cut_off_makes_its_orchestrator_slower_or_nothing(
    usual: float, seen: float
) -> None:
    model, size = ModelId("m"), Delivery(ModelId("m"), 512 * 512, 20, 1.0).size
    standing = after_success(Standing(), Delivery(model, 512 * 512, 20, usual), believed=0)
    before = standing.pace(model, size)
    assert before is not None
    after = after_overdue(standing, Delivery(model, 512 * 512, 20, seen), before)
    pace = after.pace(model, size)
    assert pace is not None
    assert pace >= before
    assert (pace > before) == (seen > usual and after is not standing)
    if seen > usual * 1.01:
        assert pace > before
    assert (after.failures, after.fault, after.allowance) == (0, None, None)


def test_what_a_cold_model_took_until_it_was_cut_off_tells_nothing() -> None:
    job = Delivery(ModelId("m"), 512 * 512, 20, 1000.0, was_cold=True)
    assert after_overdue(Standing(), job, 1) == Standing()
