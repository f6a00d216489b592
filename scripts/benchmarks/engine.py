"""The engine's images per second over those of diffusers' own pipeline in a plain loop.

Both run the same model with the same seeds, threads and environment, each in a process of its own,
never at the same time: raw and engine rounds alternate, and each engine round is compared with the
raw rounds right before and after it. The PNG encode counts on both sides, with the same encoder.
"1", "4" and "16" are the callers that keep the engine busy at once; the raw loop has no callers and
always makes one image after another. Processor seconds stand beside wall seconds, because other
work on the machine disturbs those less. The last line is one JSON object.
"""

import argparse
import asyncio
import itertools
import json
import logging
import os
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil
import structlog
import uvloop
from rich.console import Console
from rich.table import Table

from network.runtime.clock import SystemClock
from network.units import JobId, ModelId
from node.engine.backend import Engine, open_process_engine
from node.engine.launch import worker_environment
from node.engine.options import EngineOptions
from node.engine.work import ImageJob, ModelSpec, Progress
from scripts.benchmarks.raw_loop import PROMPT

ROOT = Path(__file__).resolve().parents[2]
MODEL = ModelId("limner/shapes")
CALLERS = (1, 4, 16)
#: The rounds of a cycle by their callers, a raw round between any two. One caller is the finest
#: comparison and shows the least noise when it is made often.
CYCLE = (1, 4, 1, 16, 1, 4)


@dataclass(frozen=True, slots=True)
class Shape:
    """What every image of the comparison is."""

    width: int
    height: int
    steps: int

    def job(self, seed: int) -> ImageJob:
        return ImageJob(
            JobId(f"bench {seed}"),
            MODEL,
            (PROMPT,),
            self.width,
            self.height,
            self.steps,
            7.5,
            (seed,),
        )


@dataclass(frozen=True, slots=True)
class Round:
    """So many images in so many seconds, on the wall and of the processor."""

    images: int
    seconds: float
    cpu_seconds: float

    @property
    def rate(self) -> float:
        return self.images / self.seconds


class RawLoop:
    """The yardstick's process, silent between rounds."""

    def __init__(self, model: Path, shape: Shape, threads: int) -> None:
        self._command = (
            sys.executable,
            *("-W", "ignore", "-m", "scripts.benchmarks.raw_loop", str(model)),
            *(str(number) for number in (shape.width, shape.height, shape.steps)),
        )
        self._environment = worker_environment(os.environ, threads)

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            *self._command,
            cwd=ROOT,
            env=self._environment,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        await self._answer()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.kill()
        await self._process.wait()

    async def run(self, images: int) -> Round:
        before = cpu_seconds(self._process.pid)
        if self._process.stdin is None:
            raise RuntimeError("a pipe was asked for")
        self._process.stdin.write(f"{images}\n".encode())
        seconds = (await self._answer())["seconds"]
        return Round(images, seconds, cpu_seconds(self._process.pid) - before)

    async def _answer(self) -> dict[str, float]:
        if self._process.stdout is None:
            raise RuntimeError("a pipe was asked for")
        line = await self._process.stdout.readline()
        if not line:
            raise RuntimeError("the raw loop ended; run it by hand to see why")
        answer: dict[str, float] = json.loads(line)
        return answer


def cpu_seconds(pid: int | None) -> float:
    """Processor seconds that a process has used so far, all threads."""
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def ignore(progress: Progress) -> None:
    """Take progress as every real caller does, and do nothing with it."""


async def engine_round(
    engine: Engine, shape: Shape, seeds: "itertools.count[int]", callers: int, images: int
) -> Round:
    """`callers` callers make `images` images between them, each one image after the other."""
    left = iter(range(images))

    async def call() -> None:
        for _ in left:
            await engine.generate(shape.job(next(seeds)), ignore)

    before = cpu_seconds(engine.worker_pid())
    began = time.perf_counter()
    await asyncio.gather(*(call() for _ in range(callers)))
    seconds = time.perf_counter() - began
    return Round(images, seconds, cpu_seconds(engine.worker_pid()) - before)


@dataclass(slots=True)
class Comparison:
    """All rounds with so many callers: the engine's, and the raw rounds around each."""

    callers: int
    engine: list[Round] = field(default_factory=list)
    raw: list[float] = field(default_factory=list)
    raw_cpu: list[float] = field(default_factory=list)

    def add(self, before: Round, measured: Round, after: Round) -> None:
        self.engine.append(measured)
        images = before.images + after.images
        self.raw.append(images / (before.seconds + after.seconds))
        self.raw_cpu.append((before.cpu_seconds + after.cpu_seconds) / images)

    @property
    def ratio(self) -> float:
        pairs = zip(self.engine, self.raw, strict=True)
        return statistics.median(measured.rate / raw for measured, raw in pairs)

    @property
    def cpu_ratio(self) -> float:
        """The raw loop's processor seconds for an image over the engine's."""
        pairs = zip(self.engine, self.raw_cpu, strict=True)
        return statistics.median(raw * one.images / one.cpu_seconds for one, raw in pairs)


