"""The engine and its worker process: crashes, hangs, cancellation, with a worker of the tests'."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from network.runtime.clock import SystemClock
from network.units import JobId, ModelId
from node.engine.backend import Engine, open_process_engine
from node.engine.launch import worker_environment
from node.engine.options import EngineOptions
from node.engine.work import (
    EngineBusyError,
    FailureKind,
    ImageJob,
    ImageResult,
    JobFailedError,
    ModelSpec,
    Progress,
    Tally,
)

_COMMAND = (sys.executable, "-P", str(Path(__file__).with_name("fake_worker.py")))
_MODEL = ModelId("limner/none")
_OPTIONS = EngineOptions(hang_after=1.0, restart_backoff=0.01, max_jobs=8)


def _open(
    device: str = "cpu", options: EngineOptions = _OPTIONS
) -> AbstractAsyncContextManager[Engine]:
    specs = [ModelSpec(_MODEL, Path("/nowhere"))]
    return open_process_engine(
        specs, device=device, clock=SystemClock(), options=options, command=_COMMAND
    )


@pytest.fixture(autouse=True)
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the file into which the fake worker writes what it was told to forget."""
    path = tmp_path / "worker.log"
    monkeypatch.setenv("FAKE_WORKER_LOG", str(path))
    return path


@pytest.fixture
async def engine() -> AsyncIterator[Engine]:
    """Return an engine on the fake worker; its tally must match its jobs' ends."""
    async with _open() as opened:
        yield opened


def _job(prompt: str, seeds: Sequence[int] = (1,), model: ModelId = _MODEL) -> ImageJob:
    return ImageJob(JobId(prompt), model, (prompt,), 64, 64, 10, 7.5, tuple(seeds))


def _ignore(progress: Progress) -> None:
    del progress


async def _draw(engine: Engine, prompt: str, seeds: Sequence[int] = (1,)) -> ImageResult:
    return await engine.generate(_job(prompt, seeds), _ignore)


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(15):
        while not condition():  # noqa: ASYNC110  processes give no event
            await asyncio.sleep(0.01)


async def test_a_job_given_before_the_worker_is_up_is_done(engine: Engine) -> None:
    assert not engine.healthy()
    told: list[Progress] = []
    result = await engine.generate(_job("draw", seeds=(7, 8)), told.append)
    assert [image.png for image in result.images] == [b"seed 7", b"seed 8"]
    assert [image.seed for image in result.images] == [7, 8]
    assert result.denoise_seconds == 1.0
    assert told[0] == Progress(JobId("draw"), 0, 20)
    assert engine.healthy()
    assert engine.tally() == Tally(done=2)
    await _until(lambda: engine.tally().batches.get(1, 0) >= 4)
    batches = engine.tally().batches
    assert batches.keys() == {1, 4}
    assert batches[1] == 2 * batches[4]
    assert engine.tally().step_seconds == batches[4] / 2
    state = engine.model(_MODEL)
    assert state is not None
    assert state.status == "ready"
    assert engine.models() == (state,)


async def test_an_unknown_model_is_the_requests_fault(engine: Engine) -> None:
    with pytest.raises(JobFailedError) as refusal:
        await engine.generate(_job("draw", model=ModelId("x")), _ignore)
    assert refusal.value.kind is FailureKind.INVALID
    assert engine.model(ModelId("x")) is None


async def test_a_text_that_no_frame_carries_is_refused_and_disturbs_nobody(
    engine: Engine,
) -> None:
    with pytest.raises(JobFailedError) as refusal:
        await _draw(engine, "draw \ud800")
    assert refusal.value.kind is FailureKind.INVALID
    assert (await _draw(engine, "draw")).images


@pytest.mark.parametrize("death", ["die", "freeze", "stick", "babble", "poison"])
async def test_a_job_whose_worker_dies_or_hangs_is_run_again_on_the_next(
    engine: Engine, tmp_path: Path, death: str
) -> None:
    await _draw(engine, "draw")
    first = engine.worker_pid()
    waiting = _draw(engine, "draw", seeds=(3,))
    async with asyncio.timeout(12):
        again, other = await asyncio.gather(
            _draw(engine, f"{death}-once {tmp_path}/marker", seeds=(2,)), waiting
        )
    assert [again.images[0].png, other.images[0].png] == [b"seed 2", b"seed 3"]
    assert engine.worker_pid() not in {first, None}
    assert engine.tally() == Tally(done=3)


async def test_a_job_that_kills_every_worker_fails_alone(engine: Engine) -> None:
    outcomes = await asyncio.gather(
        _draw(engine, "die"),
        *(_draw(engine, "draw", seeds=(seed,)) for seed in range(3)),
        return_exceptions=True,
    )
    assert isinstance(outcomes[0], JobFailedError)
    assert outcomes[0].kind is FailureKind.WORKER_CRASHED
    assert [isinstance(outcome, ImageResult) for outcome in outcomes[1:]] == [True] * 3
    assert engine.tally() == Tally(done=3, failed=1)


