"""What of a stranger's PNG or JPEG is believed, and what of it is passed on."""

import io
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from gateway.orchestrators.image_files import (
    UnsoundImageError,
    check_jpeg,
    check_pixels,
    sound_png,
)
from tests.gateway.pictures import (
    SIGNATURE,
    bomb_png,
    chunk,
    header,
    jpeg,
    jpeg_that_says,
    real_png,
)

PLAIN = real_png(5, 7)
END = chunk(b"IEND")
PIXELS = PLAIN[PLAIN.index(b"IDAT") - 4 : -len(END)]
HEAD = SIGNATURE + header(5, 7)
PAGE = b"<script>alert(1)</script>"


def test_a_plain_image_is_passed_on_as_it_is() -> None:
    assert sound_png(PLAIN, 5, 7) is PLAIN


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_whatever_pillow_writes_is_sound_and_has_its_pixels(mode: str) -> None:
    file = io.BytesIO()
    Image.new(mode, (13, 9)).save(file, "PNG")
    sound = sound_png(file.getvalue(), 13, 9)
    check_pixels(sound)
    Image.open(io.BytesIO(sound)).load()


@pytest.mark.parametrize("size", [(1, 1), (3, 2), (8, 8), (13, 9)])
def test_the_pixels_of_an_interlaced_image_are_counted(size: tuple[int, int]) -> None:
    passes = [
        *((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4)),
        *((0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)),
    ]
    raw = b""
    for x, y, dx, dy in passes:
        row = len(range(x, size[0], dx))
        raw += (b"\0" + bytes(row * 3)) * len(range(y, size[1], dy)) if row else b""
    data = (
        SIGNATURE
        + header(*size, interlaced=1)
        + chunk(b"IDAT", zlib.compress(raw))
        + chunk(b"IEND")
    )
    check_pixels(sound_png(data, *size))
    Image.open(io.BytesIO(data)).load()


@pytest.mark.parametrize(
    "extra",
    [
        chunk(b"tEXt", b"Comment\0" + PAGE),
        chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(10**6))),
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + PAGE),
        chunk(b"iCCP", b"p\0\0" + zlib.compress(bytes(10**6))),
        chunk(b"eXIf", b"MM\0*" + PAGE),
        chunk(b"acTL", bytes(8)),
        chunk(b"teSt", PAGE) * 9,
    ],
)
def test_what_is_beside_the_pixels_stays_here(extra: bytes) -> None:
    """Text that unpacks to gigabytes, and pages that a browser might take for one."""
    gamma = chunk(b"gAMA", b"\0\0\xb1\x8f")
    data = HEAD + extra + gamma + PIXELS + extra + END
    sound = sound_png(data, 5, 7)
    assert sound == HEAD + gamma + PIXELS + END
    Image.open(io.BytesIO(sound)).load()


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "is not a PNG"),
        (b"<!DOCTYPE html>" + PAGE * 9, "is not a PNG"),
        (b"GIF89a" + PLAIN, "is not a PNG"),
        (SIGNATURE + header(30_000, 30_000) + PIXELS + END, "is 30000x30000 where 5x7"),
        (SIGNATURE + header(2**31, 2**31) + PIXELS + END, "where 5x7 was asked"),
        (SIGNATURE + header(0, 7) + PIXELS + END, "is 0x7"),
        (SIGNATURE + header(5, 7, depth=3) + PIXELS + END, "no decoder takes"),
        (SIGNATURE + header(5, 7, colour=1) + PIXELS + END, "no decoder takes"),
        (SIGNATURE + header(5, 7, interlaced=2) + PIXELS + END, "no decoder takes"),
        (HEAD[:-1] + b"?" + PIXELS + END, "a broken PNG header"),
        (PLAIN[:-6], "is cut off"),
        (PLAIN[:-12], "is cut off"),
        (HEAD + PIXELS[:3] + b"\xff" + PIXELS[4:] + END, "is cut off"),
        (HEAD + b"\xff\xff\xff\xffIDAT" + PIXELS + END, "is cut off"),
        (PLAIN + PAGE, "goes on after its end"),
        (PLAIN + END, "goes on after its end"),
        (HEAD + PIXELS + chunk(b"IEND", PAGE), "goes on after its end"),
        (HEAD + END, "has no pixels"),
        (HEAD + header(5000, 7000) + PIXELS + END, "has two headers"),
        (SIGNATURE + header(5, 7, colour=3) + PIXELS + END, "has no pixels"),
        (HEAD + chunk(b"ABCD") + PIXELS + END, "a part that no PNG has: ABCD"),
        (HEAD + chunk(b"\0\1\2\3") + PIXELS + END, "is damaged"),
        (HEAD + chunk(b"IDAT") * 100_000 + PIXELS + END, "cut into too many pieces"),
        (HEAD + chunk(b"teXt") * 100_000 + PIXELS + END, "cut into too many pieces"),
    ],
)
def test_what_is_no_whole_png_of_its_size_is_refused(data: bytes, why: str) -> None:
    with pytest.raises(UnsoundImageError, match=why):
        sound_png(data, 5, 7)


