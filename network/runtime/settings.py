"""Settings from a TOML file, then the environment, then flags; checked once, at start.

    class NodeSettings(Settings):
        listen: str = "https://127.0.0.1:8936"
        pricing: Pricing = Pricing()

    settings = load(NodeSettings, path, env_prefix="LIMNER_NODE__", overrides={"listen": flag})

An unknown key is an error wherever it stands, because a setting that is silently ignored is
found out in production.
"""

import difflib
import os
import tomllib
from collections.abc import Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

import orjson
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    SecretStr,
    ValidationError,
)

from network.errors import ConfigError
from network.prices import CurrencyPrice, Price, parse_amount, parse_price
from network.runtime.log import REDACTED, is_secret

_MOST_FILE_BYTES: Final = 1024 * 1024
_LONGEST_VALUE: Final = 80

S = TypeVar("S", bound=BaseModel)
Key = tuple[str, ...]


class Settings(BaseModel):
    """Base of every settings class and of the tables inside it."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


def _price(value: object) -> Price:
    # pydantic turns a ValueError, and only that, into an error naming the setting
    if isinstance(value, Fraction | CurrencyPrice):
        amount = value if isinstance(value, Fraction) else value.amount
        if amount < 0:
            raise ValueError("a price is at least 0")
        return value
    if isinstance(value, float):
        # 0.1 has no exact value in binary, and money is exact.
        raise ValueError(f'write the price in quotes: "{value}"')  # noqa: TRY004
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError('write a price as text or a whole number, for example "0.5" or "7/2"')  # noqa: TRY004
    return parse_price(str(value))


def _price_in_wei(value: object) -> Fraction:
    price = _price(value)
    if isinstance(price, CurrencyPrice):
        raise ValueError(f"it must be in wei, gwei or eth, not in {price.currency}")  # noqa: TRY004
    return price


def _rate(value: object) -> object:
    return value if value is None or isinstance(value, Fraction) else parse_amount(value)


#: For a unit of work, written as `parse_price` reads it or as a whole number of wei.
PriceSetting = Annotated[Price, PlainValidator(_price)]
#: The same without currencies that need a rate.
WeiPriceSetting = Annotated[Fraction, PlainValidator(_price_in_wei)]
#: What something costs in a currency: text or a number.
RateSetting = Annotated[Fraction, BeforeValidator(_rate), Field(gt=0)]


def load(
    settings: type[S],
    path: Path | None,
    env_prefix: str,
    overrides: Mapping[str, object],
    environment: Mapping[str, str] | None = None,
) -> S:
    """The settings of a program.

    `overrides` are flags by dotted key ("pricing.default"); None means not given. An
    environment variable is `env_prefix` and the key in capitals with "__" for the dot;
    lists and tables are written there as JSON. Raises ConfigError that names key, value and
    where it came from. Reads a file: call it before the event loop runs.
    """
    tree: dict[str, Any] = {}
    origins: dict[Key, str] = {}
    for origin, key, value in _sources(path, env_prefix, overrides, environment):
        _place(tree, key, value, origin)
        origins[key] = origin
    try:
        return settings.model_validate(tree)
    except ValidationError as error:
        raise _explained(error, settings, origins) from None


def _sources(
    path: Path | None,
    env_prefix: str,
    overrides: Mapping[str, object],
    environment: Mapping[str, str] | None,
) -> Iterator[tuple[str, Key, object]]:
    if path is not None:
        for key, value in _leaves((), _file_content(path)):
            yield f"in {path}", key, value
    for name, text in sorted((os.environ if environment is None else environment).items()):
        if name.startswith(env_prefix):
            key = tuple(name.removeprefix(env_prefix).lower().split("__"))
            yield f"in the environment, {name}", key, _environment_value(name, text)
    for dotted, value in overrides.items():
        if value is not None:
            yield "given as a flag", tuple(dotted.split(".")), value


def _file_content(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            text = file.read(_MOST_FILE_BYTES).decode()
        return tomllib.loads(text)
    except OSError as error:
        raise ConfigError("", f"cannot read {path}: {error.strerror or error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError("", f"{path} is not valid TOML: {error}") from error


def _leaves(prefix: Key, value: object) -> Iterator[tuple[Key, object]]:
    """Every value below a table; lists count as values."""
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from _leaves((*prefix, name), inner)
    elif prefix:
        yield prefix, value


def _environment_value(name: str, text: str) -> object:
    if not text.startswith(("[", "{")):
        return text
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise ConfigError(name, f"is not valid JSON: {error}") from None


def _place(tree: dict[str, Any], key: Key, value: object, origin: str) -> None:
    for name in key[:-1]:
        inner = tree.setdefault(name, {})
        if not isinstance(inner, dict):
            raise ConfigError(".".join(key), f"{name} is a value, not a table ({origin})")
        tree = inner
    tree[key[-1]] = value


def _explained(
    error: ValidationError, settings: type[BaseModel], origins: Mapping[Key, str]
) -> ConfigError:
    """The first fault, in the words of an operator."""
    fault = error.errors(include_url=False)[0]
    location = tuple(str(part) for part in fault["loc"])
    key = ".".join(location)
    origin = _origin(location, origins)
    if fault["type"] == "missing":
        return ConfigError(key, "is required; set it in the file, the environment or by a flag")
    if fault["type"] == "extra_forbidden":
        allowed = _allowed(settings, location[:-1])
        near = difflib.get_close_matches(location[-1], allowed, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        return ConfigError(key, f"no such setting ({origin}); {hint}allowed: {', '.join(allowed)}")
    what = fault["msg"].removeprefix("Value error, ")
    return ConfigError(key, f"{_shown(location, fault['input'])} {origin}: {what}")


def _origin(location: Key, origins: Mapping[Key, str]) -> str:
    """Where the nearest value at, above or below `location` was set."""
    for key, origin in reversed(list(origins.items())):
        if key[: len(location)] == location or location[: len(key)] == key:
            return origin
    return "as the built-in default"


def _shown(location: Key, value: object) -> str:
    if isinstance(value, SecretStr) or any(is_secret(part) for part in location):
        return REDACTED
    text = repr(value)
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}..."


def _allowed(settings: type[BaseModel], location: Key) -> list[str]:
    """Field names of the table at `location`, as far as its types tell."""
    model: object = settings
    for name in location:
        if isinstance(model, type) and issubclass(model, BaseModel) and name in model.model_fields:
            model = model.model_fields[name].annotation
            continue
        # A list or table of tables: its only type argument that is a model.
        model = next((m for m in _arguments(model)), model)
    if not (isinstance(model, type) and issubclass(model, BaseModel)):
        model = next(iter(_arguments(model)), settings)
    return sorted(model.model_fields)


def _arguments(annotation: object) -> list[type[BaseModel]]:
    found: list[type[BaseModel]] = []
    for argument in getattr(annotation, "__args__", ()):
        if isinstance(argument, type) and issubclass(argument, BaseModel):
            found.append(argument)
        else:
            found.extend(_arguments(argument))
    return found
