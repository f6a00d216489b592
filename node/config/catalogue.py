"""The models a node serves: settings, Livepeer's list and the built-in one, made into one list."""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Final, Literal

from network.errors import ConfigError
from network.units import Address, ModelId
from node.config.ai_models import ListedModel, read_ai_models
from node.config.loras import ServedLora, allowed_loras, builtin_loras
from node.config.settings import ModelSettings, NodeSettings

BUILTIN_MODEL: Final = ModelId("limner/shapes")
BUILTIN_FOLDER: Final = Path(__file__).resolve().parents[1] / "builtin" / "shapes"
_INDEX: Final = "model_index.json"


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model with its files and terms. `payer_prices` are for single gateways."""

    model_id: ModelId
    path: Path
    price: Fraction
    capacity: int
    warm: bool
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    payer_prices: tuple[tuple[Address, Fraction], ...] = ()
    deterministic: bool = False


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Every model and LoRA served, and the pipelines of Livepeer's list that are not."""

    models: tuple[ServedModel, ...]
    skipped_pipelines: tuple[str, ...] = ()
    loras: tuple[ServedLora, ...] = ()


def catalogue(settings: NodeSettings) -> Catalogue:
    """Return what the settings come to; the built-in model where they name none.

    Raises ConfigError for a model whose files are not there, or that is listed twice; blocks.
    """
    skipped: tuple[str, ...] = ()
    models = [_configured(settings, model) for model in settings.models]
    if settings.ai_models is not None:
        listed = read_ai_models(settings.ai_models, settings.usd_per_eth)
        skipped = listed.skipped
        models += [_listed(settings, model) for model in listed.models]
    if not models:
        models = [_configured(settings, ModelSettings(id=BUILTIN_MODEL))]
    seen: set[ModelId] = set()
    for model in models:
        if model.model_id in seen:
            raise ConfigError("models", f"{model.model_id} is listed twice")
        seen.add(model.model_id)
    return Catalogue(tuple(models), skipped, _loras(settings, models))


def _loras(settings: NodeSettings, models: list[ServedModel]) -> tuple[ServedLora, ...]:
    """What the settings list, and the built-in model's own where they do not list those."""
    listed = allowed_loras(settings, [model.model_id for model in models])
    names = {lora.lora_id for lora in listed}
    shapes = [model.model_id for model in models if model.path == BUILTIN_FOLDER]
    own = builtin_loras(shapes) if shapes else ()
    return listed + tuple(lora for lora in own if lora.lora_id not in names)


def _configured(settings: NodeSettings, model: ModelSettings) -> ServedModel:
    model_id = ModelId(model.id)
    path = _checked(model_id, model.path) if model.path else _found(settings, model_id)
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
    )


def _listed(settings: NodeSettings, model: ListedModel) -> ServedModel:
    return ServedModel(
        model_id=model.model_id,
        path=_found(settings, model.model_id),
        price=settings.price if model.price is None else model.price,
        capacity=max(1, model.capacity),
        warm=model.warm,
        payer_prices=model.payer_prices,
    )


def _checked(model_id: ModelId, path: Path) -> Path:
    if not (path / _INDEX).is_file():
        raise ConfigError(
            "models.path",
            f"{path} holds no diffusers model for {model_id}: there is no {_INDEX} in it",
        )
    return path.resolve()


def _found(settings: NodeSettings, model_id: ModelId) -> Path:
    if model_id == BUILTIN_MODEL:
        return _checked(model_id, BUILTIN_FOLDER)
    root = settings.models_dir or settings.data_dir / "models"
    tried = list(_candidates(root, model_id))
    for path in tried:
        if (path / _INDEX).is_file():
            return path.resolve()
    raise ConfigError(
        "models_dir",
        f"{model_id} is not in {root}. Download it with\n"
        f"    hf download {model_id} --local-dir {root / model_id}\n"
        "or set the model's path, or models_dir",
    )


def _candidates(root: Path, model_id: ModelId) -> Iterator[Path]:
    """A plain folder, or the cache layout that Livepeer's `aiModelsDir` has."""
    if ".." in model_id.split("/") or model_id.startswith("/"):
        raise ConfigError("models", f"{model_id!r} is not a model id")
    yield root / model_id
    cached = root / f"models--{model_id.replace('/', '--')}"
    try:
        revision = (cached / "refs" / "main").read_text().strip()
    except (OSError, UnicodeDecodeError):
        return
    yield cached / "snapshots" / revision
