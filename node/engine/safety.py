"""Where a safety checker plugs into the worker. None ships yet, so nothing is ever flagged."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class SafetyChecker(Protocol):
    """Looks at finished images, on the finishing thread."""

    def is_unsafe(self, pixels: NDArray[np.uint8]) -> bool:
        """Judge one picture, `(height, width, 3)`, RGB."""
