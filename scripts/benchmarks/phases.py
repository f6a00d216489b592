"""The measurements, each on its own: what is run, and what figures come of it."""

import asyncio
import itertools
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from network.units import ModelId
from node.engine.backend import Engine
from node.engine.work import ImageJob, ImageResult, Progress
from scripts.benchmarks.callers import Run, Target, call
from scripts.benchmarks.meter import Meter, Reading
from scripts.benchmarks.raw_process import RawLoop, Round, cpu_seconds, request_batching
from scripts.benchmarks.targets import EngineTarget
from scripts.benchmarks.wishes import Shape, Wish, alike, mixed

_LONG_STEPS: Final = 50
_LONG_JOBS: Final = 8
#: Decibels of two images that are the same; stands in for infinity, which JSON has no word for.
_IDENTICAL: Final = 100.0

Figures = dict[str, float | dict[str, int]]


@dataclass(slots=True)
class Comparison:
    """All rounds with so many callers: the target's, and the raw rounds around each."""

    callers: int
    runs: list[Run] = field(default_factory=list)
    readings: list[Reading] = field(default_factory=list)
    raw: list[Round] = field(default_factory=list)

    def add(self, before: Round, run: Run, reading: Reading, after: Round) -> None:
        self.runs.append(run)
        self.readings.append(reading)
        self.raw.append(
            Round(
                before.images + after.images,
                before.seconds + after.seconds,
                before.cpu_seconds + after.cpu_seconds,
            )
        )

    @property
    def ratio(self) -> float:
        """Images per second over the raw loop's."""
        pairs = zip(self.runs, self.raw, strict=True)
        return statistics.median(run.rate / raw.rate for run, raw in pairs)

    @property
    def cpu_ratio(self) -> float:
        """The raw loop's processor seconds for an image over the target's."""
        triples = zip(self.runs, self.readings, self.raw, strict=True)
        return statistics.median(
            (raw.cpu_seconds / raw.images) / (reading.cpu_seconds / run.images)
            for run, reading, raw in triples
        )

    @property
    def latencies(self) -> Run:
        """All rounds' latencies in one."""
        latencies = sorted(seconds for run in self.runs for seconds in run.latencies)
        return Run(tuple(latencies), sum(run.seconds for run in self.runs), {})

    @property
    def batches(self) -> Counter[int]:
        return sum((reading.batches for reading in self.readings), Counter[int]())

    def figures(self, prefix: str = "engine") -> Figures:
        """Return this comparison's keys."""
        n, together = self.callers, self.latencies
        step_seconds = sum(reading.step_seconds for reading in self.readings)
        whole = Reading(self.batches)
        return {
            f"{prefix}_images_per_s_{n}": statistics.median(run.rate for run in self.runs),
            f"{prefix}_over_raw_{n}": self.ratio,
            f"{prefix}_over_raw_cpu_{n}": self.cpu_ratio,
            f"{prefix}_p50_s_{n}": together.quantile(0.5),
            f"{prefix}_p95_s_{n}": together.quantile(0.95),
            f"{prefix}_p99_s_{n}": together.quantile(0.99),
            f"{prefix}_busy_{n}": step_seconds / together.seconds,
            f"{prefix}_mean_batch_{n}": whole.mean_batch,
            f"{prefix}_batches_{n}": {str(k): v for k, v in sorted(self.batches.items())},
            f"{prefix}_peak_resident_mb_{n}": _most(one.resident_bytes for one in self.readings),
            f"{prefix}_peak_device_mb_{n}": _most(one.device_bytes for one in self.readings),
        }


