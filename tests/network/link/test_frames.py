"""Frames: what is written is read back, and nothing else is read."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from network.errors import WireError
from network.link.frames import (
    LARGEST_DATA,
    LARGEST_MESSAGE,
    LARGEST_PUSH,
    LAST_STREAM,
    WINDOW,
    Frame,
    Kind,
    decode,
    encode,
)

streams = st.integers(1, LAST_STREAM)
frames = st.one_of(
    st.builds(Frame, st.sampled_from([Kind.OPEN, Kind.END, Kind.RESET]), streams),
    st.builds(Frame, st.just(Kind.DATA), streams, st.binary(min_size=1, max_size=300)),
    st.builds(Frame, st.just(Kind.CREDIT), streams, credit=st.integers(1, WINDOW)),
    st.builds(Frame, st.just(Kind.PUSH), data=st.binary(min_size=1, max_size=300)),
    st.just(Frame(Kind.BEAT)),
)


@given(frames)
def test_what_is_written_is_read_back(frame: Frame) -> None:
    assert decode(encode(frame)) == frame


@given(st.binary(max_size=40))
def test_any_bytes_are_a_frame_or_refused(message: bytes) -> None:
    try:
        frame = decode(message)
    except WireError:
        return
    assert encode(frame) == message


def test_the_largest_frames_fit_a_message() -> None:
    for frame in (
        Frame(Kind.DATA, LAST_STREAM, bytes(LARGEST_DATA)),
        Frame(Kind.PUSH, data=bytes(LARGEST_PUSH)),
    ):
        assert len(encode(frame)) <= LARGEST_MESSAGE
        assert decode(encode(frame)) == frame


@pytest.mark.parametrize(
    "frame",
    [
        Frame(Kind.DATA, 1, bytes(LARGEST_DATA + 1)),
        Frame(Kind.DATA, 1),
        Frame(Kind.DATA, 0, b"x"),
        Frame(Kind.DATA, LAST_STREAM + 1, b"x"),
        Frame(Kind.OPEN, 0),
        Frame(Kind.OPEN, 1, b"x"),
        Frame(Kind.CREDIT, 1, credit=0),
        Frame(Kind.CREDIT, 1, credit=WINDOW + 1),
        Frame(Kind.PUSH, 1, b"x"),
        Frame(Kind.PUSH, 0, bytes(LARGEST_PUSH + 1)),
        Frame(Kind.BEAT, 3),
    ],
)
def test_frames_out_of_bounds_are_refused(frame: Frame) -> None:
    with pytest.raises(WireError):
        decode(encode(frame))
