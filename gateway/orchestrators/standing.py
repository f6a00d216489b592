"""What experience says of an orchestrator: how fast it is, and whether it is to be spared for now.

A busy orchestrator has done nothing wrong, and neither has one that a client's mistake reached; only
broken answers and broken connections count. Time comes in as an argument (monotonic seconds).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from types import MappingProxyType

from network.units import ModelId

#: The newest measurement weighs 3/10: a change of speed shows within a few jobs, one slow job does not.
_NEWEST, _WHOLE = 3, 10


class Fault(Enum):
    """What went wrong, named by how it can be put right."""

    #: No connection could be made: over as soon as it answers anything, the first time.
    UNREACHABLE = "unreachable"
    #: It answers, but wrongly, partly or too late: only time or a good job clears that.
    FAULTY = "faulty"


@dataclass(frozen=True, slots=True)
class Pausing:
    """How long failures keep an orchestrator out: `first x 2**(failures - 1)` seconds."""

    first: float = 2.0
    longest: float = 120.0


@dataclass(frozen=True, slots=True)
class Standing:
    """One orchestrator's record."""

    #: Femtoseconds per pixel and step, by model; the mean over recent jobs.
    paces: Mapping[ModelId, int] = field(default_factory=lambda: MappingProxyType({}))
    #: Failures since the last good job.
    failures: int = 0
    #: Monotonic seconds.
    suspended_until: float = 0.0
    fault: Fault | None = None
    #: In words, for the operator.
    reason: str = ""

    def pace(self, model_id: ModelId) -> int | None:
        return self.paces.get(model_id)

    def is_suspended(self, now: float) -> bool:
        return self.suspended_until > now


def after_success(standing: Standing, model_id: ModelId, pace: int | None) -> Standing:
    """A job was delivered at `pace` (None where loading the model makes it tell nothing)."""
    paces = standing.paces
    if pace is not None:
        known = paces.get(model_id)
        mean = pace if known is None else known + (pace - known) * _NEWEST // _WHOLE
        paces = MappingProxyType({**paces, model_id: max(mean, 1)})
    return Standing(paces=paces)


def after_failure(
    standing: Standing, fault: Fault, reason: str, pausing: Pausing, now: float
) -> Standing:
    """A job or its connection broke. Pauses grow only by failures that follow one another:

    the jobs that were under way together when an orchestrator died count as one failure.
    """
    if standing.is_suspended(now):
        return replace(standing, fault=fault, reason=reason)
    failures = standing.failures + 1
    # The exponent is capped, as a float overflows long before anybody gives up on an orchestrator.
    pause = min(pausing.first * 2.0 ** min(failures - 1, 64), pausing.longest)
    return replace(
        standing, failures=failures, suspended_until=now + pause, fault=fault, reason=reason
    )


def after_sign_of_life(standing: Standing) -> Standing:
    """It answered an information call. Wrong answers to jobs are not forgotten for that, nor are

    repeated failures to connect: the address for jobs may be another one, which nobody answers.
    """
    if standing.fault is not Fault.UNREACHABLE or standing.failures > 1:
        return standing
    return replace(standing, suspended_until=0.0, fault=None, reason="")


def measured_pace(seconds: float, pixels: int, steps: int) -> int:
    """Femtoseconds per pixel and step of one job."""
    return max(round(seconds * 1e15) // max(pixels * steps, 1), 1)
