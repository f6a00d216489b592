"""The books of a runner: none. The orchestrator that calls it charges for what it delivers."""

from network.units import JobId
from node.accounting.model import Credit, Ending, Job


class NoBooks:
    """Lets every job pass and keeps nothing: no fee to hold, nothing to charge."""

    async def reserve(self, job: Job, credit: Credit | None = None) -> None:
        """Hold nothing."""

    async def settle(self, job: Job, ending: Ending) -> None:
        """Charge nothing."""

    async def release(self, job_id: JobId, ending: Ending) -> Ending:
        """Return the end: no other came before it."""
        del job_id
        return ending
