"""What is out, and what went out in an hour."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from gateway.payments.exposure import Batch, Cap, Caps, Exposure
from network.units import Address, Wei

ONE, TWO = Address(b"\x01" * 20), Address(b"\x02" * 20)
BATCH = Batch("a", "key", ONE, Wei(10), Wei(1000), creation_round=7, made_at=1_000_000.0)
RICH = Wei(10**18)


def named(name: str, **fields: object) -> Batch:
    return replace(BATCH, attempt_id=name, **fields)  # type: ignore[arg-type]


def test_case_10_what_tickets_are_worth_is_counted_over_all_orchestrators() -> None:
    exposure = Exposure(Caps())
    assert exposure.count(BATCH, Wei(25), 6) is None
    assert exposure.count(named("b", recipient=TWO), Wei(25), 6) is None
    reached = exposure.count(named("c"), Wei(25), 6)
    assert reached is not None
    assert (reached.cap, reached.limit) == (Cap.DEPOSIT, 25)
    # Round 6 is the oldest that is valid: those of round 7 go two rounds later.
    assert reached.frees_in_rounds == 2
    assert exposure.outstanding(6).value == 20
    assert exposure.outstanding(6).face_value == 2000
    assert exposure.count(named("c"), Wei(25), 8) is None


def test_what_all_tickets_together_could_cost_may_be_capped() -> None:
    exposure = Exposure(Caps(face_value=Wei(1500)))
    assert exposure.count(BATCH, RICH, 6) is None
    reached = exposure.count(named("b"), RICH, 6)
    assert reached is not None
    assert (reached.cap, reached.limit) == (Cap.FACE_VALUE, 1500)


def test_caps_of_an_hour_tell_when_they_free() -> None:
    exposure = Exposure(Caps(per_hour_and_key=Wei(25)))
    assert exposure.count(BATCH, RICH, 0) is None
    assert exposure.count(named("b", made_at=BATCH.made_at + 600), RICH, 0) is None
    late = named("c", made_at=BATCH.made_at + 1200)
    reached = exposure.count(late, RICH, 0)
    assert reached is not None
    assert reached.cap is Cap.KEY_HOUR
    assert reached.frees_at == BATCH.made_at + 3600
    assert exposure.count(replace(late, key_id="other"), RICH, 0) is None
    assert exposure.count(named("d", made_at=reached.frees_at), RICH, 0) is None
    whole = exposure.count(named("e", value=Wei(26)), RICH, 0)
    assert whole is not None
    assert whole.frees_at is None


def test_what_was_not_sent_is_taken_back_once() -> None:
    exposure = Exposure(Caps(per_hour=Wei(10)))
    assert exposure.count(BATCH, RICH, 0) is None
    exposure.undo("a")
    exposure.undo("a")
    assert exposure.outstanding(0).value == exposure.paid_in_the_last_hour(BATCH.made_at) == 0
    assert exposure.count(BATCH, RICH, 0) is None
    exposure.keep("a")
    exposure.undo("a")
    assert exposure.outstanding(0).value == exposure.paid_in_the_last_hour(BATCH.made_at) == 10


@given(
    steps=st.lists(
        st.tuples(
            st.integers(1, 30),
            st.sampled_from(["x", "y"]),
            st.sampled_from([ONE, TWO]),
            st.integers(0, 2000),
            st.sampled_from(["keep", "undo", "forget"]),
        ),
        max_size=30,
    )
)
def test_no_cap_is_ever_exceeded(
    steps: list[tuple[int, str, Address, int, str]],
) -> None:
    caps = Caps(Wei(60), Wei(40), Wei(50))
    exposure, now = Exposure(caps), 0.0
    sent: list[tuple[float, str, Address, int]] = []
    for number, (value, key, recipient, seconds, then) in enumerate(steps):
        now += seconds
        batch = Batch(str(number), key, recipient, Wei(value), Wei(value), 1, now)
        if exposure.count(batch, RICH, 0) is None:
            if then == "undo":
                exposure.undo(str(number))
            else:
                exposure.keep(str(number))
                sent.append((now, key, recipient, value))
        if then == "forget":
            exposure.forget(0, now)
        # Time is counted in tens of seconds, so that the hour may be longer by one of them.
        hour = [one for one in sent if now - one[0] < 3600 - 10]
        assert sum(one[3] for one in hour) <= 60
        for subject in ("x", "y"):
            assert sum(one[3] for one in hour if one[1] == subject) <= 40
        for account in (ONE, TWO):
            assert sum(one[3] for one in hour if one[2] == account) <= 50
        assert exposure.outstanding(0).value == sum(one[3] for one in sent)
