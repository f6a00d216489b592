"""Watching jobs from the engine's side: who is told, and what the worker hears of it."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from network.runtime.clock import SystemClock
from network.units import JobId, ModelId
from node.engine.audience import Audience
from node.engine.backend import Engine, open_process_engine
from node.engine.options import EngineOptions
from node.engine.work import ImageJob, ModelSpec, Preview

_COMMAND = (sys.executable, "-P", str(Path(__file__).with_name("fake_worker.py")))
_MODEL = ModelId("limner/none")


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the file into which the fake worker writes what it was told to forget."""
    path = tmp_path / "worker.log"
    monkeypatch.setenv("FAKE_WORKER_LOG", str(path))
    return path


@pytest.fixture
async def engine(log: Path) -> AsyncIterator[Engine]:
    """Return an engine on the fake worker, which shows a job when it is told to."""
    del log
    options = EngineOptions(hang_after=1.0, restart_backoff=0.01)
    async with open_process_engine(
        [ModelSpec(_MODEL, Path("/nowhere"))],
        device="cpu",
        clock=SystemClock(),
        options=options,
        command=_COMMAND,
    ) as opened:
        yield opened


def _job(name: str, prompt: str) -> ImageJob:
    return ImageJob(JobId(name), _MODEL, (prompt,), 64, 64, 10, 7.5, (1,))


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(15):
        while not condition():  # noqa: ASYNC110  processes give no event
            await asyncio.sleep(0.01)


def test_the_first_watcher_and_the_leaving_of_the_last_are_changes() -> None:
    changes: list[tuple[JobId, bool]] = []
    audience = Audience(lambda job_id: changes.append((job_id, audience.watches(job_id))))
    one, two = JobId("one"), JobId("two")
    seen: list[str] = []
    leave_first = audience.join(one, lambda _: seen.append("first"))
    leave_second = audience.join(one, lambda _: seen.append("second"))
    leave_other = audience.join(two, lambda _: seen.append("other"))
    audience.show(Preview(one, 0, 1, b""))
    assert seen == ["first", "second"]
    leave_first()
    audience.show(Preview(one, 0, 2, b""))
    assert seen == ["first", "second", "second"]
    leave_second()
    audience.show(Preview(one, 0, 3, b""))
    leave_other()
    assert len(seen) == 3
    assert changes == [(one, True), (two, True), (one, False), (two, False)]


def test_a_watcher_who_fails_keeps_nobody_from_seeing() -> None:
    seen: list[Preview] = []

    def fail(preview: Preview) -> None:
        raise RuntimeError(preview.job_id)

    audience = Audience(lambda _: None)
    audience.join(JobId("a"), fail)
    audience.join(JobId("a"), seen.append)
    audience.show(Preview(JobId("a"), 0, 1, b""))
    assert len(seen) == 1


async def test_a_job_is_watched_from_before_its_beginning_to_its_end(
    engine: Engine, log: Path
) -> None:
    shown: list[Preview] = []
    stop = engine.watch(JobId("a"), shown.append)
    running = asyncio.create_task(engine.generate(_job("a", "wait"), lambda _: None))
    other = asyncio.create_task(engine.generate(_job("b", "wait"), lambda _: None))
    await _until(lambda: len(shown) == 1)
    assert shown == [Preview(JobId("a"), 0, 1, b"a preview")]
    stop()
    await _until(lambda: log.exists() and log.read_text() == "unwatched 1")
    for task in (running, other):
        task.cancel()
    await asyncio.wait([running, other])
    assert len(shown) == 1


async def test_who_comes_late_is_shown_what_follows_and_the_end_is_told_to_the_worker(
    engine: Engine, log: Path
) -> None:
    started = asyncio.Event()
    running = asyncio.create_task(engine.generate(_job("a", "wait"), lambda _: started.set()))
    await asyncio.wait_for(started.wait(), 15)
    shown: list[Preview] = []
    stop = engine.watch(JobId("a"), shown.append)
    await _until(lambda: len(shown) == 1)
    running.cancel()
    await asyncio.wait([running])
    await _until(lambda: log.exists() and log.read_text() == "unwatched 1")
    stop()


async def test_a_watched_job_whose_worker_dies_is_watched_in_the_next(engine: Engine) -> None:
    shown: list[Preview] = []
    stop = engine.watch(JobId("a"), shown.append)
    running = asyncio.create_task(engine.generate(_job("a", "wait"), lambda _: None))
    await _until(lambda: len(shown) == 1)
    first = engine.worker_pid()
    assert first is not None
    os.kill(first, signal.SIGKILL)
    await _until(lambda: len(shown) == 2)
    assert engine.worker_pid() != first
    running.cancel()
    await asyncio.wait([running])
    stop()
