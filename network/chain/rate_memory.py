"""The rates of a price feed over a restart: quotes that were made by them still hold. Blocks."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from network.prices import Rate

_MOST_BYTES: Final = 64 * 1024
_MOST_RATES: Final = 64
#: What a fraction of 256-bit numbers takes, and more.
_FRACTION: Final = r"^[0-9]{1,90}/[0-9]{0,89}[1-9][0-9]{0,89}$"


@dataclass(frozen=True, slots=True)
class HeldRate:
    """A rate that quotes were made by, the last time at `until`, in unix seconds."""

    rate: Rate
    until: float


class _Entry(BaseModel):
    model_config = ConfigDict(strict=True)

    currency: Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9]{0,11}$")]
    per_eth: Annotated[str, Field(pattern=_FRACTION)]
    as_of: Annotated[float, Field(allow_inf_nan=False)]
    until: Annotated[float, Field(allow_inf_nan=False)]


class _Content(BaseModel):
    model_config = ConfigDict(strict=True)

    source: str
    rates: Annotated[list[_Entry], Field(max_length=_MOST_RATES)]


def load_rates(path: Path, source: str) -> tuple[HeldRate, ...]:
    """What `save_rates` wrote for the same source, the newest last; nothing where that cannot be read."""
    try:
        with path.open("rb") as file:
            content = _Content.model_validate_json(file.read(_MOST_BYTES))
    except (OSError, ValidationError):
        return ()
    if content.source != source:
        return ()
    held = [
        HeldRate(Rate(one.currency, Fraction(one.per_eth), source, one.as_of), one.until)
        for one in content.rates
    ]
    return tuple(one for one in held if one.rate.per_eth > 0)


def save_rates(path: Path, source: str, rates: Sequence[HeldRate]) -> None:
    """Write them in place of what was there. Raises OSError."""
    content = {
        "source": source,
        "rates": [
            {
                "currency": one.rate.currency,
                "per_eth": f"{one.rate.per_eth.numerator}/{one.rate.per_eth.denominator}",
                "as_of": float(one.rate.as_of or 0),
                "until": one.until,
            }
            for one in rates[-_MOST_RATES:]
        ],
    }
    draft = path.with_name(f"{path.name}.draft")
    with draft.open("w") as file:
        json.dump(content, file)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
