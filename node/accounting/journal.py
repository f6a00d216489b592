"""The ledger, written down: each change is on disk before anything follows from it."""

from collections import deque
from fractions import Fraction
from typing import Final

import structlog
from sqlalchemy import Connection, select

from network.errors import DatabaseError, LimnerError
from network.runtime.clock import Clock
from network.runtime.database import Database
from network.runtime.inserting import Row
from network.units import Address, JobId, Wei, format_price
from node.accounting.ledger import Accepted, Account, Insufficient, Ledger, Repeated
from node.accounting.model import Credit, Ending, Job, Outcome, Receipt
from node.accounting.tables import ends, jobs, payments

#: Where the journal's migrations are, for `open_database`.
MIGRATIONS: Final = "node.accounting.migrations"
#: Closed jobs that the ledger remembers, so that a repeated call stays harmless.
_REMEMBERED: Final = 4096

log = structlog.get_logger(__name__)


class InsufficientBalanceError(LimnerError):
    """The payer has not paid in enough."""


class PaymentRefusedError(LimnerError):
    """The payment does not do; the message is for the payer, in the wire's words."""


class Journal:
    """Reserve, settle and release, durably and once for each job.

    The ledger changes first, in memory and without a pause; the database's one queue then
    keeps that order, whatever is cancelled while it writes.
    """

    def __init__(self, database: Database, ledger: Ledger, clock: Clock) -> None:
        self._database = database
        self._ledger = ledger
        self._clock = clock
        self._earned = 0
        self._endings: dict[JobId, Ending] = {}
        self._order: deque[JobId] = deque()

    @property
    def earned(self) -> Wei:
        """What was charged since this process started."""
        return Wei(self._earned)

    @property
    def held(self) -> Wei:
        """What open jobs hold."""
        return Wei(sum(account.held for account in self._ledger.accounts.values()))

    async def close_interrupted(self) -> int:
        """Release what a process that died had reserved; returns how many jobs that was."""
        left = await self._database.read(_unended)
        now = self._clock.now()
        ending = Ending(Outcome.INTERRUPTED, "the node stopped")
        await self._database.append(
            [(ends, _end_row(job_id, ending, Wei(0), now)) for job_id in left]
        )
        if left:
            log.warning("released what jobs of an interrupted run had reserved", jobs=len(left))
        return len(left)

    async def restore_accounts(self) -> None:
        """Begin with the payers' balances as they were written down; before any job is reserved.

        Jobs that came without a payment, off-chain, are no debts: nobody was to pay for them in advance.
        """
        for payer, account in (await self._database.read(_accounts)).items():
            self._ledger.restore(payer, account)

    async def recent_attempts(self, most: int) -> list[str]:
        """The ids of the last attempts that paid, the oldest first."""
        return await self._database.read(lambda connection: _attempts(connection, most))

    async def recent_jobs(self, most: int) -> list[str]:
        """The attempt ids of the last jobs, paid for or not, the oldest first."""
        return await self._database.read(lambda connection: _jobs(connection, most))

    async def receipt(self, attempt_id: str) -> Receipt | None:
        """What is on disk about an attempt; None if it never reached the books."""
        return await self._database.read(lambda connection: _receipt(connection, attempt_id))

    async def reserve(self, job: Job, credit: Credit | None = None) -> None:
        """Hold a job's fee, out of what its payment brings; both become durable together.

        Raises PaymentRefusedError, InsufficientBalanceError or DatabaseError; then nothing is held.
        What the payment brought is kept but with the last.
        """
        rows: list[Row] = []
        if credit is not None:
            self._ledger.credit(credit.payer, credit.amount)
        refused = self._refused(job, credit)
        now = self._clock.now()
        # A payment that brought nothing and does not do is not written: strangers can send any number.
        if credit is not None and (refused is None or credit.rows):
            rows += [(payments, _payment_row(job.attempt_id, credit, now)), *credit.rows]
        if refused is None:
            rows.append((jobs, _job_row(job, now)))
        try:
            await self._database.append(rows)
        except DatabaseError:
            if refused is None:
                self._ledger.release(job.job_id)
                self._ledger.forget(job.job_id)
            if credit is not None:
                self._ledger.retract(credit.payer, credit.amount)
            raise
        if refused is not None:
            raise refused

    def _refused(self, job: Job, credit: Credit | None) -> LimnerError | None:
        """Hold the fee, or tell why not."""
        if credit is not None and credit.refusal:
            return PaymentRefusedError(credit.refusal)
        outcome = self._ledger.reserve(job.job_id, job.payer, job.fee)
        if isinstance(outcome, Insufficient):
            return InsufficientBalanceError(f"{outcome.shortfall} wei are missing")
        if isinstance(outcome, Repeated):
            raise ValueError(f"job {job.job_id} was reserved before")  # noqa: TRY004  its value, not its type
        return None

    async def settle(self, job: Job, ending: Ending) -> None:
        """Charge a delivered job. Raises DatabaseError; the job then stays open on disk."""
        if isinstance(self._ledger.settle(job.job_id, job.fee), Accepted):
            self._earned += job.fee
            await self._write_end(job.job_id, ending, job.fee)

    async def release(self, job_id: JobId, ending: Ending) -> Ending:
        """Close a job without a charge, unless it is closed; returns the end that counts.

        A job that was never reserved is none of the journal's.
        """
        if self._ledger.hold(job_id) is None:
            return ending
        if isinstance(self._ledger.release(job_id), Repeated):
            return self._endings.get(job_id, ending)
        await self._write_end(job_id, ending, Wei(0))
        return ending

    async def _write_end(self, job_id: JobId, ending: Ending, charged: Wei) -> None:
        self._endings[job_id] = ending
        self._order.append(job_id)
        if len(self._order) > _REMEMBERED:
            oldest = self._order.popleft()
            self._endings.pop(oldest, None)
            self._ledger.forget(oldest)
        try:
            row = _end_row(job_id, ending, charged, self._clock.now())
            await self._database.append([(ends, row)])
        except DatabaseError:
            # On disk the job is still open, and the next start closes it as interrupted.
            del self._endings[job_id]
            raise


