"""The models a node serves: settings, Livepeer's list and the built-in one, made into one list."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from network.errors import ConfigError
from network.prices import Price
from network.units import Address, ModelId
from node.config.ai_models import ListedModel, read_ai_models
from node.config.loras import ServedLora, allowed_loras, builtin_loras
from node.config.model_folders import (
    BUILTIN_FOLDER,
    BUILTIN_MODEL,
    INDEX,
    MAIN,
    Root,
    locate,
    roots,
)
from node.config.profiles import KNOWN, Profile
from node.config.settings import ModelSettings, NodeSettings, ProfileSettings

__all__ = [
    "BUILTIN_FOLDER",
    "BUILTIN_MODEL",
    "Catalogue",
    "ServedModel",
    "catalogue",
    "model_roots",
    "models_dir",
    "profiles",
]


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model with its files and terms. `payer_prices` are for single gateways."""

    model_id: ModelId
    path: Path
    price: Price
    capacity: int
    warm: bool
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    payer_prices: tuple[tuple[Address, Price], ...] = ()
    deterministic: bool = False
    profile: Profile | None = None


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Every model and LoRA served, the pipelines of Livepeer's list that are not, and what in it is idle."""

    models: tuple[ServedModel, ...]
    skipped_pipelines: tuple[str, ...] = ()
    loras: tuple[ServedLora, ...] = ()
    notes: tuple[str, ...] = ()


def catalogue(settings: NodeSettings) -> Catalogue:
    """Return what the settings come to; the built-in model where they name none.

    Raises ConfigError for a model whose files are not there, or that is listed twice; blocks.
    """
    skipped: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    models = [_configured(settings, model) for model in settings.models]
    if settings.ai_models is not None:
        listed = read_ai_models(settings.ai_models)
        skipped, notes = listed.skipped, listed.notes
        models += [_listed(settings, model) for model in listed.models]
    if not models:
        models = [_configured(settings, ModelSettings(id=BUILTIN_MODEL))]
    seen: set[ModelId] = set()
    for model in models:
        if model.model_id in seen:
            raise ConfigError("models", f"{model.model_id} is listed twice")
        seen.add(model.model_id)
    return Catalogue(tuple(models), skipped, _loras(settings, models), notes)


def _loras(settings: NodeSettings, models: list[ServedModel]) -> tuple[ServedLora, ...]:
    """What the settings list, and the built-in model's own where they do not list those."""
    listed = allowed_loras(settings, [model.model_id for model in models])
    names = {lora.lora_id for lora in listed}
    shapes = [model.model_id for model in models if model.path == BUILTIN_FOLDER]
    own = builtin_loras(shapes) if shapes else ()
    return listed + tuple(lora for lora in own if lora.lora_id not in names)


def _configured(settings: NodeSettings, model: ModelSettings) -> ServedModel:
    model_id = ModelId(model.id)
    path = (
        _checked(model_id, model.path)
        if model.path
        else _found(settings, model_id, model.revision)
    )
    deterministic = model.deterministic
    if deterministic is None:
        # What newcomers try first gives the same bytes again, however busy they keep it.
        deterministic = path == BUILTIN_FOLDER
    return ServedModel(
        model_id=model_id,
        path=path,
        price=settings.price if model.price is None else model.price,
        capacity=model.capacity,
        warm=model.warm,
        dtype=model.dtype,
        deterministic=deterministic,
        profile=_profile(model.profile, model_id),
    )


def _listed(settings: NodeSettings, model: ListedModel) -> ServedModel:
    return ServedModel(
        model_id=model.model_id,
        path=_found(settings, model.model_id),
        price=settings.price if model.price is None else model.price,
        capacity=max(1, model.capacity),
        warm=model.warm,
        payer_prices=model.payer_prices,
        profile=KNOWN.get(model.model_id),
    )


def _checked(model_id: ModelId, path: Path) -> Path:
    if not (path / INDEX).is_file():
        raise ConfigError(
            "models.path",
            f"{path} holds no diffusers model for {model_id}: there is no {INDEX} in it",
        )
    return path.resolve()


def _found(settings: NodeSettings, model_id: ModelId, revision: str = MAIN) -> Path:
    where = model_roots(settings)
    place = locate(model_id, revision, where)
    if place is not None:
        return _checked(model_id, place.path) if place.source == "built in" else place.path
    wanted = model_id if revision == MAIN else f"{model_id} at {revision}"
    at = "" if revision == MAIN else f" --revision {revision}"
    raise ConfigError(
        "models_dir",
        f"{wanted} is not in {' or '.join(str(root.path) for root in where)}. Download it with\n"
        f"    limner-node models pull {model_id}{at}\n"
        "or set the model's path, or models_dir",
    )


def profiles(settings: NodeSettings, models: Catalogue) -> Mapping[ModelId, Profile]:
    """Return what fills in for clients' unchosen values, by model; nothing under "as-sent"."""
    if settings.defaults_policy == "as-sent":
        return {}
    return {model.model_id: model.profile for model in models.models if model.profile is not None}


def models_dir(settings: NodeSettings) -> Path:
    """Return the folder in which the operator keeps models."""
    return settings.models_dir or settings.data_dir / "models"


def model_roots(settings: NodeSettings) -> tuple[Root, ...]:
    """Return the folders in which models are looked for, by id."""
    return roots(models_dir(settings), os.environ)


def _profile(settings: ProfileSettings | None, model_id: ModelId) -> Profile | None:
    if settings is None:
        return KNOWN.get(model_id)
    return Profile(
        steps=settings.steps,
        guidance=settings.guidance,
        size=settings.size,
        scheduler=settings.scheduler,
        scheduler_options=tuple(sorted(settings.scheduler_options.items())),
        fixed=settings.fixed,
        source="the settings",
    )
