"""Small JPEG pictures for previews."""

from io import BytesIO
from typing import Final

import numpy as np
from numpy.typing import NDArray

LONGEST_SIDE: Final = 256
_QUALITY: Final = 80


def preview_size(width: int, height: int) -> tuple[int, int]:
    """Return the size of an image's preview: the image's own, or the longest side that may be."""
    scale = min(1.0, LONGEST_SIDE / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def encode_preview(pixels: NDArray[np.uint8], size: tuple[int, int]) -> bytes:
    """Scale `(height, width, 3)` RGB pixels to `size`, (width, height), and encode them."""
    from PIL import Image  # noqa: PLC0415  not while the worker starts

    file = BytesIO()
    picture = Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)
    picture.save(file, format="JPEG", quality=_QUALITY)
    return file.getvalue()
