import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from network.identity import checksum
from network.runtime.clock import SystemClock
from network.runtime.database import open_database
from network.units import JobId
from node.accounting.journal import MIGRATIONS, Journal
from node.accounting.ledger import Ledger
from node.accounting.model import Job, Outcome
from node.engine.work import EngineBusyError, ImageJob, ModelState
from node.jobs.board import Policy, Reason
from node.jobs.model import JobReport, NoPlaceError, RepeatedAttemptError
from node.jobs.record import log_job
from node.jobs.runner import JobRunner
from tests.node.accounting.test_journal import job
from tests.node.fakes import MODEL, FakeEngine

PAYER = checksum(job("a").payer)


def work(entry: Job) -> ImageJob:
    return ImageJob(entry.job_id, MODEL, ("x",), 64, 64, entry.steps, 7.5, (1,))


class Desk:
    """A runner with its journal and what it reported."""

    def __init__(self, runner: JobRunner, journal: Journal) -> None:
        self.runner = runner
        self.journal = journal
        self.reports: dict[JobId, JobReport] = {}
        runner.observe(lambda report: self.reports.__setitem__(report.job.job_id, report))

    def start(self, name: str) -> "asyncio.Task[object]":
        entry = job(name)
        return asyncio.create_task(self.runner.run(entry, work(entry)), name=name)

    def outcome(self, name: str) -> tuple[Outcome, str]:
        ending = self.reports[JobId(name)].ending
        return ending.outcome, ending.reason


@asynccontextmanager
async def desk(
    folder: Path, engine: FakeEngine, policy: Policy | None = None, capacity: int = 1
) -> AsyncIterator[Desk]:
    url = f"sqlite:///{folder / 'node.sqlite'}"
    clock = SystemClock()
    async with open_database(url, MIGRATIONS, synchronous="NORMAL") as database:
        journal = Journal(database, Ledger(None), clock)
        runner = JobRunner(
            engine, journal, clock, capacities={MODEL: capacity}, policy=policy or Policy()
        )
        unfollow = runner.follow_engine()
        yield Desk(runner, journal)
        unfollow()
        assert journal.held == 0
        load = runner.loads()[MODEL]
        assert (load.running, load.waiting) == (0, 0)


async def test_jobs_above_the_slots_wait_their_turn(tmp_path: Path) -> None:
    engine = FakeEngine(step_seconds=0.02)
    async with desk(tmp_path, engine) as office:
        tasks = [office.start(name) for name in "abc"]
        await asyncio.sleep(0.02)
        waiting = office.runner.progress("attempt-c")
        assert waiting is not None
        assert (waiting.state, waiting.position) == ("waiting", 2)
        await asyncio.gather(*tasks)
        assert engine.most_active == 1
        assert [entry.job_id for entry in engine.jobs] == ["a", "b", "c"]
        assert office.journal.earned == 30


async def test_who_waits_in_vain_is_told_and_owes_nothing(tmp_path: Path) -> None:
    engine = FakeEngine(step_seconds=0.2)
    async with desk(tmp_path, engine, Policy(4, 0.05)) as office:
        first, second = office.start("a"), office.start("b")
        with pytest.raises(NoPlaceError) as caught:
            await second
        assert caught.value.reason is Reason.WAITED_IN_VAIN
        await first
        assert office.outcome("b") == (Outcome.REFUSED, "waited_in_vain")
        assert office.journal.earned == 10


async def test_a_cancelled_job_is_written_as_such_running_or_waiting(tmp_path: Path) -> None:
    engine = FakeEngine(step_seconds=0.05)
    async with desk(tmp_path, engine) as office:
        running, waiting, third = (office.start(name) for name in "abc")
        await asyncio.sleep(0.03)
        for task in (waiting, running):
            task.cancel()
        await asyncio.gather(running, waiting, return_exceptions=True)
        await third
        assert office.outcome("a") == office.outcome("b") == (Outcome.CANCELLED, "")
        assert [entry.job_id for entry in engine.cancelled] == ["a"]
        assert office.journal.earned == 10


