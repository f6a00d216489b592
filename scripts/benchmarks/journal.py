"""How many paid jobs a second the node's journal makes durable."""

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Final

from network.runtime.clock import SystemClock
from network.runtime.database import open_database
from network.runtime.inserting import Row
from network.units import Address, JobId, ModelId, Pixels, Wei
from node.accounting.journal import MIGRATIONS, Journal
from node.accounting.ledger import Ledger
from node.accounting.model import Credit, Ending, Job, Outcome
from node.accounting.tables import ticket_nonces

_PAYERS: Final = 16
_FEE: Final = Wei(10**10)
#: Two tickets that are worth a fraction more than the fee, as rounding leaves them.
_CREDIT: Final = Fraction(_FEE) + Fraction(1, 3)
_DELIVERED: Final = Ending(Outcome.DELIVERED, waited_seconds=0.1, run_seconds=1.0)


@dataclass(frozen=True, slots=True)
class Pace:
    """Jobs a second by the clock, and processor milliseconds of one, all threads."""

    jobs_per_s: float
    cpu_ms_per_job: float


async def measure_journal(folder: Path, *, jobs: int, callers: int) -> Pace:
    """Jobs that were paid, reserved and settled, each of both steps on disk before the next.

    `callers` jobs are under way at any time. Every commit is synced to the disk in full; those that
    come together share one.
    """
    async with open_database(f"sqlite:///{folder / 'journal.sqlite'}", MIGRATIONS) as database:
        journal = Journal(database, Ledger(Wei(0)), SystemClock())
        numbers = iter(range(jobs))
        started, busy = time.perf_counter(), time.process_time()
        async with asyncio.TaskGroup() as group:
            for _ in range(callers):
                group.create_task(_keep_going(journal, numbers))
        elapsed, spent = time.perf_counter() - started, time.process_time() - busy
        if journal.earned != jobs * _FEE or journal.held:
            raise RuntimeError(f"{journal.earned} wei were booked for {jobs} jobs of {_FEE}")
    return Pace(jobs / elapsed, spent * 1000 / jobs)


async def _keep_going(journal: Journal, numbers: Iterator[int]) -> None:
    for number in numbers:
        job = _job(number)
        await journal.reserve(job, _credit(job.payer, number))
        await journal.settle(job, _DELIVERED)


def _job(number: int) -> Job:
    pixels = Pixels(512 * 512)
    return Job(
        job_id=JobId(f"{number:032x}"),
        attempt_id=f"{number:032x}",
        payer=Address((number % _PAYERS + 1).to_bytes(20, "big")),
        model_id=ModelId("limner/shapes"),
        width=512,
        height=512,
        images=1,
        steps=20,
        pixels=pixels,
        price=Fraction(_FEE, pixels),
        fee=_FEE,
    )


def _credit(payer: Address, number: int) -> Credit:
    hash_ = f"{number:064x}"
    rows: list[Row] = [
        (
            ticket_nonces,
            {"recipient_rand_hash": hash_, "nonce": nonce, "expiration_block": 1000},
        )
        for nonce in (1, 2)
    ]
    return Credit(payer, _CREDIT, len(rows), tuple(rows))
