"""Livepeer's `aiModels.json`: the models and prices of an orchestrator that moves here as it is."""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from network.capabilities import TEXT_TO_IMAGE_PIPELINE
from network.errors import ConfigError
from network.identity import parse_address
from network.units import LARGEST_PRICE_TERM, Address, ModelId

_MOST_BYTES: Final = 1024 * 1024
_KEY: Final = "ai_models"
_WEI_PER_ETH: Final = 10**18
#: Livepeer's price strings; an exponent is ours, because its own examples use one.
_PRICE: Final = re.compile(
    r"(?P<number>[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]{1,2})?)\s*(?P<unit>[A-Za-z]*)"
)


@dataclass(frozen=True, slots=True)
class ListedModel:
    """A model of the list; equal entries are one, with the sum of their capacities.

    `price` in wei per pixel, None for the default; `payer_prices` for single gateways.
    """

    model_id: ModelId
    warm: bool
    capacity: int
    price: Fraction | None
    payer_prices: tuple[tuple[Address, Fraction], ...] = ()


@dataclass(frozen=True, slots=True)
class ModelList:
    """Text-to-image models, and the pipelines that were left out."""

    models: tuple[ListedModel, ...]
    skipped: tuple[str, ...]


class _Entry(BaseModel):
    # go-livepeer ignores what it does not know, and newer files must load.
    model_config = ConfigDict(extra="ignore", protected_namespaces=())

    pipeline: str
    model_id: Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[!-~]+$")]
    warm: bool = False
    capacity: Annotated[int, Field(ge=1, le=256)] = 1
    url: str = ""
    #: numbers are read as text, which keeps them exact
    price_per_unit: str | int | None = None
    pixels_per_unit: str | int | None = None
    currency: str = ""
    gateway: str = "default"


def read_ai_models(path: Path, usd_per_eth: Fraction | None) -> ModelList:
    """Read an `aiModels.json`. Raises ConfigError that names the entry; blocks."""
    try:
        with path.open("rb") as file:
            text = file.read(_MOST_BYTES).decode()
        content = json.loads(text, parse_float=str)
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(_KEY, f"cannot read {path}: {error}") from error
    if not isinstance(content, list):
        raise ConfigError(_KEY, f"{path} must hold a JSON list of models")
    return _listed(_entries(path, content), usd_per_eth)


def _entries(path: Path, content: list[Any]) -> list[tuple[str, _Entry]]:
    entries: list[tuple[str, _Entry]] = []
    for number, item in enumerate(content):
        place = f"{_KEY}[{number}]"
        try:
            entries.append((place, _Entry.model_validate(item)))
        except ValidationError as error:
            fault = error.errors(include_url=False)[0]
            name = ".".join(str(part) for part in fault["loc"])
            raise ConfigError(f"{place}.{name}", f"{fault['msg']} (in {path})") from None
    return entries


def _listed(entries: Iterable[tuple[str, _Entry]], usd_per_eth: Fraction | None) -> ModelList:
    models: dict[ModelId, ListedModel] = {}
    skipped: set[str] = set()
    for place, entry in entries:
        if entry.pipeline != TEXT_TO_IMAGE_PIPELINE:
            skipped.add(entry.pipeline)
            continue
        if entry.url:
            raise ConfigError(
                f"{place}.url", "external containers are not used: this node runs models itself"
            )
        model = _model(place, entry, usd_per_eth)
        known = models.get(model.model_id)
        models[model.model_id] = model if known is None else _merged(place, known, model)
    return ModelList(tuple(models.values()), tuple(sorted(skipped)))


def _model(place: str, entry: _Entry, usd_per_eth: Fraction | None) -> ListedModel:
    price = _price(place, entry, usd_per_eth)
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


def _price(place: str, entry: _Entry, usd_per_eth: Fraction | None) -> Fraction | None:
    if entry.price_per_unit is None:
        return None
    key = f"{place}.price_per_unit"
    found = _PRICE.fullmatch(str(entry.price_per_unit))
    if found is None:
        raise ConfigError(
            key, f'{entry.price_per_unit!r} is not a price; write 4768371 or "0.5e-2USD"'
        )
    unit = (found["unit"] or entry.currency).lower()
    wei = Fraction(found["number"]) * _wei_in(key, unit, usd_per_eth)
    price = wei / _pixels(f"{place}.pixels_per_unit", entry.pixels_per_unit)
    if max(price.numerator, price.denominator) > LARGEST_PRICE_TERM:
        raise ConfigError(key, "comes to a fraction of more than 64 bits; use fewer digits")
    return price


def _wei_in(key: str, unit: str, usd_per_eth: Fraction | None) -> Fraction:
    if unit in ("", "wei"):
        return Fraction(1)
    if unit == "eth":
        return Fraction(_WEI_PER_ETH)
    if unit != "usd":
        raise ConfigError(key, f"currency {unit!r} is not known; use wei, eth or USD")
    if usd_per_eth is None:
        raise ConfigError(
            key,
            "is in USD, and nothing says what an ETH costs; set usd_per_eth, for example "
            'usd_per_eth = "3000", or write the price in wei or eth',
        )
    return _WEI_PER_ETH / usd_per_eth


def _pixels(key: str, value: str | int | None) -> int:
    if value is None:
        return 1
    try:
        pixels = int(value)
    except ValueError:
        pixels = 0
    if pixels <= 0:
        raise ConfigError(key, f"{value!r} is not a positive whole number")
    return pixels