async def compare(
    target: Target,
    meter: Meter,
    raw: RawLoop,
    shape: Shape,
    callers: Sequence[int],
    *,
    seconds: float,
    images: int,
    cycles: int = 1,
) -> list[Comparison]:
    """Alternate raw and target rounds until `seconds` are over, and at least so many `cycles`."""
    comparisons = {count: Comparison(count) for count in callers}
    wishes = alike(shape)
    await call(target, 2, wishes, 4)
    await raw.one_by_one(_some(wishes, 2))
    await meter.settle()
    # One caller is the finest comparison and shows the least noise when it is made often.
    cycle = [one for count in callers for one in (callers[0], count)] if seconds else callers
    ends = time.perf_counter() + seconds
    before = await raw.one_by_one(_some(wishes, images))
    while len(comparisons[callers[-1]].runs) < cycles or time.perf_counter() < ends:
        for count in cycle:
            async with meter.reading() as reading:
                run = await call(target, count, wishes, max(images, count))
            after = await raw.one_by_one(_some(wishes, images))
            comparisons[count].add(before, run, reading, after)
            before = after
    return list(comparisons.values())


async def ceiling(raw: RawLoop, shape: Shape, sizes: Sequence[int], repeats: int) -> Figures:
    """Images per second of the raw pipeline by batch size: what the machine itself can do.

    Each time and size as many images as the largest size has, twice. `raw_batched_N` is its gain
    by batches of N over one by one, `raw_batched_cpu_N` the same by processor time.
    """
    wishes = alike(shape)
    rounds: dict[int, list[Round]] = {size: [] for size in sizes}
    for _ in range(repeats):
        for size in sizes:
            calls = [_some(wishes, size) for _ in range(2 * max(sizes) // size)]
            rounds[size].append(await raw.run(calls))
    best = {size: max(one.rate for one in made) for size, made in rounds.items()}
    effort = {size: min(one.cpu_seconds for one in made) for size, made in rounds.items()}
    first = sizes[0]
    figures: Figures = {f"raw_batch_images_per_s_{n}": rate for n, rate in best.items()}
    figures |= {f"raw_batched_{n}": rate / best[first] for n, rate in best.items()}
    figures |= {f"raw_batched_cpu_{n}": effort[first] / used for n, used in effort.items()}
    return figures | {"ceiling_over_raw": max(best.values()) / best[first]}


async def against_request_batching(
    target: Target, raw: RawLoop, shape: Shape, *, callers: int, images: int, most: int
) -> tuple[Run, Run]:
    """Run the same wishes on the target, and on requests in batches of `most`."""
    engine = await call(target, callers, alike(shape), images)
    async with request_batching(raw, most) as batching:
        return engine, await call(batching, callers, alike(shape), images)


async def mixture(
    target: Target,
    raw: RawLoop,
    worker_pid: Callable[[], int | None],
    shape: Shape,
    *,
    multiple: int,
    callers: int,
    images: int,
    repeats: int,
) -> Figures:
    """Sizes and step counts mixed: where batching requests finds little to batch.

    Ratios are medians over the repeats, the first of which also learns how to batch these shapes.
    """
    wishes = (mixed(shape, multiple), mixed(shape, multiple), mixed(shape, multiple))
    runs: list[tuple[Run, Run, Run]] = []
    over_raw_cpu = []
    for _ in range(repeats):
        used = cpu_seconds(worker_pid())
        engine = await call(target, callers, wishes[0], images)
        used = cpu_seconds(worker_pid()) - used
        async with request_batching(raw, 8) as batching:
            batched = await call(batching, callers, wishes[1], images)
        raw_used = raw.cpu_seconds()
        async with request_batching(raw, 1) as queue:
            single = await call(queue, callers, wishes[2], images)
        raw_used = raw.cpu_seconds() - raw_used
        runs.append((engine, batched, single))
        over_raw_cpu.append(raw_used / used)
    engine, batched, single = runs[-1]
    return {
        "mixed_images_per_s": engine.rate,
        "mixed_over_raw": statistics.median(one.rate / plain.rate for one, _, plain in runs),
        "mixed_over_raw_cpu": statistics.median(over_raw_cpu),
        "mixed_over_request_batching": statistics.median(
            one.rate / other.rate for one, other, _ in runs
        ),
        "mixed_p50_s": engine.quantile(0.5),
        "mixed_p95_s": engine.quantile(0.95),
        "mixed_p99_s": engine.quantile(0.99),
        "mixed_raw_p50_s": single.quantile(0.5),
        "mixed_raw_p95_s": single.quantile(0.95),
        "mixed_request_batching_p50_s": batched.quantile(0.5),
        "mixed_request_batching_p95_s": batched.quantile(0.95),
    }


async def short_behind_long(
    engine: Engine, model: ModelId, *, long: Shape, short: Shape, repeats: int
) -> Figures:
    """A short job that comes when eight long ones are under way: its time over its time alone."""
    target, wishes = EngineTarget(engine, model), alike(short)
    alone = (await call(target, 1, wishes, 3)).quantile(0.5)
    long = Shape(long.width, long.height, _LONG_STEPS)
    behind = []
    for _ in range(repeats):
        running = await _under_way(engine, [Wish(long, n).job(model) for n in range(_LONG_JOBS)])
        behind.append((await call(target, 1, wishes, 1)).seconds)
        unfinished = sum(not task.done() for task in running)
        for task in running:
            task.cancel()
        await asyncio.wait(running)
        if unfinished < _LONG_JOBS:
            raise RuntimeError(
                "the long jobs were done before the short one: nothing was measured"
            )
    return {
        "long_jobs": _LONG_JOBS,
        "short_alone_s": alone,
        "short_behind_long_s": statistics.median(behind),
        "short_behind_long": statistics.median(behind) / alone,
    }


async def _under_way(
    engine: Engine, jobs: Sequence[ImageJob]
) -> "list[asyncio.Task[ImageResult]]":
    """Start jobs and return when each has taken its first step."""
    to_begin = {job.job_id for job in jobs}
    all_begun = asyncio.Event()

    def on_progress(progress: Progress) -> None:
        if progress.done_steps:
            to_begin.discard(progress.job_id)
        if not to_begin:
            all_begun.set()

    running = [asyncio.create_task(engine.generate(job, on_progress)) for job in jobs]
    await all_begun.wait()
    return running


async def previews(target: Target, shape: Shape, images: int) -> Figures:
    """Time to the first preview, and how long after the news of the first step it came.

    The first image is made unmeasured: the worker may still be learning what its latents look like.
    """
    wishes = alike(shape)
    await call(target, 1, wishes, 1, watch=True)
    run = await call(target, 1, wishes, images, watch=True)
    pairs = [(one.step, one.preview) for one in run.made.values()]
    seen = [(step, preview) for step, preview in pairs if step is not None and preview is not None]
    figures: Figures = {"previews_seen": len(seen) / len(pairs)}
    if seen:
        figures["first_preview_s"] = statistics.median(preview for _, preview in seen)
        lags = [1000 * (preview - step) for step, preview in seen]
        figures["first_preview_lag_ms"] = statistics.median(lags)
    return figures


async def likeness(target: Target, shape: Shape, images: int) -> Figures:
    """How much images that were made together differ from those made alone."""
    alone = await call(target, 1, itertools.islice(alike(shape), images), images)
    together = await call(target, images, itertools.islice(alike(shape), images), images)
    decibels = [
        psnr(_pixels(made.png), _pixels(together.made[wish].png))
        for wish, made in alone.made.items()
    ]
    return {
        "psnr_batched_db": min(decibels),
        "identical_batched": sum(one == _IDENTICAL for one in decibels) / len(decibels),
    }


def psnr(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    """Return the peak signal-to-noise ratio of two images in decibels, at most `_IDENTICAL`."""
    error = float(np.square(one.astype(np.float64) - other).mean())
    if not error:
        return _IDENTICAL
    return min(_IDENTICAL, float(10 * np.log10(255**2 / error)))


async def first_image(target: Target, shape: Shape, began: float) -> float:
    """Seconds from the worker's start, at `began`, to its first image."""
    await call(target, 1, alike(shape), 1)
    return time.perf_counter() - began


async def solo_seconds(target: Target, shape: Shape) -> float:
    """Seconds of one image alone, the better of two."""
    return (await call(target, 1, alike(shape), 2)).latencies[0]


def _pixels(png: bytes) -> NDArray[np.uint8]:
    return np.asarray(Image.open(BytesIO(png)))


def _some(wishes: Iterator[Wish], count: int) -> list[Wish]:
    return list(itertools.islice(wishes, count))


def _most(values: Iterator[int]) -> float:
    return max(values, default=0) / 1e6
