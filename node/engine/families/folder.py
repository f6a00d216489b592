"""Reads a model folder in diffusers layout before anything is loaded from it.

A model comes from strangers: only safetensors are read (a pickle runs code when it is opened), and
a folder that brings its own Python is refused.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec

from node.engine.families.variants import (
    VariantError,
    Weights,
    choose_variant,
    chosen,
    has_weights,
    weights_by_variant,
)

#: Parts of stock pipelines that this engine has no use for.
NEVER_LOADED: Final = frozenset({"safety_checker", "feature_extractor", "image_encoder"})
#: SD 3's largest text encoder by far; its owner may have left it out.
MAY_BE_LEFT_OUT: Final = frozenset({"text_encoder_3", "tokenizer_3"})

_PICKLES = (".bin", ".ckpt", ".pt", ".pth", ".pkl")
_LIBRARIES = frozenset({"diffusers", "transformers"})


class ModelFolderError(Exception):
    """The folder holds no model we load. The message is for the operator."""


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """What a folder says of itself: pipeline class, its components' classes, weights variant.

    `weights` are the files to be read, by component. A component that lacks the variant has plain
    weights.
    """

    path: Path
    pipeline: str
    components: dict[str, str]
    variant: str | None
    weights: dict[str, tuple[str, ...]] = field(default_factory=dict)


def inspect_folder(path: Path) -> ModelFolder:
    """Read `model_index.json` and look at the files. Raises ModelFolderError naming what is missing."""
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
    there = {name: _weights(path / name) for name in _models(path, components)}
    try:
        variant = choose_variant(there)
    except VariantError as error:
        raise ModelFolderError(f"{path}: {error}") from None
    weights = {name: chosen(variants, variant) for name, variants in there.items()}
    _refuse_incomplete(path, components, weights)
    files = {name: found.files for name, found in weights.items()}
    return ModelFolder(path, pipeline, components, variant, files)


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


def _models(path: Path, components: dict[str, str]) -> list[str]:
    """The components that have weights to load, which those never used have not."""
    return [
        name
        for name, class_name in components.items()
        if has_weights(class_name)
        and name not in NEVER_LOADED
        and (name not in MAY_BE_LEFT_OUT or (path / name).is_dir())
    ]


def _weights(folder: Path) -> dict[str | None, Weights]:
    try:
        names = sorted(file.name for file in folder.iterdir())
    except FileNotFoundError:
        raise ModelFolderError(
            f"{folder}: is missing, and model_index.json names it as a part of the model"
        ) from None
    except OSError as error:
        raise ModelFolderError(f"{folder}: cannot be read ({error.strerror})") from None
    found = weights_by_variant(names)
    if found:
        return found
    if pickles := [name for name in names if Path(name).suffix in _PICKLES]:
        raise ModelFolderError(
            f"{folder / pickles[0]}: weights are read from .safetensors files only; "
            "convert the model, or fetch its safetensors files"
        )
    raise ModelFolderError(f"{folder}: its weights (a .safetensors file) are missing")


def _refuse_incomplete(
    path: Path, components: dict[str, str], weights: dict[str, Weights]
) -> None:
    missing = []
    for name, found in weights.items():
        expected = ["config.json", *([found.index] if found.index else [])]
        missing += [f"{name}/{file}" for file in found.missing]
        # is_file follows links: one into the cache whose target is gone is missing, too.
        missing += [
            f"{name}/{file}"
            for file in (*found.files, *expected)
            if not (path / name / file).is_file()
        ]
    missing += [
        f"{name}/scheduler_config.json"
        for name, class_name in components.items()
        if class_name.endswith("Scheduler")
        and not (path / name / "scheduler_config.json").is_file()
    ]
    if missing:
        raise ModelFolderError(f"{path}: the model is not complete; missing: {', '.join(missing)}")
