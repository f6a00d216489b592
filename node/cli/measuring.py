"""Takes the time of images made by a real engine, alone and several at once."""

import asyncio
import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from node.cli.trial import ignore, trial_engine, trial_job
from node.config.profiles import Sampling
from node.engine.backend import Engine
from node.engine.work import JobFailedError, ModelSpec


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure of a model: each size with each number of callers.

    `images` are made in each case at least, and as many as there are callers.
    """

    spec: ModelSpec
    sampling: Sampling
    sizes: Sequence[tuple[int, int]]
    callers: Sequence[int]
    images: int


@dataclass(frozen=True, slots=True)
class Case:
    """One measured case; `error` says why it could not be. Seconds are of all images together."""

    width: int
    height: int
    callers: int
    images: int
    seconds: float
    error: str = ""

    @property
    def pixels(self) -> int:
        return self.width * self.height * self.images

    def pace(self, steps: int) -> float:
        """Seconds per pixel and denoise step."""
        return self.seconds / self.pixels / steps


@dataclass(frozen=True, slots=True)
class Measurement:
    """All cases of a model, and how long it took to load."""

    plan: Plan
    load_seconds: float | None
    cases: tuple[Case, ...]


async def measure(plan: Plan, device: str, threads: int) -> Measurement:
    """Start an engine and measure. Raises JobFailedError where the model cannot be loaded."""
    seeds = itertools.count(1)
    cases: list[Case] = []
    async with trial_engine(plan.spec, device, threads) as engine:
        for number, (width, height) in enumerate(plan.sizes):
            try:
                # Whatever is done once for a size, such as compiling, is not in the figures.
                await _round(engine, plan, (width, height), seeds, callers=1, images=1, steps=1)
            except JobFailedError as error:
                state = engine.model(plan.spec.model_id)
                if number == 0 and (state is None or state.status != "ready"):
                    raise
                cases.append(Case(width, height, 1, 0, 0.0, error.message))
                continue
            cases += [
                await _case(engine, plan, (width, height), callers, seeds)
                for callers in plan.callers
            ]
        state = engine.model(plan.spec.model_id)
    return Measurement(plan, None if state is None else state.load_seconds, tuple(cases))


async def _case(
    engine: Engine, plan: Plan, size: tuple[int, int], callers: int, seeds: Iterator[int]
) -> Case:
    images = max(plan.images, callers)
    began = time.perf_counter()
    try:
        steps = plan.sampling.steps
        await _round(engine, plan, size, seeds, callers=callers, images=images, steps=steps)
    except JobFailedError as error:
        return Case(*size, callers, 0, 0.0, error.message)
    return Case(*size, callers, images, time.perf_counter() - began)


async def _round(
    engine: Engine,
    plan: Plan,
    size: tuple[int, int],
    seeds: Iterator[int],
    *,
    callers: int,
    images: int,
    steps: int,
) -> None:
    """`callers` callers make `images` images between them, each one image after the other."""
    left = iter(range(images))

    async def call() -> None:
        for _ in left:
            job = trial_job(plan.spec.model_id, *size, steps=steps, seed=next(seeds))
            await engine.generate(replace(job, guidance=plan.sampling.guidance), ignore)

    outcomes = await asyncio.gather(*(call() for _ in range(callers)), return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
