"""The heads of stored images."""

from hypothesis import given
from hypothesis import strategies as st

from gateway.storage.names import MEDIA, ImageName
from gateway.storage.records import LONGEST_HEAD, Head, head_of, parse_head

parts = st.text("abcXYZ019_-", min_size=1, max_size=64)
names = st.builds(ImageName, parts, parts, st.sampled_from(sorted(MEDIA)))
times = st.floats(0, 2**40)
sizes = st.integers(0, 2**40)


@given(names, times, sizes, st.binary(max_size=40), st.binary(max_size=40))
def test_a_head_is_read_as_it_was_written(
    name: ImageName, stored_at: float, size: int, before: bytes, after: bytes
) -> None:
    head = head_of(name, stored_at, size)
    assert len(head) <= LONGEST_HEAD
    assert parse_head(before + head + after, len(before)) == Head(name, stored_at, size, len(head))


@given(names, times, sizes, st.data())
def test_a_head_with_a_wrong_bit_or_without_its_end_is_none(
    name: ImageName, stored_at: float, size: int, data: st.DataObject
) -> None:
    head = bytearray(head_of(name, stored_at, size))
    assert parse_head(bytes(head[: data.draw(st.integers(0, len(head) - 1))]), 0) is None
    bit = data.draw(st.integers(0, len(head) * 8 - 1))
    head[bit // 8] ^= 1 << bit % 8
    assert parse_head(bytes(head), 0) is None


@given(st.binary(max_size=300), st.integers(0, 300))
def test_what_is_no_head_is_none(content: bytes, start: int) -> None:
    assert parse_head(content, start) is None


def test_a_name_that_could_not_be_given_out_is_none() -> None:
    assert parse_head(head_of(ImageName("../..", "secret"), 1.0, 5), 0) is None