async def test_a_lost_engine_makes_jobs_wait_and_its_return_starts_them(tmp_path: Path) -> None:
    engine = FakeEngine()
    async with desk(tmp_path, engine) as office:
        engine.change(healthy=False)
        task = office.start("a")
        await asyncio.sleep(0.03)
        assert not engine.jobs
        engine.change(healthy=True)
        await task


async def test_a_model_that_fails_sends_its_queue_elsewhere(tmp_path: Path) -> None:
    engine = FakeEngine()
    async with desk(tmp_path, engine) as office:
        engine.change(ModelState(MODEL, "loading"))
        task = office.start("a")
        await asyncio.sleep(0.03)
        engine.change(ModelState(MODEL, "failed", detail="broken"))
        with pytest.raises(NoPlaceError) as caught:
            await task
        assert caught.value.reason is Reason.MODEL_FAILED


async def test_stopping_lets_the_running_finish_and_refuses_the_rest(tmp_path: Path) -> None:
    engine = FakeEngine(step_seconds=0.02)
    async with desk(tmp_path, engine) as office:
        running, waiting = office.start("a"), office.start("b")
        await asyncio.sleep(0.02)
        await office.runner.stop(5.0)
        await running
        with pytest.raises(NoPlaceError):
            await waiting
        with pytest.raises(NoPlaceError):
            await office.start("c")
        assert office.outcome("a") == (Outcome.DELIVERED, "")


async def test_stopping_without_patience_interrupts_and_charges_nothing(tmp_path: Path) -> None:
    engine = FakeEngine(step_seconds=5)
    async with desk(tmp_path, engine) as office:
        running = office.start("a")
        await asyncio.sleep(0.02)
        async with asyncio.timeout(2):
            await office.runner.stop(0.05)
        with pytest.raises(NoPlaceError) as caught:
            await running
        assert caught.value.reason is Reason.CLOSING
        assert office.outcome("a") == (Outcome.INTERRUPTED, "")
        assert office.journal.earned == 0


async def test_stopping_at_once_still_answers_who_is_being_refused(tmp_path: Path) -> None:
    """A job whose end is being written is not cut off in the middle of it."""
    engine = FakeEngine(step_seconds=5)
    async with desk(tmp_path, engine) as office:
        tasks = [office.start("a"), office.start("b")]
        await asyncio.sleep(0.02)
        await office.runner.stop(0)
        for task in tasks:
            with pytest.raises(NoPlaceError) as caught:
                await task
            assert caught.value.reason is Reason.CLOSING


async def test_an_engine_that_refuses_or_breaks_frees_the_slot(tmp_path: Path) -> None:
    engine = FakeEngine()
    engine.failures += [EngineBusyError("full"), ZeroDivisionError("a bug")]
    async with desk(tmp_path, engine) as office:
        with pytest.raises(EngineBusyError):
            await office.start("a")
        with pytest.raises(ZeroDivisionError):
            await office.start("b")
        await office.start("c")
        assert office.outcome("a") == (Outcome.REFUSED, "engine_busy")
        assert office.outcome("b") == (Outcome.FAILED, "internal")


async def test_an_attempt_is_run_once(tmp_path: Path) -> None:
    async with desk(tmp_path, FakeEngine()) as office:
        await office.start("a")
        with pytest.raises(RepeatedAttemptError):
            await office.start("a")
        assert office.journal.earned == 10


async def test_each_job_is_one_line_in_the_log_and_no_prompt_is_in_it(tmp_path: Path) -> None:
    with capture_logs() as logged:
        async with desk(tmp_path, FakeEngine()) as office:
            office.runner.observe(log_job)
            await office.start("a")
    (line,) = [entry for entry in logged if entry["event"] == "job"]
    assert line["outcome"] == "delivered"
    assert line["charged_wei"] == "10"
    assert line["payer"] == PAYER
    assert "prompt" not in str(line)


async def test_an_observer_that_fails_costs_nobody_an_image(tmp_path: Path) -> None:
    with capture_logs() as logged:
        async with desk(tmp_path, FakeEngine()) as office:
            office.runner.observe(_fail)
            assert await office.start("a")
    assert [entry["log_level"] for entry in logged] == ["error"]


def _fail(_report: JobReport) -> None:
    raise ZeroDivisionError
