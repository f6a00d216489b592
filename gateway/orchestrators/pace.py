"""How long work takes: measured at each orchestrator, and believed of those that were not measured.

Both by model and by size of image. The time for a pixel is not the same at every size: attention
grows faster than the pixels, and small images are mostly overhead.
"""

from bisect import bisect_left, insort
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from types import MappingProxyType
from typing import Final

import msgspec

from network.units import ModelId

#: Size classes are powers of two; nothing that is sold is larger than the last.
CLASSES: Final = 25
#: Steps at a class's smallest size that are remembered, about four jobs.
_WINDOW_STEPS: Final = 80
#: What is believed of those who were not measured is what so many in a hundred of the others do
#: not surpass: with the middle, better strangers would be left untried; the very best would send
#: everybody's first jobs to the slowest.
_PERCENT: Final = 15


def size_class(pixels: int) -> int:
    """The class of one image. Pixels of one class differ less than twofold."""
    return min(pixels.bit_length(), CLASSES - 1)


class Pace(msgspec.Struct, frozen=True):
    """The time recent work took. Work counts by its size."""

    #: Femtoseconds.
    time: int
    #: Pixels times steps.
    work: int

    @property
    def per_pixel_step(self) -> int:
        """Femtoseconds."""
        return max(self.time // self.work, 1)

    def then(self, newer: "Pace", window: int) -> "Pace":
        """Both, of which no more work is remembered than `window`, the oldest least."""
        time, work = self.time + newer.time, self.work + newer.work
        return Pace(time, work) if work <= window else Pace(time * window // work, window)


@dataclass(frozen=True)
class Paces:
    """One orchestrator at one model, by size class."""

    by_class: Mapping[int, Pace]

    @classmethod
    def none(cls) -> "Paces":
        return cls(MappingProxyType({}))

    def then(self, size: int, newer: Pace) -> "Paces":
        known = self.by_class.get(size)
        window = _WINDOW_STEPS << max(size - 1, 0)
        pace = newer if known is None else known.then(newer, window)
        return Paces(MappingProxyType({**self.by_class, size: pace}))

    def at(self, size: int) -> int | None:
        """Femtoseconds per pixel and step; None where this size was not measured."""
        pace = self.by_class.get(size)
        return None if pace is None else pace.per_pixel_step

    @cached_property
    def table(self) -> tuple[int, ...]:
        """Femtoseconds per pixel and step at every class; empty where nothing was measured."""
        return spread({size: pace.per_pixel_step for size, pace in self.by_class.items()})


def spread(known: Mapping[int, int]) -> tuple[int, ...]:
    """A figure for every class: its own, or that of the nearest class, of two the larger one's."""
    sizes = sorted(known)
    # From halfway between two on, the larger one is no farther.
    ends = [(size + larger + 1) // 2 for size, larger in pairwise(sizes)]
    figures: list[int] = []
    for size, end in zip(sizes, [*ends, CLASSES], strict=False):
        figures += [known[size]] * (end - len(figures))
    return tuple(figures)


class Figures:
    """One figure of many orchestrators, kept in order."""

    def __init__(self) -> None:
        self._of: dict[str, int] = {}
        self._order: list[int] = []

    def put(self, uri: str, figure: int) -> None:
        self.remove(uri)
        self._of[uri] = figure
        insort(self._order, figure)

    def remove(self, uri: str) -> None:
        old = self._of.pop(uri, None)
        if old is not None:
            del self._order[bisect_left(self._order, old)]

    def at(self, percent: int, usual: int) -> int:
        """What so many in a hundred are below, `usual` being one of them."""
        order = self._order
        place = (len(order) + 1) * percent // 100
        before = bisect_left(order, usual)
        if place == before:
            return usual
        return order[place] if place < before else order[place - 1]


class Beliefs:
    """What is believed of orchestrators that were not measured: what the others turned out to do.

    Where nobody was measured, and as one among those who were, the usual figures count: one slow
    orchestrator must not make all strangers look slow.
    """

    def __init__(self, usual_pace: int, usual_load: int) -> None:
        """Femtoseconds per pixel and step, and femtoseconds."""
        self._usual_pace = usual_pace
        self._usual_load = usual_load
        self._paces: dict[ModelId, dict[int, Figures]] = {}
        self._loads: dict[ModelId, Figures] = {}
        self._nobodys = (usual_pace,) * CLASSES
        #: Answers of `paces` that still hold.
        self._tables: dict[ModelId, tuple[int, ...]] = {}

    def learn_pace(self, uri: str, model_id: ModelId, size: int, pace: int) -> None:
        """Femtoseconds per pixel and step."""
        sizes = self._paces.setdefault(model_id, {})
        sizes.setdefault(size, Figures()).put(uri, pace)
        self._tables.pop(model_id, None)

    def learn_load(self, uri: str, model_id: ModelId, load: int) -> None:
        """Femtoseconds."""
        self._loads.setdefault(model_id, Figures()).put(uri, load)

    def forget(self, uri: str) -> None:
        for figures in self._all():
            figures.remove(uri)
        self._tables.clear()

    def paces(self, model_id: ModelId) -> tuple[int, ...]:
        """At every size class."""
        table = self._tables.get(model_id)
        if table is None:
            sizes = self._paces.get(model_id)
            if sizes is None:
                return self._nobodys
            usual = self._usual_pace
            table = spread({size: one.at(_PERCENT, usual) for size, one in sizes.items()})
            self._tables[model_id] = table
        return table

    def load(self, model_id: ModelId) -> int:
        """Femtoseconds."""
        figures = self._loads.get(model_id)
        return self._usual_load if figures is None else figures.at(_PERCENT, self._usual_load)

    def _all(self) -> Iterable[Figures]:
        yield from self._loads.values()
        for sizes in self._paces.values():
            yield from sizes.values()
