"""The messages of a link: byte streams in pieces, and what keeps them in bounds.

Each is one binary WebSocket message: a byte for its kind, four for its stream (big-endian), the rest
is its own. Only the gateway opens streams. Format of our own; `SUBPROTOCOL` names its version.
"""

from dataclasses import dataclass
from enum import IntEnum
from struct import Struct
from typing import Final

from network.errors import WireError

SUBPROTOCOL: Final = "limner-link.1"
#: Bytes of one piece: on a slow line, so much may stand before a small answer.
LARGEST_DATA: Final = 16 * 1024
#: Bytes that may be under way or unread in each direction of each stream.
WINDOW: Final = 256 * 1024
LARGEST_PUSH: Final = 64 * 1024
LAST_STREAM: Final = 2**31 - 1

_HEAD: Final = Struct(">BI")
_CREDIT: Final = Struct(">I")
LARGEST_MESSAGE: Final = _HEAD.size + max(LARGEST_DATA, LARGEST_PUSH)


class Kind(IntEnum):
    """What a frame says."""

    OPEN = 1
    DATA = 2
    #: So many more bytes may be sent.
    CREDIT = 3
    #: The sender writes no more.
    END = 4
    #: The stream is over, whatever is unread.
    RESET = 5
    #: News of the node, of no stream.
    PUSH = 6
    #: A sign of life, of no stream.
    BEAT = 7


_OF_NO_STREAM: Final = frozenset({Kind.PUSH, Kind.BEAT})
#: The fewest and the most bytes after the head.
_SIZES: Final = {
    Kind.OPEN: (0, 0),
    Kind.DATA: (1, LARGEST_DATA),
    Kind.CREDIT: (_CREDIT.size, _CREDIT.size),
    Kind.END: (0, 0),
    Kind.RESET: (0, 0),
    Kind.PUSH: (1, LARGEST_PUSH),
    Kind.BEAT: (0, 0),
}


@dataclass(frozen=True, slots=True)
class Frame:
    """`stream` is 0 for a frame of no stream, `credit` in bytes."""

    kind: Kind
    stream: int = 0
    data: bytes = b""
    credit: int = 0


def encode(frame: Frame) -> bytes:
    """One message."""
    head = _HEAD.pack(frame.kind, frame.stream)
    return head + (_CREDIT.pack(frame.credit) if frame.kind is Kind.CREDIT else frame.data)


def decode(message: bytes) -> Frame:
    """Raises WireError for whatever `encode` does not make."""
    if len(message) < _HEAD.size:
        raise WireError(f"a message of {len(message)} bytes is no frame")
    number, stream = _HEAD.unpack_from(message)
    try:
        kind = Kind(number)
    except ValueError:
        raise WireError(f"no frame is of kind {number}") from None
    least, most = _SIZES[kind]
    rest = message[_HEAD.size :]
    if not least <= len(rest) <= most:
        raise WireError(f"a frame {kind.name} of {len(rest)} bytes")
    if (stream == 0) != (kind in _OF_NO_STREAM) or stream > LAST_STREAM:
        raise WireError(f"a frame {kind.name} of stream {stream}")
    if kind is not Kind.CREDIT:
        return Frame(kind, stream, rest)
    (credit,) = _CREDIT.unpack(rest)
    if not 1 <= credit <= WINDOW:
        raise WireError(f"a credit of {credit} bytes")
    return Frame(kind, stream, credit=credit)
