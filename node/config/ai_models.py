"""Livepeer's `aiModels.json`: the models and prices of an orchestrator that moves here as it is."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from network.capabilities import TEXT_TO_IMAGE_PIPELINE
from network.errors import ConfigError
from network.identity import parse_address
from network.prices import Price, listed_price
from network.units import Address, ModelId

_MOST_BYTES: Final = 1024 * 1024
_KEY: Final = "ai_models"
#: As Go reads a bool.
_TRUE: Final = frozenset({"1", "t", "T", "true", "TRUE", "True"})
_FALSE: Final = frozenset({"0", "f", "F", "false", "FALSE", "False"})
#: Pipeline, model and warm.
_INLINE_PARTS: Final = 3


@dataclass(frozen=True, slots=True)
class ListedModel:
    """A model of the list; equal entries are one, with the sum of their capacities.

    `price` is for a pixel, None for the default; `payer_prices` for single gateways.
    """

    model_id: ModelId
    warm: bool
    capacity: int
    price: Price | None
    payer_prices: tuple[tuple[Address, Price], ...] = ()


@dataclass(frozen=True, slots=True)
class ModelList:
    """Text-to-image models, the pipelines that were left out, and what of the entries has no effect."""

    models: tuple[ListedModel, ...]
    skipped: tuple[str, ...]
    notes: tuple[str, ...] = ()


class _Entry(BaseModel):
    # go-livepeer ignores what it does not know, and newer files must load.
    model_config = ConfigDict(extra="ignore", protected_namespaces=())

    pipeline: str
    model_id: Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[!-~]+$")]
    warm: bool = False
    capacity: Annotated[int, Field(ge=1, le=256)] = 1
    url: str = ""
    optimization_flags: dict[str, Any] | None = None
    #: read by `listed_price`; fractions come as text, which keeps them exact
    price_per_unit: Any = None
    pixels_per_unit: Any = None
    currency: Any = ""
    gateway: str = "default"


def read_ai_models(path: Path) -> ModelList:
    """Read an `aiModels.json`, or what stands in its place on go-livepeer's command line.

    That is "pipeline:model_id:warm[,...]". Prices stay in the currency that they are written in. Raises
    ConfigError that names the entry; blocks.
    """
    if ":" in str(path) and not _is_there(path):
        return _listed(_entries("the list", _inline(str(path))))
    try:
        with path.open("rb") as file:
            text = file.read(_MOST_BYTES).decode()
        content = json.loads(text, parse_float=str)
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(_KEY, f"cannot read {path}: {error}") from error
    if not isinstance(content, list):
        raise ConfigError(_KEY, f"{path} must hold a JSON list of models")
    return _listed(_entries(str(path), content))


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a list too long for the name of a file
        return False


def _inline(text: str) -> list[dict[str, object]]:
    entries: list[dict[str, object]] = []
    for number, item in enumerate(text.split(",")):
        parts = item.split(":")
        if len(parts) < _INLINE_PARTS or parts[2] not in _TRUE | _FALSE:
            raise ConfigError(
                f"{_KEY}[{number}]",
                f"{item[:80]!r} is neither a file nor <pipeline>:<model_id>:<warm>, as in "
                '"text-to-image:stabilityai/sdxl-turbo:true"',
            )
        entries.append({"pipeline": parts[0], "model_id": parts[1], "warm": parts[2] in _TRUE})
    return entries


def _entries(origin: str, content: Sequence[Any]) -> list[tuple[str, _Entry]]:
    entries: list[tuple[str, _Entry]] = []
    for number, item in enumerate(content):
        place = f"{_KEY}[{number}]"
        try:
            entries.append((place, _Entry.model_validate(item)))
        except ValidationError as error:
            fault = error.errors(include_url=False)[0]
            name = ".".join(str(part) for part in fault["loc"])
            raise ConfigError(f"{place}.{name}", f"{fault['msg']} (in {origin})") from None
    return entries


def _listed(entries: Iterable[tuple[str, _Entry]]) -> ModelList:
    models: dict[ModelId, ListedModel] = {}
    skipped: set[str] = set()
    notes: list[str] = []
    for place, entry in entries:
        if entry.pipeline != TEXT_TO_IMAGE_PIPELINE:
            skipped.add(entry.pipeline)
            continue
        if entry.url:
            raise ConfigError(
                f"{place}.url",
                f"external containers are not used: take url and token out, and this node runs "
                f"{entry.model_id} itself; or take the entry out, and leave it to go-livepeer",
            )
        if entry.optimization_flags:
            flags = ", ".join(sorted(entry.optimization_flags))[:80]
            notes.append(f"{place}: {flags} of {entry.model_id}: this node's engine has its own")
        model = _model(place, entry)
        known = models.get(model.model_id)
        models[model.model_id] = model if known is None else _merged(place, known, model)
    return ModelList(tuple(models.values()), tuple(sorted(skipped)), tuple(notes))


def _model(place: str, entry: _Entry) -> ListedModel:
    price = _price(place, entry)
    model = ListedModel(ModelId(entry.model_id), entry.warm, entry.capacity, price)
    if entry.gateway in ("", "default"):
        return model
    if price is None:
        raise ConfigError(f"{place}.price_per_unit", "a gateway's own price is missing")
    try:
        payer = parse_address(entry.gateway)
    except ValueError as error:
        raise ConfigError(f"{place}.gateway", str(error)) from None
    # An entry for one gateway tells a price, and adds no capacity to the model.
    return ListedModel(model.model_id, entry.warm, 0, None, ((payer, price),))


def _merged(place: str, known: ListedModel, other: ListedModel) -> ListedModel:
    if known.warm != other.warm:
        raise ConfigError(f"{place}.warm", f"{known.model_id} is listed as warm and as cold")
    if None not in (known.price, other.price) and known.price != other.price:
        raise ConfigError(
            f"{place}.price_per_unit", f"{known.model_id} is listed with two different prices"
        )
    return ListedModel(
        known.model_id,
        known.warm,
        known.capacity + other.capacity,
        known.price if known.price is not None else other.price,
        known.payer_prices + other.payer_prices,
    )


def _price(place: str, entry: _Entry) -> Price | None:
    if entry.price_per_unit is None:
        return None
    try:
        return listed_price(
            place,
            {
                "price_per_unit": entry.price_per_unit,
                "pixels_per_unit": entry.pixels_per_unit,
                "currency": entry.currency,
            },
        )
    except ValueError as error:
        key, _, problem = str(error).partition(": ")
        raise ConfigError(key, problem) from None
