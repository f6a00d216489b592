"""Whether two images show the same, as far as a person sees.

Devices and batches round differently, so that the same seed gives images that differ by a level
here and there. Both are made small first: what is left of such differences is little, and other
prompts, seeds or models look different at any size. Needs Pillow.
"""

import io
from importlib.util import find_spec
from math import inf, log10
from typing import TYPE_CHECKING, Final

from gateway.orchestrators.answers import Expected, checked_png

if TYPE_CHECKING:
    from PIL import Image

_SIDE: Final = 32
_WHITE: Final = 255.0


def can_compare() -> bool:
    """Whether Pillow is installed."""
    return find_spec("PIL") is not None


def likeness(one: bytes, other: bytes, expected: Expected) -> float:
    """The peak signal-to-noise ratio in dB of two PNG files, made 32 x 32; infinite for the same.

    Slow: call it on a thread. Raises OrchestratorFailed for what is no PNG of the size expected,
    before anything is decoded, and ValueError for one that cannot be decoded.
    """
    from PIL import ImageChops, ImageStat  # noqa: PLC0415  an optional package

    checked_png(one, expected)
    checked_png(other, expected)
    difference = ImageChops.difference(_small(one), _small(other))
    squares = [channel**2 for channel in ImageStat.Stat(difference).rms]
    mean = sum(squares) / len(squares)
    return inf if mean == 0 else 20 * log10(_WHITE) - 10 * log10(mean)


def _small(png: bytes) -> "Image.Image":
    from PIL import Image, UnidentifiedImageError  # noqa: PLC0415  an optional package

    try:
        with Image.open(io.BytesIO(png), formats=["PNG"]) as image:
            return image.convert("RGB").resize((_SIDE, _SIDE), Image.Resampling.BOX)
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise ValueError(f"a PNG cannot be decoded: {error}") from None