async def test_images_made_before_a_crash_are_not_made_again(
    engine: Engine, tmp_path: Path
) -> None:
    told: list[Progress] = []
    job = _job(f"half-once {tmp_path}/marker", seeds=(4, 5, 6))
    result = await engine.generate(job, told.append)
    assert [image.png for image in result.images] == [b"seed 4", b"seed 5", b"seed 6"]
    assert result.denoise_seconds == 1.5
    assert max(progress.done_steps for progress in told) <= 30


async def test_cancelling_the_caller_tells_the_worker_and_frees_the_place(
    engine: Engine, log: Path
) -> None:
    started = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(engine.generate(_job("wait"), lambda _: started.set()))
        await started.wait()
        task.cancel()
    await _until(lambda: log.exists() and log.read_text() == "cancelled 1")
    assert engine.tally() == Tally(cancelled=1)
    assert (await _draw(engine, "draw")).images


async def test_more_jobs_than_the_engine_may_hold_are_refused(engine: Engine) -> None:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_draw(engine, "wait")) for _ in range(8)]
        await asyncio.sleep(0)
        with pytest.raises(EngineBusyError):
            await _draw(engine, "draw")
        for task in tasks:
            task.cancel()
    assert engine.tally() == Tally(cancelled=8)


async def test_closing_ends_the_worker_and_fails_what_waits() -> None:
    async with _open() as engine:
        await _draw(engine, "draw")
        pid = engine.worker_pid()
        async with asyncio.TaskGroup() as group:
            task = group.create_task(_failure(_draw(engine, "wait")))
            await asyncio.sleep(0.05)
            _close(engine)
            assert isinstance(await task, EngineBusyError)
    assert pid is not None
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def _close(engine: Engine) -> None:
    close = getattr(engine, "close")  # noqa: B009  the protocol has no such method
    close()


async def _failure(work: Awaitable[object]) -> Exception | None:
    try:
        await work
    except Exception as error:  # noqa: BLE001
        return error
    return None


async def test_a_worker_that_never_starts_fails_its_jobs_instead_of_keeping_them() -> None:
    async with _open(device="missing") as engine:
        with pytest.raises(JobFailedError) as failure:
            await _draw(engine, "draw")
        assert failure.value.kind is FailureKind.WORKER_CRASHED
        assert not engine.healthy()


async def test_whoever_subscribed_learns_of_changes_until_it_stops(engine: Engine) -> None:
    changes: list[bool] = []
    stop = engine.subscribe(lambda: changes.append(engine.healthy()))
    await _draw(engine, "draw")
    assert changes
    assert changes[-1]
    stop()
    count = len(changes)
    pid = engine.worker_pid()
    assert pid is not None
    os.kill(pid, 9)
    await _until(lambda: engine.worker_pid() not in {pid, None} and engine.healthy())
    assert len(changes) == count


async def test_a_caller_whose_progress_callback_fails_harms_itself_only(engine: Engine) -> None:
    def fail(progress: Progress) -> None:
        raise LookupError(progress.job_id)

    outcomes = await asyncio.gather(
        engine.generate(_job("draw"), fail), _draw(engine, "draw"), return_exceptions=True
    )
    assert isinstance(outcomes[0], LookupError)
    assert isinstance(outcomes[1], ImageResult)


async def test_the_worker_finds_a_fixed_environment_without_the_nodes_secrets(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LIMNER_NODE__KEYSTORE__PASSPHRASE", "secret")
    async with _open() as engine:
        names = "OMP_WAIT_POLICY HF_HUB_OFFLINE ORT_DISABLE_TELEMETRY LIMNER_NODE__KEYSTORE__PASSPHRASE"
        with pytest.raises(JobFailedError) as answer:
            await _draw(engine, f"environment {names}")
    assert "'OMP_WAIT_POLICY': 'PASSIVE'" in answer.value.message
    assert "'HF_HUB_OFFLINE': '1'" in answer.value.message
    assert "'ORT_DISABLE_TELEMETRY': '1'" in answer.value.message
    assert "secret" not in answer.value.message


def test_the_number_of_threads_is_what_was_asked_or_the_number_of_cores() -> None:
    assert worker_environment({}, 3)["OMP_NUM_THREADS"] == "3"
    assert worker_environment({}, 0)["OMP_NUM_THREADS"] == str(os.cpu_count())


def test_the_nodes_own_process_never_imports_torch() -> None:
    program = (
        "import sys, node.engine.backend\n"
        "heavy = {'torch', 'diffusers', 'transformers', 'numpy', 'PIL'} & set(sys.modules)\n"
        "sys.exit(', '.join(heavy) or 0)"
    )
    root = Path(__file__).parents[3]
    done = subprocess.run(  # noqa: PLW1510  the assertion reads better
        [sys.executable, "-c", program], cwd=root, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
