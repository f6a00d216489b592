"""How large a model will be, told from its files before any of it is loaded. Needs no torch."""

import struct
from collections.abc import Callable, Iterator
from math import prod
from pathlib import Path
from typing import Final

import msgspec

from node.engine.families.folder import ModelFolder, ModelFolderError

_LENGTH: Final = struct.Struct("<Q")
_MAX_HEADER: Final = 100 * 2**20  # bytes; the format's own library draws the line there, too
_CHUNK: Final = 32 * 2**20  # bytes
_FLOATS: Final = frozenset({"F64", "F32", "F16", "BF16"})
_OTHERS: Final = {"I64": 8, "U64": 8, "I32": 4, "U32": 4, "I16": 2, "U16": 2}


class _Tensor(msgspec.Struct):
    dtype: str = ""
    shape: tuple[int, ...] = ()


def weight_files(folder: ModelFolder) -> list[Path]:
    """Return the files that a model's weights are read from."""
    return [
        folder.path / component / name
        for component, names in folder.weights.items()
        for name in names
        if name.endswith(".safetensors")
    ]


def estimated_bytes(folder: ModelFolder, float_bytes: int) -> int:
    """Return the bytes of a model's weights with floats of `float_bytes` each.

    Reads the files' headers only, and blocks. Raises ModelFolderError for a file that is not in
    safetensors format.
    """
    return sum(
        prod(tensor.shape)
        * (float_bytes if tensor.dtype in _FLOATS else _OTHERS.get(tensor.dtype, 1))
        for file in weight_files(folder)
        for tensor in _tensors(file)
    )


def read_ahead(folder: ModelFolder, on_progress: Callable[[float], None]) -> None:
    """Read a model's weights into the system's file cache; `on_progress` gets the share read.

    The libraries that load them map the files and touch them page by page, which says nothing of
    how far they are and is slow on a slow disk. Raises OSError.
    """
    files = weight_files(folder)
    total = sum(file.stat().st_size for file in files)
    buffer = bytearray(_CHUNK)
    done = 0
    on_progress(0.0)
    for file in files:
        with file.open("rb", buffering=0) as opened:
            while count := opened.readinto(buffer):
                done += count
                on_progress(done / total)


def _tensors(file: Path) -> Iterator[_Tensor]:
    try:
        with file.open("rb") as opened:
            (length,) = _LENGTH.unpack(opened.read(_LENGTH.size))
            if length > _MAX_HEADER:
                raise ModelFolderError(f"{file}: a header of {length} bytes cannot be")
            header = msgspec.json.decode(opened.read(length), type=dict[str, _Tensor])
    except OSError as error:
        raise ModelFolderError(f"{file}: cannot be read ({error.strerror})") from None
    except (struct.error, msgspec.DecodeError, UnicodeDecodeError):
        raise ModelFolderError(f"{file}: is not in safetensors format") from None
    header.pop("__metadata__", None)
    yield from header.values()
