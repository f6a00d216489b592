"""Background jobs are started again, and end with their block."""

import asyncio
from collections.abc import Iterator

import pytest
import structlog

from network.runtime.clock import SystemClock
from network.runtime.supervisor import Backoff, supervise

AT_ONCE = Backoff(first=0.001, most=0.002)


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with structlog.testing.capture_logs():
        yield


async def test_a_job_that_fails_is_run_again() -> None:
    runs = 0
    done = asyncio.Event()

    async def job() -> None:
        nonlocal runs
        runs += 1
        if runs < 3:
            raise OSError("no route")
        done.set()

    async with supervise(backoff=AT_ONCE) as supervisor:
        supervisor.start("flaky", job)
        await asyncio.wait_for(done.wait(), 5)
    assert runs == 3


async def test_a_job_that_returns_is_over() -> None:
    runs = 0

    async def job() -> None:
        nonlocal runs
        runs += 1

    async with supervise(backoff=AT_ONCE) as supervisor:
        supervisor.start("short", job)
        await asyncio.sleep(0.02)
    assert runs == 1


async def test_leaving_the_block_cancels_jobs_and_waits_for_their_end() -> None:
    steps: list[str] = []

    async def job() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.01)
            steps.append("tidied")

    async with supervise() as supervisor:
        supervisor.start("endless", job)
        await asyncio.sleep(0)
    assert steps == ["tidied"]


async def test_one_failing_job_does_not_disturb_another() -> None:
    alive = asyncio.Event()

    async def bad() -> None:
        raise RuntimeError("always")

    async def good() -> None:
        await asyncio.sleep(0.02)
        alive.set()

    async with supervise(backoff=AT_ONCE) as supervisor:
        supervisor.start("bad", bad)
        supervisor.start("good", good)
        await asyncio.wait_for(alive.wait(), 5)


async def test_an_error_of_the_block_comes_out_as_itself() -> None:
    async def program() -> None:
        async with supervise() as supervisor:
            supervisor.start("endless", asyncio.Event().wait)
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        await program()


async def test_cancelling_the_block_cancels_its_jobs() -> None:
    started, ended = asyncio.Event(), asyncio.Event()

    async def job() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async def program() -> None:
        async with supervise() as supervisor:
            supervisor.start("endless", job)
            await asyncio.Event().wait()

    task = asyncio.ensure_future(program())
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()


def test_pauses_double_up_to_a_bound() -> None:
    backoff = Backoff(first=0.5, most=30)
    assert [backoff.pause(n) for n in (1, 2, 3, 8, 10_000)] == [0.5, 1.0, 2.0, 30.0, 30.0]


async def test_failures_are_forgotten_after_a_long_run() -> None:
    class Jumping:
        time = 0.0

        def now(self) -> float:
            return self.time

        def monotonic(self) -> float:
            return self.time

    clock = Jumping()
    runs: list[float] = []
    enough = asyncio.Event()

    async def job() -> None:
        runs.append(asyncio.get_running_loop().time())
        clock.time += 61
        if len(runs) == 4:
            enough.set()
        raise OSError("after a long run")

    async with supervise(clock, Backoff(first=0.001, most=60)) as supervisor:
        supervisor.start("long", job)
        await asyncio.wait_for(enough.wait(), 5)
    assert runs[-1] - runs[0] < 1


def test_the_system_clock_moves_forward() -> None:
    clock = SystemClock()
    assert clock.now() > 1_700_000_000
    assert clock.monotonic() <= clock.monotonic()
