"""PNG and JPEG files of strangers, judged from outside: no pixel is decoded, unless that is asked for.

What is passed on draws a picture of the size that was asked for, and nothing else: whatever a file
carries beside its pixels (text that unpacks to gigabytes, scripts, trackers) stays here.
"""

import struct
import zlib
from typing import Final

_PNG_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_PNG_START: Final = struct.Struct(">8sI4sIIBBBBBI")
_IHDR_LENGTH: Final = 13
_CHUNK: Final = struct.Struct(">I4s")
_PNG_END: Final = b"\x00\x00\x00\x00IEND\xaeB`\x82"
#: Bytes of a chunk that are not its data.
_AROUND: Final = 12
#: Bit depths by colour type (PNG specification, table 11.1), and samples of a pixel.
_DEPTHS: Final = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
_SAMPLES: Final = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_PALETTE: Final = 3
_NEEDED: Final = frozenset({b"IHDR", b"PLTE", b"IDAT", b"IEND"})
#: Ancillary chunks that say how the pixels look; none of them is packed.
_KEPT: Final = frozenset({b"tRNS", b"gAMA", b"cHRM", b"sRGB", b"sBIT", b"pHYs", b"bKGD"})
#: An encoder's pieces are of kilobytes; walking through millions of empty ones would take seconds.
_FEWEST_BYTES_A_CHUNK: Final = 512
_CHUNKS_AT_LEAST: Final = 64
_INFLATED_AT_ONCE: Final = 256 * 1024

_JPEG_START: Final = b"\xff\xd8\xff"
_JPEG_END: Final = b"\xff\xd9"
#: Start-of-frame markers (ITU T.81, table B.1), which hold the size.
_FRAMES: Final = frozenset({0xC0, 0xC1, 0xC2})
_SCAN: Final = 0xDA


class UnsoundImageError(ValueError):
    """The file is not what it is said to be; the message continues "an image"."""


def sound_png(data: bytes, width: int, height: int) -> bytes:
    """The file as it may be passed on, `data` itself where nothing has to be taken out of it.

    Raises UnsoundImageError for what is not one whole PNG of `width` x `height` pixels.
    """
    colour = _check_png_start(data, width, height)
    kept: list[tuple[int, int]] = [(0, _PNG_START.size)]
    position = _PNG_START.size
    most = _CHUNKS_AT_LEAST + len(data) // _FEWEST_BYTES_A_CHUNK
    last, has_pixels, has_palette = b"IHDR", False, False
    while last != b"IEND":
        if most == 0:
            raise UnsoundImageError("is cut into too many pieces")
        most -= 1
        end, last = _chunk(data, position)
        if last == b"IHDR":
            # To decoders the last one counts, and it was the first that was looked at.
            raise UnsoundImageError("has two headers")
        if last in _NEEDED or last in _KEPT:
            if kept[-1][1] == position:
                kept[-1] = (kept[-1][0], end)
            else:
                kept.append((position, end))
        elif last[0] & 0x20 == 0:
            raise UnsoundImageError(f"has a part that no PNG has: {last.decode('ascii')}")
        has_pixels |= last == b"IDAT"
        has_palette |= last == b"PLTE"
        position = end
    if position != len(data) or not data.endswith(_PNG_END):
        raise UnsoundImageError("goes on after its end")
    if not has_pixels or (colour == _PALETTE and not has_palette):
        raise UnsoundImageError("has no pixels")
    if len(kept) == 1:
        return data
    return b"".join(data[start:end] for start, end in kept)


def check_pixels(png: bytes) -> None:
    """Inflate the pixels of a sound PNG, and not a byte more than its size says; for a thread.

    Raises UnsoundImageError where they are fewer, more, or not deflated.
    """
    _, _, _, width, height, depth, colour, _, _, interlaced, _ = _PNG_START.unpack_from(png)
    left = _raw_bytes(width, height, depth * _SAMPLES[colour], is_interlaced=interlaced == 1)
    inflating = zlib.decompressobj()
    position, kind = _PNG_START.size, b""
    try:
        while kind != b"IEND":
            end, kind = _chunk(png, position)
            packed: bytes = png[position + 8 : end - 4] if kind == b"IDAT" else b""
            while packed and not inflating.eof:
                # One byte more than there may be tells that there is more.
                left -= len(inflating.decompress(packed, min(left + 1, _INFLATED_AT_ONCE)))
                if left < 0:
                    raise UnsoundImageError("unpacks to more pixels than it has")
                packed = inflating.unconsumed_tail
            position = end
    except zlib.error:
        raise UnsoundImageError("has pixels that cannot be unpacked") from None
    if left or not inflating.eof:
        raise UnsoundImageError("has too few pixels")


def check_jpeg(data: bytes, longest_side: int) -> None:
    """Raise UnsoundImageError for what is no JPEG of at most `longest_side` pixels a side."""
    if not data.startswith(_JPEG_START) or not data.endswith(_JPEG_END):
        raise UnsoundImageError("is not a JPEG")
    position = 2
    while position + 9 < len(data) and data[position] == 0xFF:  # noqa: PLR2004  begins a marker
        marker, length = data[position + 1], int.from_bytes(data[position + 2 : position + 4])
        if marker in _FRAMES:
            height, width = struct.unpack_from(">HH", data, position + 5)
            if not 0 < width <= longest_side or not 0 < height <= longest_side:
                raise UnsoundImageError(f"is a JPEG of {width}x{height} pixels")
            return
        if marker == _SCAN or length < 2:  # noqa: PLR2004  the length counts its own two bytes
            break
        position += 2 + length
    raise UnsoundImageError("is a JPEG without a size")


def _check_png_start(data: bytes, width: int, height: int) -> int:
    """The colour type."""
    if len(data) < _PNG_START.size + len(_PNG_END) or not data.startswith(_PNG_SIGNATURE):
        raise UnsoundImageError("is not a PNG")
    _, length, kind, wide, high, depth, colour, packing, filtering, interlaced, checksum = (
        _PNG_START.unpack_from(data)
    )
    if length != _IHDR_LENGTH or kind != b"IHDR" or zlib.crc32(data[12:29]) != checksum:
        raise UnsoundImageError("has a broken PNG header")
    if depth not in _DEPTHS.get(colour, ()) or packing or filtering or interlaced > 1:
        raise UnsoundImageError("has a PNG header that no decoder takes")
    if (wide, high) != (width, height):
        raise UnsoundImageError(f"is {wide}x{high} where {width}x{height} was asked")
    return int(colour)


def _chunk(data: bytes, position: int) -> tuple[int, bytes]:
    """Where the chunk at `position` ends, and its type."""
    if position + _AROUND > len(data):
        raise UnsoundImageError("is cut off")
    length, kind = _CHUNK.unpack_from(data, position)
    end = position + _AROUND + length
    if end > len(data):
        raise UnsoundImageError("is cut off")
    if not kind.isalpha():
        raise UnsoundImageError("is damaged")
    return end, kind


def _raw_bytes(width: int, height: int, bits: int, *, is_interlaced: bool) -> int:
    """Bytes of the filtered scanlines: each is preceded by one that names its filter."""
    passes = [(0, 0, 1, 1)]
    if is_interlaced:  # Adam7: first column and row, and the steps between columns and rows
        passes = [
            *((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4)),
            *((0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)),
        ]
    total = 0
    for first_column, first_row, columns, rows in passes:
        wide = -(-(width - first_column) // columns)
        high = -(-(height - first_row) // rows)
        if wide > 0 and high > 0:
            total += high * (1 + -(-wide * bits // 8))
    return total
