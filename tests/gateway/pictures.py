"""Image files as decoders and their enemies know them. Sizes in pixels."""

import struct
import zlib
from io import BytesIO

from PIL import Image

SIGNATURE = b"\x89PNG\r\n\x1a\n"


def chunk(kind: bytes, data: bytes = b"") -> bytes:
    """One part of a PNG."""
    checksum = struct.pack(">I", zlib.crc32(kind + data))
    return struct.pack(">I", len(data)) + kind + data + checksum


def header(width: int, height: int, depth: int = 8, colour: int = 2, interlaced: int = 0) -> bytes:
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced))


def real_png(width: int = 64, height: int = 64, *extra: bytes, marker: int = 0) -> bytes:
    """An RGB picture that every decoder takes; `extra` are chunks before its pixels."""
    rows = b"".join(
        b"\0"
        + bytes((marker + x * 3 + y * 5 + c * 85) % 256 for x in range(width) for c in range(3))
        for y in range(height)
    )
    pixels = chunk(b"IDAT", zlib.compress(rows))
    return SIGNATURE + header(width, height) + b"".join(extra) + pixels + chunk(b"IEND")


def bomb_png(width: int, height: int, inflated: int) -> bytes:
    """Says `width` x `height`, and its pixels unpack to `inflated` bytes."""
    packing = zlib.compressobj(9)
    zeros = bytes(2**20)
    packed = b"".join(packing.compress(zeros) for _ in range(inflated // 2**20)) + packing.flush()
    return SIGNATURE + header(width, height) + chunk(b"IDAT", packed) + chunk(b"IEND")


def jpeg(width: int, height: int) -> bytes:
    file = BytesIO()
    Image.new("RGB", (width, height), (9, 99, 199)).save(file, "JPEG")
    return file.getvalue()


def jpeg_that_says(width: int, height: int) -> bytes:
    """A small file whose head claims another size."""
    data = bytearray(jpeg(8, 8))
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = struct.pack(">HH", height, width)
    return bytes(data)
