"""How large a usual job is, by model: tickets are made out so that about one pays for it. Pure."""

from collections.abc import Collection, Mapping
from typing import Final

from network.units import ModelId, Pixels

#: What is taken for usual before anything else is known.
MEGAPIXEL: Final = Pixels(1024 * 1024)
#: The weight of one job against those before it.
_MEMORY: Final = 16


class UsualJobs:
    """Begins with what a model was trained for, and moves toward what is asked of it."""

    def __init__(self, native: Mapping[ModelId, Pixels]) -> None:
        self._usual = dict(native)

    def saw(self, model_id: ModelId, pixels: Pixels) -> None:
        """Take a job into account; `pixels` counts every image."""
        before = self._usual.get(model_id, MEGAPIXEL)
        self._usual[model_id] = Pixels(max(1, before + (pixels - before) // _MEMORY))

    def pixels(self, models: Collection[ModelId]) -> Pixels:
        """Return a usual job of the largest of `models`."""
        sizes = [self._usual.get(model_id, MEGAPIXEL) for model_id in models]
        return max(sizes, default=MEGAPIXEL)
