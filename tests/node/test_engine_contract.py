"""The fake engine of these tests and the real one do the same where the node relies on it."""

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from network.runtime.clock import SystemClock
from network.units import JobId, ModelId
from node.config.catalogue import BUILTIN_FOLDER, BUILTIN_MODEL
from node.engine.backend import Engine, open_process_engine
from node.engine.work import ImageJob, ModelSpec, Preview, Progress
from tests.node.fakes import FakeEngine
from tests.node.nodes import eventually

KINDS = [
    "fake",
    pytest.param(
        "real",
        marks=[
            pytest.mark.slow,
            pytest.mark.skipif(not BUILTIN_FOLDER.is_dir(), reason="no built-in model"),
        ],
    ),
]


@asynccontextmanager
async def opened(kind: str) -> AsyncIterator[Engine]:
    """An engine with the built-in model in memory."""
    if kind == "fake":
        yield FakeEngine(BUILTIN_MODEL, step_seconds=0.002)
        return
    spec = ModelSpec(BUILTIN_MODEL, BUILTIN_FOLDER)
    async with open_process_engine([spec], device="cpu", clock=SystemClock()) as engine:

        async def is_ready() -> bool:
            state = engine.model(BUILTIN_MODEL)
            return engine.healthy() and state is not None and state.status == "ready"

        await eventually(is_ready, seconds=90)
        yield engine


def job(name: str, steps: int = 3, seeds: tuple[int, ...] = (7,)) -> ImageJob:
    return ImageJob(JobId(name), BUILTIN_MODEL, ("a red circle",), 256, 256, steps, 7.5, seeds)


@pytest.mark.parametrize("kind", KINDS)
async def test_an_engine_keeps_its_promises(kind: str) -> None:
    async with opened(kind) as engine:
        assert engine.model(ModelId("somebody/else")) is None
        (state,) = engine.models()
        assert state == engine.model(BUILTIN_MODEL)
        assert state.facts is not None
        assert engine.worker_pid()
        await _images_come_in_the_order_of_their_seeds(engine)
        await _a_cancelled_job_ends_and_leaves_the_engine_usable(engine)
        await _a_watched_job_is_shown_and_no_other(engine)
        engine.subscribe(lambda: None)()


async def _images_come_in_the_order_of_their_seeds(engine: Engine) -> None:
    heard: list[Progress] = []
    result = await engine.generate(job("a", seeds=(5, 6)), heard.append)
    assert [image.seed for image in result.images] == [5, 6]
    for image in result.images:
        assert image.png.startswith(b"\x89PNG")
        assert struct.unpack(">II", image.png[16:24]) == (256, 256)
    done = [progress.done_steps for progress in heard]
    assert done == sorted(done)
    assert done[-1] == heard[-1].total_steps == 6
    assert {progress.job_id for progress in heard} == {"a"}


async def _a_cancelled_job_ends_and_leaves_the_engine_usable(engine: Engine) -> None:
    started = asyncio.Event()
    long = asyncio.create_task(engine.generate(job("b", steps=100), lambda _: started.set()))
    await asyncio.wait_for(started.wait(), 20)
    long.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(long, 10)
    assert len((await engine.generate(job("c"), lambda _: None)).images) == 1


async def _a_watched_job_is_shown_and_no_other(engine: Engine) -> None:
    shown: list[Preview] = []
    stop = engine.watch(JobId("d"), shown.append)
    for _ in range(20):  # the real one first finds out what its latents look like
        await asyncio.gather(
            engine.generate(job("d", steps=20, seeds=(1, 2)), lambda _: None),
            engine.generate(job("e", steps=20), lambda _: None),
        )
        if shown:
            break
    stop()
    assert {preview.job_id for preview in shown} == {"d"}
    assert {preview.index for preview in shown} <= {0, 1}
    assert all(1 <= preview.step <= 20 for preview in shown)
    assert all(preview.jpeg.startswith(b"\xff\xd8") for preview in shown)
    before = len(shown)
    late: list[Preview] = []
    started = asyncio.Event()
    running = asyncio.create_task(engine.generate(job("f", steps=40), lambda _: started.set()))
    await started.wait()
    stop_late = engine.watch(JobId("f"), late.append)
    await running
    stop_late()
    assert late
    assert len(shown) == before
