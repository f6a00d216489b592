"""The real worker process: the stock pipeline's bytes, whatever happens to it on the way."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio
from numpy.typing import NDArray
from PIL import Image

import node
from network.runtime.clock import SystemClock
from network.units import JobId, ModelId
from network.wire.safety import Safety
from node.engine.backend import Engine, open_process_engine
from node.engine.options import EngineOptions
from node.engine.work import (
    FailureKind,
    ImageJob,
    ImageResult,
    JobFailedError,
    ModelSpec,
    Progress,
)
from tests.node.engine import tiny

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.timeout(300),  # a worker's start takes seconds, on a busy machine many
]

_SHAPES_DIR = Path(node.__path__[0]) / "builtin" / "shapes"
_SHAPES = ModelId("limner/shapes")
_TINY = ModelId("tiny/one")
_BROKEN = ModelId("tiny/pickled")
# One thread, as in the stock pipelines here: the number of threads shows in the last bits.
_OPTIONS = EngineOptions(threads=1, hang_after=3.0, max_active_samples=3)
_JOB = ImageJob(JobId("job"), _TINY, ("a red circle",), 64, 64, 6, 7.5, (11,))
_LONG = replace(_JOB, steps=900)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return where the tiny models lie."""
    root = tmp_path_factory.mktemp("models")
    tiny.stable_diffusion(root / "one", "dpm")
    (root / "pickled" / "unet").mkdir(parents=True)
    (root / "pickled" / "unet" / "diffusion_pytorch_model.bin").touch()
    (root / "pickled" / "model_index.json").write_text(
        '{"_class_name": "StableDiffusionPipeline", "unet": ["diffusers", "UNet2DConditionModel"]}'
    )
    return root


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(folder: Path) -> AsyncIterator[Engine]:
    """Return one engine for all tests here; they end its worker as they like."""
    specs = [
        ModelSpec(_TINY, folder / "one"),
        ModelSpec(_BROKEN, folder / "pickled"),
        ModelSpec(_SHAPES, _SHAPES_DIR, warm=False),
    ]
    async with open_process_engine(
        specs, device="cpu", clock=SystemClock(), options=_OPTIONS
    ) as opened:
        yield opened


def _ignore(progress: Progress) -> None:
    del progress


def _stock_matches(folder: Path, job: ImageJob, png: bytes) -> bool:
    expected = tiny.load(folder)(
        job.prompts[0],
        width=job.width,
        height=job.height,
        num_inference_steps=job.steps,
        guidance_scale=job.guidance,
        generator=tiny.generator(job.seeds[0]),
    ).images[0]
    return np.array_equal(np.asarray(Image.open(BytesIO(png))), np.asarray(expected))


def _pixels(png: bytes) -> NDArray[np.int64]:
    return np.asarray(Image.open(BytesIO(png))).astype(np.int64)


