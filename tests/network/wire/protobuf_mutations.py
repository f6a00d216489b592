"""Bytes that are nearly protobuf: valid messages changed as an attacker, or a broken program, would.

@given(mutated(valid_messages))
"""

from collections.abc import Callable, Sequence

from hypothesis import strategies as st

VARINT, FIXED64, BYTES, GROUP_START, GROUP_END, FIXED32 = range(6)
_LARGEST_FIELD = 2**29 - 1


def varint(value: int, length: int = 0) -> bytes:
    """As short as it gets, or padded to `length` bytes."""
    out = bytearray()
    while True:
        value, rest = value >> 7, value & 0x7F
        if not value and len(out) + 1 >= length:
            return bytes([*out, rest])
        out.append(rest | 0x80)


def field(number: int, wire_type: int, payload: bytes = b"") -> bytes:
    """A field as it stands; of BYTES with its length."""
    head = varint(number << 3 | wire_type)
    return head + (varint(len(payload)) + payload if wire_type == BYTES else payload)


def nested(numbers: Sequence[int], depth: int, inside: bytes = b"") -> bytes:
    """Messages in messages, the field numbers in turn."""
    for level in range(depth):
        inside = field(numbers[level % len(numbers)], BYTES, inside)
    return inside


def _cut(message: bytes, draw: st.DrawFn) -> bytes:
    return message[: draw(st.integers(0, len(message)))]


def _flip(message: bytes, draw: st.DrawFn) -> bytes:
    changed = bytearray(message or b"\0")
    for _ in range(draw(st.integers(1, 6))):
        changed[draw(st.integers(0, len(changed) - 1))] = draw(st.integers(0, 255))
    return bytes(changed)


def _insert(message: bytes, draw: st.DrawFn) -> bytes:
    at = draw(st.integers(0, len(message)))
    return message[:at] + draw(st.binary(min_size=1, max_size=40)) + message[at:]


def _remove(message: bytes, draw: st.DrawFn) -> bytes:
    start = draw(st.integers(0, len(message)))
    return message[:start] + message[start + draw(st.integers(1, 40)) :]


def _repeat(message: bytes, draw: st.DrawFn) -> bytes:
    """Fields again: the last one counts, or all of them do."""
    return message * draw(st.integers(2, 30))


def _any_field(message: bytes, draw: st.DrawFn) -> bytes:
    """A field of any number and type, at the end of a whole message."""
    number = draw(st.one_of(st.integers(1, 40), st.just(_LARGEST_FIELD)))
    wire_type = draw(st.integers(0, 7))
    return message + field(number, wire_type, draw(st.binary(max_size=30)))


def _long_varint(message: bytes, draw: st.DrawFn) -> bytes:
    """Nine bytes are fine, ten may be, eleven never are."""
    number = draw(st.integers(1, 38))
    value = draw(st.integers(0, 2**70))
    return message + field(number, VARINT, varint(value, draw(st.integers(1, 16))))


def _false_length(message: bytes, draw: st.DrawFn) -> bytes:
    number = draw(st.integers(1, 38))
    length = draw(st.sampled_from([2**16, 2**31 - 1, 2**31, 2**32, 2**63, 2**64 - 1]))
    return message + varint(number << 3 | BYTES) + varint(length) + b"few"


def _deep(message: bytes, draw: st.DrawFn) -> bytes:
    numbers = draw(st.lists(st.sampled_from([1, 2, 3, 5, 7, 8]), min_size=1, max_size=3))
    return message + nested(numbers, draw(st.sampled_from([3, 50, 99, 100, 101, 2000])))


def _groups(message: bytes, draw: st.DrawFn) -> bytes:
    number, depth = draw(st.integers(1, 38)), draw(st.sampled_from([1, 99, 101, 5000]))
    start = field(number, GROUP_START) * depth
    return message + start + field(number, GROUP_END) * draw(st.sampled_from([0, depth]))


def _crowd(message: bytes, draw: st.DrawFn) -> bytes:
    """Very many entries that are next to nothing each."""
    number = draw(st.integers(1, 38))
    entry = draw(st.sampled_from([b"", b"\x08\x01", b"\x0a\x01x"]))
    return message + field(number, BYTES, entry) * draw(st.sampled_from([600, 1025, 9000]))


def _map_of_many(message: bytes, draw: st.DrawFn) -> bytes:
    """Capabilities, wherever they stand, with maps of very many keys."""
    capabilities = b"".join(
        field(3, BYTES, field(1, VARINT, varint(key)) + field(2, VARINT, varint(1)))
        for key in range(draw(st.sampled_from([100, 1025, 4000])))
    )
    models = b"".join(
        field(1, BYTES, field(1, BYTES, b"m%d" % key) + field(2, BYTES))
        for key in range(draw(st.sampled_from([0, 100, 4097])))
    )
    per_capability = field(1, VARINT, varint(27)) + field(2, BYTES, models)
    capabilities += field(5, BYTES, field(2, BYTES, per_capability))
    return message + field(draw(st.sampled_from([3, 5, 7])), BYTES, capabilities)


_CHANGES: Sequence[Callable[[bytes, st.DrawFn], bytes]] = (
    _cut,
    _flip,
    _insert,
    _remove,
    _repeat,
    _any_field,
    _long_varint,
    _false_length,
    _deep,
    _groups,
    _crowd,
    _map_of_many,
)


@st.composite
def mutated(draw: st.DrawFn, valid: Sequence[bytes]) -> bytes:
    """One of `valid`, or nothing, or noise, with up to three changes."""
    message = draw(st.one_of(st.sampled_from([b"", *valid]), st.binary(max_size=200)))
    for _ in range(draw(st.integers(0, 3))):
        message = draw(st.sampled_from(_CHANGES))(message, draw)
    return message
