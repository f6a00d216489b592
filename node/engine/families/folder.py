"""Reads a model folder in diffusers layout before anything is loaded from it.

A model comes from strangers: only safetensors are read (a pickle runs code when it is opened), and
a folder that brings its own Python is refused.
"""

from dataclasses import dataclass
from pathlib import Path

import msgspec

_PICKLES = (".bin", ".ckpt", ".pt", ".pth", ".pkl")
_LIBRARIES = frozenset({"diffusers", "transformers"})


class ModelFolderError(Exception):
    """The folder holds no model we load. The message is for the operator."""


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """What a folder says of itself: pipeline class, its components' classes, weights variant."""

    path: Path
    pipeline: str
    components: dict[str, str]
    variant: str | None


def inspect_folder(path: Path) -> ModelFolder:
    """Read `model_index.json` and look at the weights. Raises ModelFolderError."""
    index = _read_index(path)
    pipeline = index.get("_class_name")
    if not isinstance(pipeline, str):
        raise ModelFolderError(f"{path}: model_index.json names no stock pipeline class")
    components = {}
    for name, entry in index.items():
        if name.startswith("_") or not isinstance(entry, list) or len(entry) != 2:  # noqa: PLR2004
            continue
        library, class_name = entry
        if not isinstance(library, str) or not isinstance(class_name, str):
            continue
        if (
            library not in _LIBRARIES
            and (path / name).is_dir()
            and any((path / name).glob("*.py"))
        ):
            raise ModelFolderError(f"{path / name}: brings its own code, which is never run")
        components[name] = class_name
    return ModelFolder(path, pipeline, components, _weights_variant(path, components))


def _read_index(path: Path) -> dict[str, object]:
    file = path / "model_index.json"
    try:
        return msgspec.json.decode(file.read_bytes(), type=dict[str, object])
    except FileNotFoundError:
        raise ModelFolderError(
            f"{path}: no model here (model_index.json is missing); give the folder of a model "
            "in diffusers layout"
        ) from None
    except OSError as error:
        raise ModelFolderError(f"{file}: cannot be read ({error.strerror})") from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise ModelFolderError(f"{file}: is not a JSON object") from None


def _weights_variant(path: Path, components: dict[str, str]) -> str | None:
    """Return "fp16" when some component's weights exist in that variant alone, else None."""
    plain_missing = False
    for name in components:
        folder = path / name
        if not folder.is_dir():
            continue
        weights = [file.name for file in folder.glob("*.safetensors")]
        pickles = sorted(file.name for file in folder.iterdir() if file.suffix in _PICKLES)
        if pickles and not weights:
            raise ModelFolderError(
                f"{folder / pickles[0]}: weights are read from .safetensors files only; "
                "convert the model, or fetch its safetensors files"
            )
        plain_missing |= bool(weights) and all(".fp16." in weight for weight in weights)
    return "fp16" if plain_missing else None
