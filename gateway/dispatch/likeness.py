"""Whether two images show the same, as far as a person sees.

Devices and batches round differently, so that the same seed gives images that differ by a level
here and there. Both are made small first: what is left of such differences is little, and other
prompts, seeds or models look different at any size. Needs Pillow.
"""

import io
from importlib.util import find_spec
from math import inf, log10
from typing import TYPE_CHECKING, Final

from gateway.orchestrators.answers import DeliveredWrongly, Expected, checked_png

if TYPE_CHECKING:
    from PIL import Image

_SIDE: Final = 32
_WHITE: Final = 255.0


class Undecodable(DeliveredWrongly):
    """What passes for a PNG by its beginning and its end, and shows nothing."""


def can_compare() -> bool:
    """Whether Pillow is installed."""
    return find_spec("PIL") is not None


def likeness(one: bytes, other: bytes, expected: Expected) -> float:
    """The peak signal-to-noise ratio in dB of two PNG files, made 32 x 32; infinite for the same.

    Slow: call it on a thread. Raises as `small`.
    """
    from PIL import ImageChops, ImageStat  # noqa: PLC0415  an optional package

    difference = ImageChops.difference(small(one, expected), small(other, expected))
    squares = [channel**2 for channel in ImageStat.Stat(difference).rms]
    mean = sum(squares) / len(squares)
    return inf if mean == 0 else 20 * log10(_WHITE) - 10 * log10(mean)


def small(png: bytes, expected: Expected) -> "Image.Image":
    """What is compared of an image. Slow.

    Raises DeliveredWrongly for what is no PNG of the size expected, before any pixel is decoded, and
    Undecodable for one that cannot be decoded.
    """
    sound = checked_png(png, expected)
    try:
        return _decoded(sound)
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001  of a stranger's bytes the decoder may raise anything
        raise Undecodable(f"an image cannot be decoded: {type(error).__name__}") from None


def _decoded(png: bytes) -> "Image.Image":
    from PIL import Image  # noqa: PLC0415  an optional package

    with Image.open(io.BytesIO(png), formats=["PNG"]) as image:
        return image.convert("RGB").resize((_SIDE, _SIDE), Image.Resampling.BOX)
