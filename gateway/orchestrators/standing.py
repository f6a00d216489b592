"""What experience says of an orchestrator: how fast it is, and whether it is to be spared for now.

A busy orchestrator has done nothing wrong, and neither has one that a client's mistake reached; only
broken answers and broken connections count. Time comes in as an argument (monotonic seconds).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from types import MappingProxyType

from network.units import ModelId

#: Pixel-steps that are remembered, about four jobs of 512 x 512 with 20 steps.
_WINDOW = 20_000_000


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
class Pace:
    """The time recent work took. Work counts by its size:

    small jobs, which are mostly waiting and encoding, do not make an orchestrator look slow.
    """

    #: Femtoseconds.
    time: int
    #: Pixels times steps.
    work: int

    @property
    def per_pixel_step(self) -> int:
        """Femtoseconds."""
        return max(self.time // self.work, 1)

    def then(self, newer: "Pace") -> "Pace":
        """Both, of which no more is remembered than the window holds, the oldest least."""
        time, work = self.time + newer.time, self.work + newer.work
        return Pace(time, work) if work <= _WINDOW else Pace(time * _WINDOW // work, _WINDOW)


@dataclass(frozen=True, slots=True)
class Standing:
    """One orchestrator's record."""

    #: By model.
    paces: Mapping[ModelId, Pace] = field(default_factory=lambda: MappingProxyType({}))
    #: Failures since the last good job.
    failures: int = 0
    #: Monotonic seconds.
    suspended_until: float = 0.0
    fault: Fault | None = None
    #: In words, for the operator.
    reason: str = ""

    def pace(self, model_id: ModelId) -> int | None:
        """Femtoseconds per pixel and step; None where nothing was measured."""
        pace = self.paces.get(model_id)
        return None if pace is None else pace.per_pixel_step

    def is_suspended(self, now: float) -> bool:
        return self.suspended_until > now


def after_success(standing: Standing, model_id: ModelId, measured: Pace | None) -> Standing:
    """A job was delivered (None where loading the model makes its time tell nothing)."""
    paces = standing.paces
    if measured is not None:
        known = paces.get(model_id)
        pace = measured if known is None else known.then(measured)
        paces = MappingProxyType({**paces, model_id: pace})
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


def measured_pace(seconds: float, pixels: int, steps: int) -> Pace:
    """What one job took."""
    return Pace(round(seconds * 1e15), max(pixels * steps, 1))