@given(st.binary(max_size=200), st.integers(0, 400), st.integers(0, 9))
def test_damage_is_refused_or_leaves_a_png_of_the_size(noise: bytes, at: int, cut: int) -> None:
    damaged = PLAIN[:at] + noise + PLAIN[at + cut :]
    try:
        sound = sound_png(damaged, 5, 7)
    except UnsoundImageError:
        return
    assert sound.startswith(HEAD)
    assert sound.endswith(END)
    assert sound_png(sound, 5, 7) is sound


@pytest.mark.parametrize(
    ("pixels", "why"),
    [
        (b"", "too few"),
        (PAGE, "cannot be unpacked"),
        (zlib.compress(bytes(7 * 16 - 1)), "too few"),
        (zlib.compress(bytes(7 * 16 + 1)), "more pixels than it has"),
        (zlib.compress(bytes(7 * 16))[:-4], "too few"),
    ],
)
def test_pixels_are_as_many_as_the_size_says(pixels: bytes, why: str) -> None:
    with pytest.raises(UnsoundImageError, match=why):
        check_pixels(sound_png(HEAD + chunk(b"IDAT", pixels) + END, 5, 7))


def test_a_bomb_is_given_up_when_it_has_unpacked_to_its_size() -> None:
    bomb = bomb_png(64, 64, 96 * 2**20)
    assert len(bomb) < 120_000
    tracemalloc.start()
    try:
        with pytest.raises(UnsoundImageError, match="more pixels than it has"):
            check_pixels(sound_png(bomb, 64, 64))
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < 2**21


def test_a_jpeg_is_taken_within_its_size() -> None:
    check_jpeg(jpeg(256, 144), 256)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "is not a JPEG"),
        (PLAIN, "is not a JPEG"),
        (jpeg(8, 8) + PAGE, "is not a JPEG"),
        (jpeg(8, 8)[:-2], "is not a JPEG"),
        (jpeg(257, 8), "a JPEG of 257x8"),
        (jpeg_that_says(65_500, 65_500), "a JPEG of 65500x65500"),
        (jpeg_that_says(0, 8), "a JPEG of 0x8"),
        (b"\xff\xd8\xff\xe0 not much of a picture\xff\xd9", "without a size"),
        (b"\xff\xd8\xff\xff\0\0" * 9 + b"\xff\xd9", "without a size"),
    ],
)
def test_what_is_no_small_jpeg_is_refused(data: bytes, why: str) -> None:
    with pytest.raises(UnsoundImageError, match=why):
        check_jpeg(data, 256)


@given(st.binary(max_size=60))
def test_no_bytes_are_more_than_refused(noise: bytes) -> None:
    for data in (noise, b"\xff\xd8\xff" + noise + b"\xff\xd9"):
        try:
            check_jpeg(data, 256)
        except UnsoundImageError:
            continue
