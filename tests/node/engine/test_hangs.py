"""Workers that hang on purpose, in each phase of the work: found, replaced, their jobs run again."""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import pytest

from network.runtime.clock import SystemClock
from network.units import JobId, ModelId
from node.engine.backend import Engine, open_process_engine
from node.engine.options import EngineOptions, SafetyOptions
from node.engine.work import ImageJob, ImageResult, ModelSpec, Progress, Tally

pytestmark = pytest.mark.timeout(180)

_COMMAND = (sys.executable, "-P", str(Path(__file__).with_name("hanging_worker.py")))
_STEPS, _WHOLE = ModelId("steps"), ModelId("whole")
_Place = tuple[ModelId, str]
#: Every phase of a job, by model.
_PLACES: tuple[_Place, ...] = (
    (_STEPS, "encode"),
    (_STEPS, "first-step"),
    (_STEPS, "step"),
    (_STEPS, "decode"),
    (_STEPS, "check"),
    (_WHOLE, "begin"),
    (_WHOLE, "step"),
    (_WHOLE, "end"),
)
#: Where it is tried what takes the processor all the time.
_FEW_PLACES: tuple[_Place, ...] = ((_STEPS, "first-step"), (_STEPS, "decode"))


def _options(folder: Path) -> EngineOptions:
    return EngineOptions(
        still_after=2.0,
        restart_backoff=0.01,
        batch_file=folder.with_suffix(".json"),
        safety=SafetyOptions("a checker"),
    )


def _job(model: ModelId, prompt: str) -> ImageJob:
    return ImageJob(JobId(prompt), model, (prompt,), 64, 64, 4, 7.5, (1,))


def _ignore(progress: Progress) -> None:
    del progress


async def _draw(engine: Engine, model: ModelId, prompt: str) -> ImageResult:
    return await engine.generate(_job(model, prompt), _ignore)


async def _on_an_engine(folder: Path, use: Callable[[Engine], Awaitable[None]]) -> None:
    async with open_process_engine(
        [ModelSpec(_STEPS, folder), ModelSpec(_WHOLE, folder)],
        device="cpu",
        clock=SystemClock(),
        options=_options(folder),
        command=_COMMAND,
    ) as engine:
        await use(engine)


async def _at(
    places: Sequence[_Place],
    way: str,
    tmp_path: Path,
    use: Callable[[Engine, ModelId, str], Awaitable[None]],
) -> None:
    """Use an engine of its own for each place, all at once: they mostly wait."""
    async with asyncio.timeout(120), asyncio.TaskGroup() as group:
        for number, (model, place) in enumerate(places):
            prompt = f"{place} {way} {tmp_path}/marker-{number}"

            async def use_it(engine: Engine, model: ModelId = model, order: str = prompt) -> None:
                await use(engine, model, order)

            group.create_task(_on_an_engine(tmp_path / str(number), use_it))


async def _is_replaced(engine: Engine, model: ModelId, prompt: str) -> None:
    await _draw(engine, model, "nothing")  # from which it learns what everything takes
    first = engine.worker_pid()
    result = await _draw(engine, model, prompt)
    assert len(result.images) == 1
    assert engine.worker_pid() not in {first, None}
    assert engine.tally() == Tally(done=2)


async def _is_left_alone(engine: Engine, model: ModelId, prompt: str) -> None:
    await _draw(engine, model, prompt)
    first = engine.worker_pid()
    assert (await _draw(engine, model, "nothing")).images
    assert engine.worker_pid() == first


@pytest.mark.parametrize(("way", "places"), [("lock", _PLACES), ("spin", _FEW_PLACES)])
async def test_a_worker_that_hangs_is_replaced_and_its_job_done(
    tmp_path: Path, way: str, places: Sequence[_Place]
) -> None:
    await _at(places, way, tmp_path, _is_replaced)


async def test_a_worker_that_hangs_with_the_interpreters_lock_is_replaced(tmp_path: Path) -> None:
    await _at([(_STEPS, "step")], "grip", tmp_path, _is_replaced)


@pytest.mark.parametrize(("way", "places"), [("doze", _PLACES), ("toil", _FEW_PLACES)])
async def test_a_worker_that_is_slow_is_left_alone(
    tmp_path: Path, way: str, places: Sequence[_Place]
) -> None:
    """It takes longer than a hang does to be found, and nothing is known of what is usual."""
    await _at(places, way, tmp_path, _is_left_alone)
