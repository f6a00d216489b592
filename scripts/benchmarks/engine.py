"""The engine against diffusers' own pipeline in a plain loop, and against batching requests.

All run the same model with the same seeds, threads and environment, each in a process of its own,
never at the same time: raw and engine rounds alternate, and each engine round is compared with the
raw rounds right before and after it. Both do the same work: each image's own prompt is encoded, and
the PNG by the same encoder; no image is checked for safety.
"1", "4", "8", "16" and "64" are the callers that keep the engine busy at once; the raw loop has no
callers and always makes one image after another. Processor seconds stand beside wall seconds,
because other work on the machine disturbs those less. The last line is one JSON object.
"""

import argparse
import asyncio
import json
import logging
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog
import uvloop

from network.runtime.clock import SystemClock
from network.units import ModelId
from node.engine.backend import Engine, open_process_engine
from node.engine.options import EngineOptions
from node.engine.work import ModelSpec
from scripts.benchmarks import phases
from scripts.benchmarks.meter import Meter
from scripts.benchmarks.phases import Comparison, Figures
from scripts.benchmarks.raw_process import RawLoop
from scripts.benchmarks.report import print_report
from scripts.benchmarks.targets import EngineTarget, node_target
from scripts.benchmarks.wishes import SHAPES, Shape

ROOT: Final = Path(__file__).resolve().parents[2]
_BUILTIN: Final = ROOT / "node" / "builtin" / "shapes"
_MODEL: Final = ModelId("limner/shapes")
_BATCHES: Final = (1, 2, 4, 8)
_BATCH_CALLERS: Final = 16
_CALLERS: Final = (1, 4, 8, 16, 64)
_FEW_CALLERS: Final = (1, 8)
_MULTIPLE: Final = 64  # of pixels, which sides of every model here may be
_DEFAULT_SHAPE: Final = Shape(1024, 576, 50)  # what Livepeer's clients ask for


@dataclass(frozen=True, slots=True)
class Plan:
    """What is measured, and how long."""

    path: Path
    device: str
    threads: int
    shape: Shape
    small: Shape
    callers: tuple[int, ...]
    http_callers: tuple[int, ...]
    seconds: float
    images: int
    repeats: int
    quick: bool

    @property
    def nvml_index(self) -> int | None:
        """Return the GPU's index, None on a CPU."""
        return int(self.device.partition(":")[2] or 0) if "cuda" in self.device else None


async def run(plan: Plan) -> Figures:
    """Measure everything there is to measure."""
    async with RawLoop(plan.path, plan.device, plan.threads) as raw:
        figures = await in_process(plan, raw)
        figures |= await over_http(plan, raw)
        figures["raw_peak_device_mb"] = raw.device_bytes / 1e6
    return figures


async def in_process(plan: Plan, raw: RawLoop) -> Figures:
    """Measure the engine by itself."""
    options = EngineOptions(threads=plan.threads)
    specs = [ModelSpec(_MODEL, plan.path)]
    began = time.perf_counter()
    async with open_process_engine(
        specs, device=plan.device, clock=SystemClock(), options=options
    ) as engine:
        target = EngineTarget(engine, _MODEL)
        figures: Figures = {
            "first_image_s": await phases.first_image(target, plan.shape, began),
            "solo_s": await phases.solo_seconds(target, plan.shape),
        }
        if not plan.quick:
            solo = await phases.solo_seconds(target, _DEFAULT_SHAPE)
            figures["solo_1024x576_50_s"] = solo
        figures |= await phases.previews(target, plan.shape, 3 * plan.repeats)
        figures |= await phases.likeness(target, plan.shape, 4 if plan.quick else 8)
        figures |= await _compared(plan, raw, engine, target)
        figures |= await phases.ceiling(raw, plan.shape, _BATCHES, plan.repeats)
        figures |= await _beside_request_batching(plan, raw, engine, target)
        figures |= await phases.short_behind_long(
            engine, _MODEL, long=plan.shape, short=plan.small, repeats=plan.repeats
        )
        await asyncio.sleep(1.2)  # one heartbeat
        figures["worker_resident_mb"] = engine.resident_bytes() / 1e6
    return figures


async def _compared(plan: Plan, raw: RawLoop, engine: Engine, target: EngineTarget) -> Figures:
    meter = Meter(engine.tally, engine.worker_pid, plan.nvml_index)
    comparisons = await phases.compare(
        target,
        meter,
        raw,
        plan.shape,
        plan.callers,
        seconds=plan.seconds,
        images=plan.images,
        cycles=plan.repeats,
    )
    figures = _joined(comparisons, "engine")
    rates = [one.rate for comparison in comparisons for one in comparison.raw]
    figures["raw_images_per_s"] = statistics.median(rates)
    for memory in ("resident", "device"):
        peaks = [
            reading.resident_bytes if memory == "resident" else reading.device_bytes
            for comparison in comparisons
            for reading in comparison.readings
        ]
        figures[f"peak_{memory}_mb"] = max(peaks) / 1e6
    return figures