async def compare(
    engine: Engine, raw: RawLoop, shape: Shape, seconds: float, images: int
) -> list[Comparison]:
    """Alternate raw and engine rounds until `seconds` are over, at least once."""
    comparisons = {callers: Comparison(callers) for callers in CALLERS}
    seeds = itertools.count(1)
    for callers in (1, 2):
        await engine_round(engine, shape, seeds, callers, 2)
    await raw.run(2)
    ends = time.perf_counter() + seconds
    before = await raw.run(images)
    while not comparisons[1].engine or time.perf_counter() < ends:
        for callers in CYCLE:
            count = max(images, callers)
            measured = await engine_round(engine, shape, seeds, callers, count)
            after = await raw.run(images)
            comparisons[callers].add(before, measured, after)
            before = after
    return list(comparisons.values())


async def first_image(engine: Engine, shape: Shape, began: float) -> float:
    """Seconds from the worker's start to its first image."""
    await engine.generate(shape.job(0), ignore)
    return time.perf_counter() - began


async def solo_seconds(engine: Engine, shape: Shape) -> float:
    """Seconds of one image alone, the better of two."""
    times = []
    for seed in range(2):
        began = time.perf_counter()
        await engine.generate(shape.job(seed), ignore)
        times.append(time.perf_counter() - began)
    return min(times)


async def run(options: argparse.Namespace) -> dict[str, float]:
    shape = Shape(options.width, options.height, options.steps)
    specs = [ModelSpec(MODEL, options.model)]
    engine_options = EngineOptions(threads=options.threads)
    began = time.perf_counter()
    async with open_process_engine(
        specs, device="cpu", clock=SystemClock(), options=engine_options
    ) as engine:
        figures = {"first_image_s": await first_image(engine, shape, began)}
        figures["solo_s"] = await solo_seconds(engine, shape)
        figures["solo_1024x576_50_s"] = await solo_seconds(engine, Shape(1024, 576, 50))
        async with RawLoop(options.model, shape, options.threads) as raw:
            comparisons = await compare(engine, raw, shape, options.seconds, options.images)
        figures["worker_resident_mb"] = engine.resident_bytes() / 1e6
    raw_rates = [rate for comparison in comparisons for rate in comparison.raw]
    figures["raw_images_per_s"] = statistics.median(raw_rates)
    for one in comparisons:
        rates = [measured.rate for measured in one.engine]
        figures[f"engine_images_per_s_{one.callers}"] = statistics.median(rates)
        figures[f"engine_over_raw_{one.callers}"] = one.ratio
        figures[f"engine_over_raw_cpu_{one.callers}"] = one.cpu_ratio
    return figures


def print_table(figures: dict[str, float], shape: str) -> None:
    table = Table(title=f"engine against the raw diffusers loop, {shape}, CPU, PNG included")
    for column in ("callers", "raw images/s", "engine images/s", "engine/raw", "by CPU time"):
        table.add_column(column, justify="right")
    for callers in CALLERS:
        table.add_row(
            str(callers),
            f"{figures['raw_images_per_s']:.3f}",
            f"{figures[f'engine_images_per_s_{callers}']:.3f}",
            f"{figures[f'engine_over_raw_{callers}']:.3f}",
            f"{figures[f'engine_over_raw_cpu_{callers}']:.3f}",
        )
    console = Console(width=100)
    console.print(table)
    console.print(
        f"start to first image {figures['first_image_s']:.1f} s, "
        f"one image alone {figures['solo_s']:.2f} s, "
        f"1024 x 576 with 50 steps {figures['solo_1024x576_50_s']:.2f} s, "
        f"worker {figures['worker_resident_mb']:.0f} MB"
    )


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="scripts/bench engine", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print the JSON line alone")
    parser.add_argument("--seconds", type=float, default=120, help="of comparing (default 120)")
    parser.add_argument("--images", type=int, default=2, help="of a round (default 2)")
    parser.add_argument("--threads", type=int, default=0, help="default: one a core")
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--height", type=int, default=512)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument(
        "--model", type=Path, default=ROOT / "node" / "builtin" / "shapes", help="a model folder"
    )
    options = parser.parse_args(arguments)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    figures = uvloop.run(run(options))
    if not options.json:
        print_table(figures, f"{options.width} x {options.height}, {options.steps} steps")
    print(json.dumps({name: round(value, 4) for name, value in figures.items()}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
