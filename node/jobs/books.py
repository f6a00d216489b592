"""What a job's life is written into. `node.accounting.journal` is one; not every node keeps one."""

from typing import Protocol

from network.units import JobId
from node.accounting.model import Credit, Ending, Job


class Books(Protocol):
    """Holds a job's fee before the work and tells its end after it, each exactly once.

    All raise DatabaseError where nothing could be written.
    """

    async def reserve(self, job: Job, credit: Credit | None = None) -> None:
        """Hold a job's fee; raises PaymentRefusedError or InsufficientBalanceError if it cannot."""

    async def settle(self, job: Job, ending: Ending) -> None:
        """Charge a delivered job."""

    async def release(self, job_id: JobId, ending: Ending) -> Ending:
        """Close a job without a charge, unless it is closed; returns the end that counts."""
