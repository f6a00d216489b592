"""The records of a segment file, one after the other: a head, the image's path, the image.

An image's bytes are hopped over and never searched for heads: what they hold is another's.
"""

import zlib
from dataclasses import dataclass
from struct import Struct
from typing import Final

from gateway.storage.names import ImageName, parse_path

MAGIC: Final = b"LimS"
#: What follows the magic and the checksum, which covers it and the path: when the image was stored
#: (unix seconds), its size, the length of its path.
_FIELDS: Final = Struct("<dQH")
_START: Final = Struct("<4sI")
_FIXED: Final = _START.size + _FIELDS.size
#: A head with the longest path that can be given out.
LONGEST_HEAD: Final = _FIXED + len("/stream//.webp") + 2 * 64


@dataclass(frozen=True, slots=True)
class Head:
    """What stands before an image; sizes in bytes."""

    name: ImageName
    stored_at: float
    size: int
    length: int


def head_of(name: ImageName, stored_at: float, size: int) -> bytes:
    """What goes before an image of `size` bytes."""
    path = name.path.encode()
    checked = _FIELDS.pack(stored_at, size, len(path)) + path
    return _START.pack(MAGIC, zlib.crc32(checked)) + checked


def parse_head(content: bytes, start: int) -> Head | None:
    """The head at `start`, or None where there is no whole one that is right."""
    if start + _FIXED > len(content):
        return None
    magic, checksum = _START.unpack_from(content, start)
    stored_at, size, path_length = _FIELDS.unpack_from(content, start + _START.size)
    end = start + _FIXED + path_length
    if magic != MAGIC or end > len(content):
        return None
    if zlib.crc32(content[start + _START.size : end]) != checksum:
        return None
    name = parse_path(content[start + _FIXED : end].decode("latin-1"))
    return None if name is None else Head(name, stored_at, size, end - start)
