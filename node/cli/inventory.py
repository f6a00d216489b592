"""Every model that is configured or lies about: where, how large, and under which licence."""

import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from huggingface_hub import metadata_load

from network.errors import ConfigError
from network.units import ModelId
from node.cli.verification import size_on_disk
from node.config.ai_models import ListedModel, read_ai_models
from node.config.catalogue import model_roots
from node.config.model_folders import BUILTIN_MODEL, INDEX, MAIN, Place, hub_cache, locate, scan
from node.config.profiles import KNOWN
from node.config.settings import ModelSettings, NodeSettings
from node.engine.families.folder import ModelFolderError, inspect_folder

_CARD: Final = "README.md"


@dataclass(frozen=True, slots=True)
class Entry:
    """A model as the operator sees it. `problem` says why it cannot be served; empty: it can."""

    id: str
    configured: bool
    warm: bool
    source: str
    path: str
    revision: str | None
    bytes: int
    pipeline: str
    variant: str | None
    licence: str | None
    known_profile: bool
    problem: str

    def as_json(self) -> dict[str, object]:
        """Return the entry for programs."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class _Configured:
    model_id: ModelId
    path: Path | None
    revision: str
    warm: bool


def inventory(settings: NodeSettings) -> tuple[Entry, ...]:
    """Return the configured models in their order, then those found besides. Blocks.

    Raises ConfigError only where Livepeer's list cannot be read.
    """
    entries: dict[str, Entry] = {}
    for model in _configured(settings):
        entries.setdefault(model.model_id, _configured_entry(settings, model))
    for place in (*_builtin(), *scan(model_roots(settings))):
        entries.setdefault(
            place.model_id, _entry(place.model_id, place, configured=False, warm=False)
        )
    return tuple(entries.values())


def place_of(settings: NodeSettings, wanted: str) -> Place:
    """Find a model by its id or its folder. Raises ConfigError."""
    model_id = ModelId(wanted)
    for model in _configured(settings):
        if model.model_id == wanted:
            place = _place(settings, model)
            if place is not None:
                return place
    folder = Path(wanted).expanduser()
    if (folder / INDEX).is_file():
        return Place(model_id, folder, "path")
    place = locate(model_id, MAIN, model_roots(settings))
    if place is None:
        raise ConfigError(
            "", f"there is no model {wanted}, and no folder of that name with a {INDEX} in it"
        )
    return place


def licence(path: Path) -> str | None:
    """Return what a model's card says of its licence; None when it says nothing."""
    card = path / _CARD
    if not card.is_file():
        return None
    try:
        told: Any = metadata_load(card)
    except (ValueError, OSError):
        return None
    if not isinstance(told, dict):
        return None
    name = told.get("license_name") or told.get("license")
    return str(name) if name else None


def _configured(settings: NodeSettings) -> Iterator[_Configured]:
    for model in settings.models:
        yield _Configured(ModelId(model.id), model.path, model.revision, model.warm)
    listed: tuple[ListedModel, ...] = ()
    if settings.ai_models is not None:
        listed = read_ai_models(settings.ai_models).models
    for one in listed:
        yield _Configured(one.model_id, None, MAIN, one.warm)
    if not settings.models and not listed:
        own = ModelSettings(id=BUILTIN_MODEL)
        yield _Configured(BUILTIN_MODEL, own.path, own.revision, own.warm)


def _builtin() -> Iterator[Place]:
    if place := locate(BUILTIN_MODEL, MAIN, ()):
        yield place


def _place(settings: NodeSettings, model: _Configured) -> Place | None:
    if model.path is not None:
        return Place(model.model_id, model.path, "path")
    return locate(model.model_id, model.revision, model_roots(settings))


def _configured_entry(settings: NodeSettings, model: _Configured) -> Entry:
    place = _place(settings, model)
    if place is not None:
        return _entry(model.model_id, place, configured=True, warm=model.warm)
    return Entry(
        id=model.model_id,
        configured=True,
        warm=model.warm,
        source="",
        path="",
        revision=None,
        bytes=0,
        pipeline="",
        variant=None,
        licence=None,
        known_profile=model.model_id in KNOWN,
        problem=f"not found; limner-node models pull {model.model_id}",
    )


def _entry(model_id: ModelId, place: Place, *, configured: bool, warm: bool) -> Entry:
    pipeline, variant, problem = "", None, ""
    try:
        folder = inspect_folder(place.path)
        pipeline, variant = folder.pipeline, folder.variant
    except ModelFolderError as error:
        problem = str(error)
    return Entry(
        id=model_id,
        configured=configured,
        warm=warm,
        source=place.source,
        path=str(place.path),
        revision=place.revision,
        bytes=size_on_disk(place.path),
        pipeline=pipeline,
        variant=variant,
        licence=licence(place.path),
        known_profile=model_id in KNOWN,
        problem=problem,
    )


def shared_cache() -> Path:
    """Return the Hugging Face cache that other programs of this account use."""
    return hub_cache(os.environ)
