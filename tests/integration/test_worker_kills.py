"""SIGKILL of a node's worker at random moments: every request is answered, and charged once or not at all.

LIMNER_KILL_JOBS sets how many requests there are; 60 keep the suite quick.
"""

import asyncio
import os
import random
import signal
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from network.units import Address
from network.wire.headers import FEE
from network.wire.headers import JOB_ID as ATTEMPT
from node.app import RunningNode
from scripts.local_network.network import Node, NodePlan, start_node
from tests.integration.journals import Sold, node_jobs
from tests.node.nodes import Buyer

pytestmark = pytest.mark.slow

JOBS = int(os.environ.get("LIMNER_KILL_JOBS", "60"))
KILLS = max(2, JOBS // 50)
CALLERS = 8


@dataclass
class Siege:
    """The requests' answers so far, and what was done to the worker."""

    node: Node
    buyer: Buyer
    answers: dict[str, tuple[int, int]] = field(default_factory=dict)  # id -> status, fee
    kills: int = 0
    health: Counter[str] = field(default_factory=Counter)

    async def call(self, ids: list[str]) -> None:
        while ids:
            attempt = ids.pop()
            answer = await self.buyer.ask(
                {ATTEMPT: attempt}, price=None, num_inference_steps=2, seed=len(ids)
            )
            assert attempt not in self.answers
            self.answers[attempt] = (answer.status, int(answer.headers.get(FEE, "0")))

    async def status(self) -> dict[str, Any]:
        status: dict[str, Any] = (await self.buyer.get("/status", admin=True)).json
        return status

    async def kill_at(self, answered: int, pause: float) -> None:
        """Kill the worker some time after so many requests were answered."""
        while len(self.answers) < answered:  # noqa: ASYNC110  callers come and go
            await asyncio.sleep(0.01)
        await asyncio.sleep(pause)
        pid = (await self.status())["worker_pid"]
        if pid is not None:
            os.kill(pid, signal.SIGKILL)
            self.kills += 1

    async def kill_at_random(self, moments: random.Random) -> None:
        for answered in sorted(moments.sample(range(JOBS - CALLERS), KILLS)):
            await self.kill_at(answered, moments.uniform(0.0, 0.3))
            if moments.random() < 0.3:  # the next one, too, while it starts
                await self.kill_at(answered, moments.uniform(0.3, 3.0))

    async def watch_health(self) -> None:
        while True:
            self.health[(await self.buyer.get("/health")).json["status"]] += 1
            await asyncio.sleep(0.1)


@asynccontextmanager
async def besieged(folder: Path) -> AsyncIterator[Siege]:
    settings = {
        "queue.max_waiting": CALLERS,
        "queue.max_wait_seconds": 600.0,
        "engine.threads": 1,
    }
    plan = NodePlan(capacity=CALLERS, scheme="http", settings=settings)
    node = await asyncio.to_thread(start_node, folder, plan)
    try:
        running = RunningNode(node.url, node.admin_url, Address(bytes(20)))
        async with Buyer(running) as buyer:
            yield Siege(node, buyer)
    finally:
        await asyncio.to_thread(node.program.stop)


@pytest.mark.timeout(1200)
async def test_every_request_is_answered_and_charged_once_or_not_at_all(tmp_path: Path) -> None:
    ids = [f"attempt-{number:012d}" for number in range(JOBS)]
    moments = random.Random(20261124)  # noqa: S311  moments, not secrets
    async with besieged(tmp_path) as siege:
        await siege.buyer.headers(price=None)
        async with asyncio.TaskGroup() as group:
            watch = group.create_task(siege.watch_health())
            callers = [group.create_task(siege.call(ids)) for _ in range(CALLERS)]
            killer = group.create_task(siege.kill_at_random(moments))
            await asyncio.wait([*callers, killer])
            watch.cancel()
        status = await siege.status()
    jobs = node_jobs(siege.node)
    _report(siege, jobs)
    assert siege.kills >= KILLS
    assert len(siege.answers) == JOBS
    assert {code for code, _ in siege.answers.values()} <= {200, 500, 503}
    assert set(siege.health) <= {"OK", "LOADING"}
    assert siege.health["LOADING"]
    # Each request is one job with one end, and whoever got no picture owes nothing.
    assert len({job.job_id for job in jobs}) == len(jobs) == JOBS
    fees = sorted(fee for code, fee in siege.answers.values() if code == 200)
    assert sorted(job.charged for job in jobs if job.state == "delivered") == fees
    assert all(fees)
    assert {job.state for job in jobs} <= {"delivered", "failed", "refused"}
    assert not any(job.charged for job in jobs if job.state != "delivered")
    assert (int(status["earned_since_start"]), int(status["held"])) == (sum(fees), 0)
    # A job is given up only after several workers died under it, which chance seldom does.
    assert len(fees) >= JOBS - siege.kills


def _report(siege: Siege, jobs: list[Sold]) -> None:
    answers = Counter(code for code, _ in siege.answers.values())
    states = Counter(job.state for job in jobs)
    print(  # noqa: T201  the figures of a long run, shown by pytest -s
        f"{JOBS} requests, {siege.kills} kills: answers {dict(answers)}, "
        f"journal {dict(states)}, /health {dict(siege.health)}"
    )
