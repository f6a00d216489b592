"""PNG encoding."""

from io import BytesIO

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from node.engine.png import encode_png, encode_png_slowly


def _pixels(width: int, height: int, seed: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@given(st.integers(1, 80), st.integers(1, 80), st.integers(0, 2**32))
def test_a_png_holds_exactly_the_pixels_and_the_same_bytes_each_time(
    width: int, height: int, seed: int
) -> None:
    pixels = _pixels(width, height, seed)
    for encode in (encode_png, encode_png_slowly):
        encoded = encode(pixels)
        assert encoded[:8] == b"\x89PNG\r\n\x1a\n"
        assert np.array_equal(np.asarray(Image.open(BytesIO(encoded))), pixels)
        assert encode(pixels.copy()) == encoded


def test_a_view_with_other_strides_is_encoded_as_it_looks() -> None:
    pixels = _pixels(40, 30, 1)[::2, ::-1]
    assert np.array_equal(np.asarray(Image.open(BytesIO(encode_png(pixels)))), pixels)


def test_anything_but_three_channels_is_refused() -> None:
    with pytest.raises(ValueError, match="3 channels"):
        encode_png(np.zeros((4, 4, 4), dtype=np.uint8))
