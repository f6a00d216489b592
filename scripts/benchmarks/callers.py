"""Callers that keep something busy, each asking for the next image when it has the last one."""

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

from scripts.benchmarks.wishes import Wish


@dataclass(frozen=True, slots=True)
class Made:
    """One image. `step` and `preview` are seconds from the asking to the first of each."""

    png: bytes = field(repr=False)
    step: float | None = None
    preview: float | None = None


class Target(Protocol):
    """Makes images for callers."""

    async def make(self, wish: Wish, *, watch: bool = False) -> Made:
        """Make one image; if `watch`, look at its previews meanwhile."""


@dataclass(frozen=True, slots=True)
class Run:
    """What callers got: sorted latencies in seconds, all of the time, and the images by wish."""

    latencies: tuple[float, ...]
    seconds: float
    made: dict[Wish, Made] = field(repr=False)

    @property
    def images(self) -> int:
        return len(self.latencies)

    @property
    def rate(self) -> float:
        """Images per second."""
        return self.images / self.seconds

    def quantile(self, share: float) -> float:
        """The latency at `share` (nearest rank), in seconds."""
        return self.latencies[min(int(self.images * share), self.images - 1)]


async def call(
    target: Target, callers: int, wishes: Iterator[Wish], images: int, *, watch: bool = False
) -> Run:
    """Have `callers` callers make `images` images between them."""
    latencies: list[float] = []
    made: dict[Wish, Made] = {}
    left = iter(range(images))

    async def keep_asking() -> None:
        for _ in left:
            wish = next(wishes)
            asked = time.perf_counter()
            made[wish] = await target.make(wish, watch=watch)
            latencies.append(time.perf_counter() - asked)

    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(callers):
            group.create_task(keep_asking())
    return Run(tuple(sorted(latencies)), time.perf_counter() - began, made)
