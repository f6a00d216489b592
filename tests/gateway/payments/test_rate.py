"""So much a minute, whatever the pattern of asking."""

from hypothesis import given
from hypothesis import strategies as st

from gateway.payments.rate import Bucket


@given(
    per_minute=st.integers(1, 1000),
    steps=st.lists(st.tuples(st.floats(0, 30), st.integers(1, 200)), max_size=60),
)
def test_no_window_has_more_than_a_full_bucket_and_what_flowed_in(
    per_minute: int, steps: list[tuple[float, int]]
) -> None:
    bucket = Bucket(per_minute, 0.0)
    now, taken = 0.0, 0
    for pause, amount in steps:
        now += pause
        if bucket.wait(amount, now) == 0:
            bucket.take(amount, now)
            left = bucket.left(now)
            taken += amount
            assert 0 <= left.remaining <= per_minute
            assert 0 <= left.reset <= 60
        assert taken <= per_minute + now * per_minute / 60 + 1e-6


@given(per_minute=st.integers(1, 1000), amount=st.integers(1, 1000))
def test_after_the_wait_it_can_be_taken(per_minute: int, amount: int) -> None:
    bucket = Bucket(per_minute, 0.0)
    bucket.take(per_minute, 0.0)
    wait = bucket.wait(amount, 0.0)
    assert wait > 0
    if amount <= per_minute:
        assert bucket.wait(amount, wait * 0.9) > 0
        assert bucket.wait(amount, wait + 1e-6) == 0


def test_a_clock_that_stands_still_gives_nothing() -> None:
    bucket = Bucket(60, 100.0)
    bucket.take(60, 100.0)
    assert bucket.left(100.0).remaining == 0
    assert bucket.left(101.0).remaining == 1
    assert bucket.left(1e6).headers()["RateLimit-Remaining"] == "60"
