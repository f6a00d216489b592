"""What one call to the signer pays for, by the type of the job. Pure; exact.

`live` counts seconds, `lv2v` the pixels of 720p video at 30 frames a second, `fixed` one call, and
no type counts the pixels that the client names (Livepeer wire, section 7.4).
"""

from collections.abc import Mapping
from enum import StrEnum
from fractions import Fraction
from typing import Final

PIXELS_PER_SECOND: Final = 1280 * 720 * 30
_MILLISECONDS: Final = 1000
#: A job that has just begun pays ahead: milliseconds.
_FIRST_LIVE: Final = 10 * _MILLISECONDS
_FIRST_VIDEO: Final = 60 * _MILLISECONDS


class JobType(StrEnum):
    """What a request calls `type`."""

    PIXELS = ""
    LIVE = "live"
    VIDEO = "lv2v"
    FIXED = "fixed"


#: How many of the price's own units make one of the units in which clients name their maximum.
_UNITS: Final[Mapping[JobType, Mapping[str, Fraction]]] = {
    JobType.PIXELS: dict.fromkeys(("", "pixel", "pixels"), Fraction(1)),
    JobType.LIVE: {"": Fraction(1), "seconds": Fraction(1), "hour": Fraction(3600)},
    JobType.VIDEO: {
        "": Fraction(1),
        "720p": Fraction(PIXELS_PER_SECOND),
        "720p-pixel-seconds": Fraction(PIXELS_PER_SECOND),
        "seconds": Fraction(PIXELS_PER_SECOND),
        "hour": Fraction(PIXELS_PER_SECOND * 3600),
    },
    JobType.FIXED: dict.fromkeys(("", "fixed"), Fraction(1)),
}


def units_due(job: JobType, pixels: int, elapsed_ms: int | None) -> int:
    """Units of the price that are to be paid now; `elapsed_ms` is None for a first call.

    Started seconds and pixels count whole. Raises ValueError where the type needs pixels and there
    are none.
    """
    match job:
        case JobType.PIXELS:
            if pixels <= 0:
                raise ValueError("inPixels must be given and positive where there is no type")
            return pixels
        case JobType.LIVE:
            return _up(_FIRST_LIVE if elapsed_ms is None else elapsed_ms, _MILLISECONDS)
        case JobType.VIDEO:
            duration = _FIRST_VIDEO if elapsed_ms is None else elapsed_ms
            return _up(PIXELS_PER_SECOND * duration, _MILLISECONDS)
        case JobType.FIXED:
            return 1


def price_limit(job: JobType, price: Fraction, unit: str) -> Fraction:
    """A client's maximum `price` in the units of the job's own price, wei each.

    Raises ValueError for a unit that the job's type is not sold by.
    """
    units = _UNITS[job].get(unit)
    if units is None:
        sold_by = ", ".join(name for name in _UNITS[job] if name)
        raise ValueError(f"maxPrice.unit {unit!r} does not fit the type; use {sold_by}")
    return price / units


def _up(numerator: int, denominator: int) -> int:
    return max(-(-numerator // denominator), 0)