def payer_text(payer: Address) -> str:
    """Return an account as the tables hold it."""
    return payer.hex()


def _unended(connection: Connection) -> list[JobId]:
    query = select(jobs.c.job_id).outerjoin(ends).where(ends.c.job_id.is_(None))
    return [JobId(job_id) for job_id in connection.scalars(query)]


def _accounts(connection: Connection) -> dict[Address, Account]:
    credited: dict[str, Fraction] = {}
    for payer, credit in connection.execute(select(payments.c.payer, payments.c.credit)):
        credited[payer] = credited.get(payer, Fraction(0)) + Fraction(credit)
    charged: dict[str, int] = {}
    paid = jobs.join(payments, jobs.c.attempt_id == payments.c.attempt_id).join(ends)
    query = select(jobs.c.payer, ends.c.charged).select_from(paid)
    for payer, amount in connection.execute(query):
        charged[payer] = charged.get(payer, 0) + amount
    return {
        Address(bytes.fromhex(payer)): Account(
            credited=credited.get(payer, Fraction(0)), charged=Wei(charged.get(payer, 0))
        )
        for payer in credited.keys() | charged.keys()
    }


def _attempts(connection: Connection, most: int) -> list[str]:
    query = select(payments.c.attempt_id).order_by(payments.c.received_at.desc()).limit(most)
    return list(connection.scalars(query))[::-1]


def _jobs(connection: Connection, most: int) -> list[str]:
    query = select(jobs.c.attempt_id).order_by(jobs.c.accepted_at.desc()).limit(most)
    return list(connection.scalars(query))[::-1]


def _receipt(connection: Connection, attempt_id: str) -> Receipt | None:
    credit = connection.scalar(
        select(payments.c.credit).where(payments.c.attempt_id == attempt_id)
    )
    job = connection.execute(
        select(ends.c.state, ends.c.charged)
        .select_from(jobs.outerjoin(ends))
        .where(jobs.c.attempt_id == attempt_id)
    ).first()
    if credit is None and job is None:
        return None
    state, charged = ("refused", Wei(0)) if job is None else (job.state or "open", job.charged)
    return Receipt(Fraction(credit or 0), charged or Wei(0), state)


def _payment_row(attempt_id: str, credit: Credit, now: float) -> dict[str, object]:
    return {
        "attempt_id": attempt_id,
        "payer": payer_text(credit.payer),
        "credit": str(credit.amount),
        "tickets": credit.tickets,
        "received_at": now,
    }


def _job_row(job: Job, now: float) -> dict[str, object]:
    return {
        "job_id": job.job_id,
        "attempt_id": job.attempt_id,
        "payer": payer_text(job.payer),
        "model_id": job.model_id,
        "width": job.width,
        "height": job.height,
        "images": job.images,
        "steps": job.steps,
        "pixels": job.pixels,
        "price": format_price(job.price),
        "fee": job.fee,
        "accepted_at": now,
    }


def _end_row(job_id: JobId, ending: Ending, charged: Wei, now: float) -> dict[str, object]:
    return {
        "job_id": job_id,
        "state": ending.outcome.value,
        "reason": ending.reason,
        "charged": charged,
        "waited_seconds": ending.waited_seconds,
        "run_seconds": ending.run_seconds,
        "ended_at": now,
    }
