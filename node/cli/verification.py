"""Checks a model's files without loading it: nothing missing, cut short, mixed up or altered."""

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from safetensors import SafetensorError, safe_open

from node.engine.families.folder import ModelFolder, ModelFolderError, inspect_folder

_CHUNK: Final = 4 * 2**20
#: Hugging Face's cache names large files by their SHA-256 and small ones as git does.
_SHA256: Final = re.compile("[0-9a-f]{64}")
_GIT_SHA1: Final = re.compile("[0-9a-f]{40}")


@dataclass(frozen=True, slots=True)
class Component:
    """One part of a model: its weights' files, tensors and bytes."""

    name: str
    class_name: str
    files: tuple[str, ...]
    tensors: int
    size: int


@dataclass(frozen=True, slots=True)
class Findings:
    """What a model's folder holds. No `problems`: it is whole. `hashed` files had a hash to match."""

    path: Path
    pipeline: str
    variant: str | None
    components: tuple[Component, ...]
    problems: tuple[str, ...]
    hashed: int = 0

    def as_json(self) -> dict[str, object]:
        """Return the findings for programs."""
        return {
            "path": str(self.path),
            "pipeline": self.pipeline,
            "variant": self.variant,
            "components": [
                {
                    "name": part.name,
                    "class": part.class_name,
                    "files": part.files,
                    "tensors": part.tensors,
                    "bytes": part.size,
                }
                for part in self.components
            ],
            "hashed": self.hashed,
            "problems": self.problems,
        }


def verify(
    path: Path, *, hashes: bool = True, on_bytes: Callable[[int], None] = lambda _: None
) -> Findings:
    """Check a model folder. `on_bytes` is told how many bytes were hashed since the last call.

    Reads every header and, with `hashes`, every byte of the files that the cache names by hash.
    """
    try:
        folder = inspect_folder(path)
    except ModelFolderError as error:
        return Findings(path, "", None, (), (str(error),))
    problems: list[str] = []
    components = tuple(
        _component(folder, name, files, problems) for name, files in folder.weights.items()
    )
    problems += _unreadable_json(path)
    hashed = 0
    if hashes:
        for file in sorted(_files(path)):
            expected = _cached_hash(file)
            if expected is None:
                continue
            hashed += 1
            if _hash(file, expected, on_bytes) != expected:
                problems.append(f"{file.relative_to(path)}: was altered, or did not arrive whole")
    return Findings(path, folder.pipeline, folder.variant, components, tuple(problems), hashed)


def size_on_disk(path: Path) -> int:
    """Return the bytes of all files in a folder, links followed."""
    total = 0
    for file in _files(path):
        with suppress(OSError):
            total += file.stat().st_size
    return total


def bytes_to_hash(path: Path) -> int:
    """Return how many bytes `verify` reads to compare hashes."""
    return sum(file.stat().st_size for file in _files(path) if _cached_hash(file) is not None)


def _files(path: Path) -> Iterator[Path]:
    return (file for file in path.rglob("*") if file.is_file())


def _component(
    folder: ModelFolder, name: str, files: tuple[str, ...], problems: list[str]
) -> Component:
    tensors: dict[str, str] = {}
    size = 0
    for file in files:
        path = folder.path / name / file
        size += path.stat().st_size
        try:
            # Opening compares the header with the file's length, and reads no tensor.
            with safe_open(path, framework="np") as opened:
                tensors |= dict.fromkeys(opened.keys(), file)
        except (SafetensorError, OSError) as error:
            problems.append(f"{name}/{file}: is not whole, or no safetensors file ({error})")
    if len(files) > 1:
        problems += _misplaced(folder.path / name, files, tensors)
    return Component(name, folder.components[name], files, len(tensors), size)


def _misplaced(folder: Path, files: tuple[str, ...], tensors: Mapping[str, str]) -> Iterator[str]:
    """Compare what shards hold with what the index beside them says."""
    for index in sorted(folder.glob("*.safetensors.index*.json")):
        content = _json(index)
        told = content.get("weight_map") if isinstance(content, dict) else None
        if not isinstance(told, dict) or not set(files) & set(told.values()):
            continue
        wrong = sorted(tensor for tensor in told if tensors.get(tensor) != told[tensor])
        if wrong:
            yield (
                f"{folder.name}/{index.name}: {len(wrong)} tensors are not where it says, "
                f"{wrong[0]} for one"
            )
        return
    yield f"{folder.name}: no index names these shards"


def _unreadable_json(path: Path) -> Iterator[str]:
    for file in sorted(_files(path)):
        if file.suffix == ".json" and _json(file) is None:
            yield f"{file.relative_to(path)}: is not JSON"


def _json(file: Path) -> Any:
    try:
        # Not orjson: diffusers writes -Infinity into schedulers' configurations, and reads it.
        return json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None


def _cached_hash(file: Path) -> str | None:
    """Return the hash by which the cache names this file's content; None outside of it."""
    if not file.is_symlink():
        return None
    # Only the first link is named so: a blob may be a link itself, into a store shared by caches.
    blob = file.readlink()
    named = _SHA256.fullmatch(blob.name) or _GIT_SHA1.fullmatch(blob.name)
    return blob.name if named and blob.parent.name == "blobs" else None


def _hash(file: Path, expected: str, on_bytes: Callable[[int], None]) -> str:
    if _SHA256.fullmatch(expected):
        digest = hashlib.sha256()
    else:
        digest = hashlib.sha1(usedforsecurity=False)
        digest.update(f"blob {file.stat().st_size}\0".encode())
    with file.open("rb") as opened:
        while chunk := opened.read(_CHUNK):
            digest.update(chunk)
            on_bytes(len(chunk))
    return digest.hexdigest()