async def _beside_request_batching(
    plan: Plan, raw: RawLoop, engine: Engine, target: EngineTarget
) -> Figures:
    callers = 8 if plan.quick else _BATCH_CALLERS
    images = callers if plan.quick else 2 * callers
    alike, batched = await phases.against_request_batching(
        target, raw, plan.shape, callers=callers, images=images, most=max(_BATCHES)
    )
    figures: Figures = {
        "request_batching_images_per_s": batched.rate,
        "request_batching_p50_s": batched.quantile(0.5),
        "request_batching_p95_s": batched.quantile(0.95),
        "engine_over_request_batching": alike.rate / batched.rate,
    }
    return figures | await phases.mixture(
        target,
        raw,
        engine.worker_pid,
        plan.shape,
        multiple=_MULTIPLE,
        callers=callers,
        images=16,
        repeats=3,
    )


async def over_http(plan: Plan, raw: RawLoop) -> Figures:
    """Measure the engine behind a node's port."""
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="limner-bench-"))
        engine = {"device": plan.device, "threads": plan.threads}
        target = await stack.enter_async_context(
            node_target(Path(folder), _MODEL, plan.path, engine)
        )
        comparisons = await phases.compare(
            target,
            Meter(target.engine.tally, target.engine.worker_pid, plan.nvml_index),
            raw,
            plan.shape,
            plan.http_callers,
            seconds=plan.seconds / 4,
            images=plan.images,
            cycles=plan.repeats,
        )
        figures = _joined(comparisons, "http")
        seen = await phases.previews(target, plan.shape, 3 * plan.repeats)
        return figures | {f"http_{name}": value for name, value in seen.items()}


def _joined(comparisons: Sequence[Comparison], prefix: str) -> Figures:
    figures: Figures = {}
    for comparison in comparisons:
        figures |= comparison.figures(prefix)
    return figures


async def build_model(name: str, folder: Path, device: str) -> Path:
    """Draw a model of a named architecture, in a process of its own that frees the device."""
    command = ("-W", "ignore", "-m", "scripts.benchmarks.architectures", name, str(folder), device)
    process = await asyncio.create_subprocess_exec(
        sys.executable, *command, cwd=ROOT, stderr=asyncio.subprocess.DEVNULL
    )
    if await process.wait():
        raise SystemExit(f"cannot build {name} on {device}; run `python {' '.join(command)}`")
    return folder


async def main_on(options: argparse.Namespace) -> tuple[Plan, Figures]:
    """Find or make the model, and measure it."""
    native, small = SHAPES[options.architecture]
    if options.quick:
        native = Shape(small.width, small.height, 4)
    shape = Shape(
        options.width or native.width,
        options.height or native.height,
        options.steps or native.steps,
    )
    with tempfile.TemporaryDirectory(prefix="limner-bench-") as folder:
        path = options.model or _BUILTIN
        if options.architecture != "builtin":
            path = options.model or await build_model(
                options.architecture, Path(folder) / options.architecture, options.device
            )
        callers = tuple(options.callers or (_FEW_CALLERS if options.quick else _CALLERS))
        plan = Plan(
            path=path,
            device=options.device,
            threads=options.threads,
            shape=shape,
            small=small,
            callers=callers,
            http_callers=callers[:1] if options.quick else callers,
            seconds=0 if options.quick else options.seconds,
            images=options.images or (8 if options.quick else 2),
            repeats=2 if options.quick else 3,
            quick=options.quick,
        )
        return plan, await run(plan)


def parser() -> argparse.ArgumentParser:
    """What the command takes."""
    arguments = argparse.ArgumentParser(prog="scripts/bench engine", description=__doc__)
    add = arguments.add_argument
    add("--json", action="store_true", help="print the JSON line alone")
    add("--quick", action="store_true", help="small images, few rounds: about a minute")
    add("--seconds", type=float, default=120, help="of comparing, at least one cycle (120)")
    add("--images", type=int, help="of a round with fewer callers (2; 8 with --quick)")
    add("--callers", type=int, nargs="+", help="ascending (1 4 8 16 64; 1 8 with --quick)")
    add("--threads", type=int, default=0, help="default: one a core")
    add("--width", type=int, help="default: the model's own")
    add("--height", type=int)
    add("--steps", type=int)
    add("--device", default="cpu", help="cpu, cuda or cuda:N (cpu)")
    add(
        "--architecture",
        choices=sorted(SHAPES),
        default="builtin",
        help="builtin is the model that ships; of the others one is made, with random weights of "
        "the true shape (tiny has no true shape)",
    )
    add("--model", type=Path, help="a model folder, of --architecture's kind, to use instead")
    return arguments


def main(arguments: Sequence[str]) -> int:
    options = parser().parse_args(arguments)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    plan, figures = uvloop.run(main_on(options))
    if not options.json:
        title = f"{options.architecture}, {plan.shape}, {plan.device}"
        print_report(figures, title, plan.callers, ("engine", "http"))
    rounded = {
        name: value if isinstance(value, dict) else round(value, 4)
        for name, value in figures.items()
    }
    print(json.dumps(rounded))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