async def _after(event: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not event():  # noqa: ASYNC110  processes give no event
            await asyncio.sleep(0.01)


async def test_an_image_has_the_stock_pipelines_pixels_and_models_report_themselves(
    engine: Engine, folder: Path
) -> None:
    told: list[Progress] = []
    result = await engine.generate(_JOB, told.append)
    assert _stock_matches(folder / "one", _JOB, result.images[0].png)
    assert result.images[0].safety is Safety.UNCHECKED
    assert told[0].done_steps == 0
    assert told[-1] == Progress(_JOB.job_id, 6, 6)
    states = {state.model_id: state for state in engine.models()}
    assert states[_TINY].status == "ready"
    assert states[_TINY].load_seconds
    assert states[_TINY].pace
    assert states[_SHAPES].status == "cold"
    assert states[_BROKEN].status == "failed"
    assert "safetensors" in states[_BROKEN].detail


async def test_the_built_in_model_loads_on_demand_and_draws_the_stock_pixels_in_little_memory(
    engine: Engine,
) -> None:
    job = replace(_JOB, model_id=_SHAPES, width=512, height=512, steps=3)
    result = await engine.generate(job, _ignore)
    assert _stock_matches(_SHAPES_DIR, job, result.images[0].png)
    large = replace(job, width=1024, height=1024, steps=1, seeds=(1, 2))
    await engine.generate(large, _ignore)
    await asyncio.sleep(1.1)  # one heartbeat
    assert 0 < engine.resident_bytes() < 1.5e9


async def test_deterministic_jobs_give_the_bytes_of_single_requests_at_any_load(
    engine: Engine,
) -> None:
    jobs = [
        replace(_JOB, seeds=(7, 8, 9), deterministic=True),
        replace(_JOB, width=128, steps=9, seeds=(3,), deterministic=True),
        replace(_JOB, guidance=1.0, seeds=(4,), deterministic=True),
        replace(_JOB, steps=40, seeds=(5,)),
        replace(_JOB, steps=30, seeds=(6, 7)),
    ]
    together = await asyncio.gather(*(engine.generate(job, _ignore) for job in jobs))
    for job, result in zip(jobs, together, strict=True):
        assert [image.seed for image in result.images] == list(job.seeds)
        for seed, image in zip(job.seeds, result.images, strict=True):
            alone = await engine.generate(replace(job, seeds=(seed,)), _ignore)
            if job.deterministic:
                assert alone.images == (image,)
            else:
                apart = _pixels(alone.images[0].png) - _pixels(image.png)
                assert np.abs(apart).max() <= 1


async def test_jobs_share_steps_once_that_has_proved_faster_and_this_is_remembered(
    tmp_path: Path,
) -> None:
    """The built-in model's small steps cost hardly more for four samples than for one."""
    file = tmp_path / "batching.json"
    options = replace(_OPTIONS, max_active_samples=16, batch_file=file)
    specs = [ModelSpec(_SHAPES, _SHAPES_DIR)]
    job = replace(_JOB, model_id=_SHAPES, steps=25)
    async with open_process_engine(
        specs, device="cpu", clock=SystemClock(), options=options
    ) as own:
        jobs = [replace(job, seeds=(seed,), steps=25 + seed) for seed in range(8)]
        results = await asyncio.gather(*(own.generate(one, _ignore) for one in jobs))
        assert [result.images[0].seed for result in results] == list(range(8))
        await _after(file.exists)
    ((machine, kinds),) = json.loads(file.read_bytes())["machines"].items()
    assert "1 threads, torch" in machine
    ((kind, record),) = kinds.items()
    assert kind.startswith("limner/shapes ")
    assert {"1", "2"} <= set(record["seconds"])


async def test_what_the_request_got_wrong_is_told_apart_from_what_the_node_got_wrong(
    engine: Engine,
) -> None:
    for job, kind in (
        (replace(_JOB, width=60), FailureKind.INVALID),
        (replace(_JOB, loras=(("ink", 1.0),)), FailureKind.INVALID),
        (replace(_JOB, model_id=_BROKEN), FailureKind.INTERNAL),
    ):
        with pytest.raises(JobFailedError) as failure:
            await engine.generate(job, _ignore)
        assert failure.value.kind is kind
    assert (await engine.generate(_JOB, _ignore)).images


async def test_cancelled_jobs_free_their_places(engine: Engine) -> None:
    cancelled = engine.tally().cancelled
    running: set[JobId] = set()
    async with asyncio.TaskGroup() as group:
        tasks = []
        for number in range(_OPTIONS.max_active_samples + 1):
            job = replace(_LONG, job_id=JobId(f"long {number}"))
            work = engine.generate(job, lambda progress: running.add(progress.job_id))
            tasks.append(group.create_task(work))
        await _after(lambda: len(running) == _OPTIONS.max_active_samples)
        for task in tasks:
            task.cancel()
    # All places were taken by jobs of 900 steps; this one only begins when they are free again.
    assert (await engine.generate(_JOB, _ignore)).images
    assert engine.tally().cancelled == cancelled + 4


async def _hit_in_mid_job(engine: Engine, blow: signal.Signals, images: int) -> ImageResult:
    """Run a job and send the worker a signal when it has made some steps of its last image."""
    job = replace(_JOB, steps=60, seeds=tuple(range(images)))
    done = [0]
    async with asyncio.TaskGroup() as group:
        work = engine.generate(job, lambda progress: done.append(progress.done_steps))
        task = group.create_task(work)
        await _after(lambda: done[-1] > 60 * (images - 1) + 1)
        pid = engine.worker_pid()
        assert pid is not None
        os.kill(pid, blow)
    assert engine.worker_pid() != pid
    return task.result()


async def test_jobs_survive_a_killed_and_a_stopped_worker_with_the_same_bytes(
    engine: Engine, folder: Path
) -> None:
    killed = await _hit_in_mid_job(engine, signal.SIGKILL, images=2)
    stopped = await _hit_in_mid_job(engine, signal.SIGSTOP, images=1)
    assert killed.images[:1] == stopped.images
    last = replace(_JOB, steps=60, seeds=(1,))
    assert _stock_matches(folder / "one", last, killed.images[1].png)


async def test_the_worker_dies_with_its_engine_however_that_ends() -> None:
    program = """
import asyncio, os, signal
from network.runtime.clock import SystemClock
from node.engine.backend import open_process_engine

async def main():
    async with open_process_engine([], device="cpu", clock=SystemClock()) as engine:
        while not engine.resident_bytes():  # its first heartbeat
            await asyncio.sleep(0.01)
        print(engine.worker_pid(), flush=True)
        os.kill(engine.worker_pid(), signal.SIGSTOP)  # so that it cannot end by itself
        os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, cwd=Path(node.__path__[0]).parent, stdout=subprocess.PIPE
    )
    output, _ = await process.communicate()
    pid = int(output.split()[0])
    await _after(lambda: not _is_alive(pid))


def _is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"
