"""What is said about a job while it is under way, and when it got no place."""

from dataclasses import dataclass

from network.errors import LimnerError
from network.units import Wei
from node.accounting.model import Ending, Job, Outcome
from node.jobs.board import Reason


@dataclass(frozen=True, slots=True)
class JobProgress:
    """How far a job is: "waiting" at `position` (1 is next) or "running" its steps."""

    state: str
    done_steps: int
    total_steps: int
    position: int


@dataclass(frozen=True, slots=True)
class JobReport:
    """The end of an accepted job."""

    job: Job
    ending: Ending

    @property
    def charged(self) -> Wei:
        """What the payer owes for it."""
        return self.job.fee if self.ending.outcome is Outcome.DELIVERED else Wei(0)


class NoPlaceError(LimnerError):
    """The job was not taken, or waited in vain; another node may have room."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(f"insufficient capacity: {reason}")
        self.reason = reason


class RepeatedAttemptError(LimnerError):
    """A gateway used an attempt's id a second time."""
