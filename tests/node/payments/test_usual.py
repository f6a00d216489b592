from hypothesis import given
from hypothesis import strategies as st

from network.units import ModelId, Pixels
from node.payments.usual import MEGAPIXEL, UsualJobs

A, B = ModelId("a"), ModelId("b")


def test_it_begins_with_what_a_model_was_trained_for() -> None:
    usual = UsualJobs({A: Pixels(512 * 512)})
    assert usual.pixels([A]) == 512 * 512
    assert usual.pixels([B]) == usual.pixels([]) == MEGAPIXEL
    assert usual.pixels([A, B]) == MEGAPIXEL


@given(first=st.integers(1, 2**24), jobs=st.lists(st.integers(1, 2**24), max_size=200))
def test_it_stays_between_what_was_seen(first: int, jobs: list[int]) -> None:
    usual = UsualJobs({A: Pixels(first)})
    for pixels in jobs:
        usual.saw(A, Pixels(pixels))
    assert min([first, *jobs]) <= usual.pixels([A]) <= max([first, *jobs])


@given(first=st.integers(1, 2**24), later=st.integers(1, 2**24))
def test_it_comes_to_what_is_asked_for_again_and_again(first: int, later: int) -> None:
    usual = UsualJobs({A: Pixels(first)})
    for _ in range(500):
        usual.saw(A, Pixels(later))
    assert abs(usual.pixels([A]) - later) < 16
