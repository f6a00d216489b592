"""Reads what a LoRA's safetensors file says of itself, before any of its tensors are read.

A LoRA comes from strangers: only safetensors are read (a pickle runs code when it is opened), and
size and rank are bounded first, because both end up in the device's memory.
"""

import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Annotated, BinaryIO, Final

import msgspec

_LONGEST_HEADER: Final = 16 * 2**20  # bytes; the largest LoRAs have some thousands of tensors
_MOST_TENSORS: Final = 20_000
_LENGTH: Final = struct.Struct("<Q")
_METADATA: Final = "__metadata__"
_FLOATS: Final = frozenset({"F16", "BF16", "F32"})

#: The names that diffusers, peft and kohya's scripts give to a pair's two matrices.
_DOWN: Final = re.compile(r"[._]lora([._]linear_layer)?[._](down|A)(\.[a-z0-9_]+)?\.weight")
_UP: Final = re.compile(r"[._]lora([._]linear_layer)?[._](up|B)(\.[a-z0-9_]+)?\.(weight|bias)")
_ALPHA: Final = ".alpha"


class LoraFileError(Exception):
    """The file holds no LoRA that may be used here. The message does not begin with the path."""


@dataclass(frozen=True, slots=True)
class LoraBounds:
    """The most a LoRA may have: bytes of its file, and the rank of its matrices."""

    max_bytes: int = 512 * 2**20
    max_rank: int = 256


@dataclass(frozen=True, slots=True)
class LoraHead:
    """A LoRA as its header describes it: how many layers it changes, and its largest rank."""

    pairs: int
    rank: int


class _Tensor(msgspec.Struct, frozen=True):
    dtype: str
    shape: Annotated[tuple[int, ...], msgspec.Meta(max_length=8)]
    data_offsets: tuple[int, int]


def inspect_lora(path: Path, bounds: LoraBounds) -> LoraHead:
    """Read a file's header. Raises LoraFileError; blocks."""
    return _opened(path, bounds)[0]


def read_lora(path: Path, bounds: LoraBounds) -> tuple[LoraHead, bytes]:
    """Read a file whole, once its header is found good. Raises LoraFileError; blocks.

    The bytes are those whose header was checked, whoever rewrites the file meanwhile.
    """
    return _opened(path, bounds, whole=True)


def _opened(path: Path, bounds: LoraBounds, *, whole: bool = False) -> tuple[LoraHead, bytes]:
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(0)
            if size > bounds.max_bytes:
                raise LoraFileError(
                    f"has {size} bytes; the most that is allowed are {bounds.max_bytes}"
                )
            header = _header(file, size)
            head = _checked(header, size, bounds)
            return head, header + file.read(size - len(header)) if whole else header
    except OSError as error:
        raise LoraFileError(f"cannot be read: {error.strerror}") from None


def _header(file: BinaryIO, size: int) -> bytes:
    prefix = file.read(_LENGTH.size)
    if len(prefix) < _LENGTH.size:
        raise LoraFileError("is no safetensors file: it is too short")
    (length,) = _LENGTH.unpack(prefix)
    if not 2 <= length <= min(_LONGEST_HEADER, size - _LENGTH.size):  # noqa: PLR2004  "{}"
        raise LoraFileError("is no safetensors file: its header has an impossible length")
    return prefix + file.read(length)


def _checked(header: bytes, size: int, bounds: LoraBounds) -> LoraHead:
    tensors = _tensors(header)
    room = size - len(header)
    ranks = []
    for name, tensor in tensors.items():
        _check_layout(name, tensor, room)
        if _DOWN.search(name):
            ranks.append(_rank(name, tensor.shape, axis=0))
        elif _UP.search(name):
            if len(tensor.shape) > 1:
                ranks.append(_rank(name, tensor.shape, axis=1))
        elif not name.endswith(_ALPHA):
            raise LoraFileError(f"holds {name[:80]!r}, which is no part of a LoRA known here")
    pairs = sum(bool(_DOWN.search(name)) for name in tensors)
    if not pairs:
        raise LoraFileError("holds no LoRA: there are no lora_A or lora_down weights in it")
    if max(ranks) > bounds.max_rank:
        raise LoraFileError(
            f"has matrices of rank {max(ranks)}; the most that is allowed is {bounds.max_rank}"
        )
    return LoraHead(pairs, max(ranks))


def _tensors(header: bytes) -> Mapping[str, _Tensor]:
    try:
        entries = msgspec.json.decode(header[_LENGTH.size :], type=dict[str, msgspec.Raw])
        entries.pop(_METADATA, None)
        if len(entries) > _MOST_TENSORS:
            raise LoraFileError(f"holds {len(entries)} tensors, more than any LoRA has")
        return {name: msgspec.json.decode(entry, type=_Tensor) for name, entry in entries.items()}
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise LoraFileError("is no safetensors file: its header cannot be read") from None


def _check_layout(name: str, tensor: _Tensor, room: int) -> None:
    if tensor.dtype not in _FLOATS and not name.endswith(_ALPHA):
        raise LoraFileError(
            f"holds {name[:80]!r} as {tensor.dtype[:16]}; F16, BF16 and F32 are read"
        )
    begin, end = tensor.data_offsets
    if not 0 <= begin <= end <= room or min(tensor.shape, default=1) < 1:
        raise LoraFileError(f"is damaged: {name[:80]!r} does not lie in it")
    if prod(tensor.shape) > room:
        raise LoraFileError(f"is damaged: {name[:80]!r} is larger than the file")


def _rank(name: str, shape: Sequence[int], axis: int) -> int:
    if len(shape) < 2:  # noqa: PLR2004  a matrix
        raise LoraFileError(f"is damaged: {name[:80]!r} is no matrix")
    return shape[axis]


__all__ = ["LoraBounds", "LoraFileError", "LoraHead", "inspect_lora", "read_lora"]
