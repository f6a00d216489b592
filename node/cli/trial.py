"""An engine of the command's own, with its worker process, for one model at a time."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from network.runtime.clock import SystemClock
from network.units import JobId, ModelId
from node.engine.backend import Engine, open_process_engine
from node.engine.options import EngineOptions
from node.engine.work import ImageJob, ImageResult, ModelSpec, Progress

PROMPT: Final = "a small red circle on a blue background"
_TRIAL_SIDE: Final = 256


@asynccontextmanager
async def trial_engine(spec: ModelSpec, device: str, threads: int) -> AsyncIterator[Engine]:
    """Run an engine for the length of the block, the model loading in the background."""
    options = EngineOptions(threads=threads)
    async with open_process_engine(
        [spec], device=device, clock=SystemClock(), options=options
    ) as engine:
        yield engine


def trial_job(model_id: ModelId, width: int, height: int, *, steps: int, seed: int) -> ImageJob:
    """Return a job of one image; guidance and all else are a client's defaults."""
    return ImageJob(
        job_id=JobId(f"trial-{seed}"),
        model_id=model_id,
        prompts=(PROMPT,),
        width=width,
        height=height,
        steps=steps,
        guidance=7.5,
        seeds=(seed,),
        safety_check=False,
    )


async def draw_once(spec: ModelSpec, device: str, threads: int) -> ImageResult:
    """Load a model in a worker and make one image of one step. Raises JobFailedError."""
    async with trial_engine(spec, device, threads) as engine:
        job = trial_job(spec.model_id, _TRIAL_SIDE, _TRIAL_SIDE, steps=1, seed=1)
        return await engine.generate(job, ignore)


def ignore(progress: Progress) -> None:
    """Take progress as every caller does, and do nothing with it."""
    del progress
