"""What running out of memory teaches: rungs, sizes, forgetting."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.engine.ladder import Ladder, Rung, Stage

_ALL = (Rung.TILED, Rung.OFFLOADED)
_FORGET = 60.0
_failures = st.lists(
    st.tuples(st.sampled_from(Stage), st.integers(1, 1000), st.floats(0, 10)), max_size=12
)


def _fallen(failures: Sequence[tuple[Stage, int, float]]) -> tuple[Ladder, float]:
    ladder, now = Ladder(_ALL, _FORGET), 0.0
    for stage, pixels, pause in failures:
        now += pause
        rung = ladder.rung(pixels, now)
        if rung is not Rung.REFUSED:
            ladder.climb(stage, pixels, rung, now)
    return ladder, now


@given(_failures, st.integers(1, 1000), st.integers(0, 1000))
def test_a_larger_image_never_starts_on_a_lower_rung(
    failures: Sequence[tuple[Stage, int, float]], pixels: int, more: int
) -> None:
    ladder, now = _fallen(failures)
    assert ladder.rung(pixels + more, now) >= ladder.rung(pixels, now)


@given(_failures, st.sampled_from(Stage), st.integers(1, 1000))
def test_climbing_ends_soon_and_the_size_starts_where_it_ended(
    failures: Sequence[tuple[Stage, int, float]], stage: Stage, pixels: int
) -> None:
    ladder, now = _fallen(failures)
    rung = ladder.rung(pixels, now)
    for _ in range(3):
        if rung is Rung.REFUSED:
            break
        higher = ladder.climb(stage, pixels, rung, now)
        assert higher > rung
        rung = higher
        assert ladder.rung(pixels, now) >= rung
    assert rung is Rung.REFUSED
    refused = ladder.refused_pixels(now)
    assert refused is not None
    assert refused <= pixels
    assert ladder.rung(refused, now) is Rung.REFUSED
    assert refused == 1 or ladder.rung(refused - 1, now) is not Rung.REFUSED


@given(_failures)
def test_everything_is_forgotten(failures: Sequence[tuple[Stage, int, float]]) -> None:
    ladder, now = _fallen(failures)
    later = now + 2 * _FORGET
    assert ladder.rung(10**9, later) is Rung.PLAIN
    assert ladder.refused_pixels(later) is None
    assert ladder.highest(later) is Rung.PLAIN


def test_tiles_are_skipped_where_they_do_not_help() -> None:
    assert Ladder(_ALL, _FORGET).climb(Stage.DECODE, 9, Rung.PLAIN, 0.0) is Rung.TILED
    assert Ladder(_ALL, _FORGET).climb(Stage.STEP, 9, Rung.PLAIN, 0.0) is Rung.OFFLOADED
    assert Ladder((Rung.TILED,), _FORGET).climb(Stage.STEP, 9, Rung.PLAIN, 0.0) is Rung.REFUSED


@pytest.mark.parametrize(
    ("stage", "pixels", "offered"),
    [(Stage.STEP, 100, True), (Stage.STEP, 99, False), (Stage.DECODE, 100, False)],
)
def test_what_fits_after_all_is_offered_again(stage: Stage, pixels: int, *, offered: bool) -> None:
    ladder = Ladder((), _FORGET)
    assert ladder.climb(Stage.STEP, 100, Rung.PLAIN, 0.0) is Rung.REFUSED
    assert ladder.fitted(stage, pixels) is offered
    assert (ladder.refused_pixels(0.0) is None) is offered
