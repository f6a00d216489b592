"""What the engine's benchmark asks for."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from typing_extensions import override

from network.units import JobId, ModelId
from node.engine.work import ImageJob

PROMPT: Final = "a small red circle on a blue background"
GUIDANCE = 7.5
_counter = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Shape:
    """Pixels and denoise steps of an image."""

    width: int
    height: int
    steps: int

    @override
    def __str__(self) -> str:
        return f"{self.width} x {self.height}, {self.steps} steps"


#: By model: what is usually asked of it, and the smallest image that is worth having.
SHAPES: Final = {
    "builtin": (Shape(512, 512, 20), Shape(256, 256, 10)),
    "sd15": (Shape(512, 512, 20), Shape(256, 256, 10)),
    "sdxl": (Shape(1024, 1024, 20), Shape(512, 512, 10)),
    "tiny": (Shape(256, 256, 10), Shape(128, 128, 10)),
}


@dataclass(frozen=True, slots=True)
class Wish:
    """One image to make."""

    shape: Shape
    seed: int

    @property
    def prompt(self) -> str:
        """Its own one, so that nobody finds it encoded already."""
        return f"{PROMPT}, number {self.seed}"

    def job(self, model: ModelId) -> ImageJob:
        """As a job of the engine, with an id of its own."""
        shape = self.shape
        return ImageJob(
            job_id=JobId(f"bench-{next(_counter):016d}"),
            model_id=model,
            prompts=(self.prompt,),
            width=shape.width,
            height=shape.height,
            steps=shape.steps,
            guidance=GUIDANCE,
            seeds=(self.seed,),
            safety_check=False,
        )


def alike(shape: Shape) -> Iterator[Wish]:
    """Images of one shape, each with a seed of its own, without end."""
    return (Wish(shape, seed) for seed in itertools.count(1))


def mixed(shape: Shape, multiple: int) -> Iterator[Wish]:
    """Images of four sizes and three step counts, evenly mixed, without end; `shape` is largest."""

    def side(length: int, share: float) -> int:
        return max(multiple, int(length * share) // multiple * multiple)

    sizes = [(1.0, 1.0), (0.5, 0.5), (1.0, 0.5), (0.75, 0.75)]
    steps = [shape.steps, max(1, shape.steps // 2), max(1, shape.steps * 3 // 4)]
    # Sizes and steps take turns in rows of coprime lengths, so every pair comes once in twelve.
    for number in itertools.count():
        wide, high = sizes[number % len(sizes)]
        chosen = Shape(
            side(shape.width, wide), side(shape.height, high), steps[number % len(steps)]
        )
        yield Wish(chosen, number + 1)
