"""What experience says of an orchestrator: how fast it is, and whether it is to be spared for now.

A busy orchestrator has done nothing wrong, and neither has one that a client's mistake reached;
broken answers and broken connections count, and wrong deliveries weigh more. Time comes in as an argument (monotonic seconds).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import Final

import msgspec
from msgspec.structs import replace

from gateway.orchestrators.pace import Pace, Paces, size_class
from network.units import ModelId

_WRONGS_WEIGHT: Final = 3
#: Jobs at a time.
_FULL_TRUST: Final = 16
#: A change by less than one part in so many waits for the next refresh.
_SMALL: Final = 10


class Fault(Enum):
    """What went wrong, the lightest first: how it can be put right, and how much it weighs."""

    #: No connection could be made: over as soon as it answers anything, the first time.
    UNREACHABLE = "unreachable"
    #: It answers, but with an error, partly or too late: only time or a good job clears that.
    FAULTY = "faulty"
    #: It delivered what was not asked, or charged more than was agreed. Honest machines hardly do:
    #: it weighs as much as several failures, and one good job makes up for half of it only.
    WRONG = "wrong"

    @property
    def weight(self) -> int:
        """In failures."""
        return _WRONGS_WEIGHT if self is Fault.WRONG else 1

    def is_heavier_than(self, other: "Fault | None") -> bool:
        return other is None or self.weight > other.weight


@dataclass(frozen=True, slots=True)
class Pausing:
    """How long failures keep an orchestrator out: `first x 2**(failures - 1)` seconds."""

    first: float = 2.0
    longest: float = 120.0
    #: Instead of `longest` for wrong deliveries.
    longest_wrong: float = 1800.0

    def pause(self, fault: Fault, failures: int) -> float:
        longest = max(self.longest, self.longest_wrong) if fault is Fault.WRONG else self.longest
        # The exponent is capped, as a float overflows long before anybody gives up on an orchestrator.
        return float(min(self.first * 2.0 ** min(failures - 1, 64), longest))


class Delivery(msgspec.Struct, frozen=True):
    """A job that was delivered, as far as its time tells of the orchestrator."""

    model_id: ModelId
    #: Of all its images together.
    pixels: int
    steps: int
    seconds: float
    images: int = 1
    #: The model was not loaded when the job was sent.
    was_cold: bool = False

    @property
    def size(self) -> int:
        return size_class(self.pixels // self.images)

    @property
    def work(self) -> int:
        return max(self.pixels * self.steps, 1)

    @property
    def time(self) -> int:
        """Femtoseconds."""
        return round(self.seconds * 1e15)


class Standing(msgspec.Struct, frozen=True):
    """One orchestrator's record."""

    #: By model.
    paces: Mapping[ModelId, Paces] = msgspec.field(default_factory=lambda: MappingProxyType({}))
    #: Femtoseconds that loading a model took there.
    loads: Mapping[ModelId, int] = msgspec.field(default_factory=lambda: MappingProxyType({}))
    #: Failures since the last good job, by their weight.
    failures: int = 0
    #: Monotonic seconds.
    suspended_until: float = 0.0
    fault: Fault | None = None
    #: In words, for the operator.
    reason: str = ""
    #: Jobs of ours it may have at a time, until it has proved itself; None for as many as it takes.
    allowance: int | None = None

    def pace(self, model_id: ModelId, size: int) -> int | None:
        """Femtoseconds per pixel and step at a size class; None where that was not measured."""
        paces = self.paces.get(model_id)
        return None if paces is None else paces.at(size)

    def is_suspended(self, now: float) -> bool:
        return self.suspended_until > now


def after_success(standing: Standing, job: Delivery, believed: int) -> Standing:
    """A job was delivered. `believed` is the pace that was expected of it: of a cold model's job,

    what is left of the time went into loading.
    """
    paces, loads, model_id = standing.paces, standing.loads, job.model_id
    if job.was_cold:
        load = max(job.time - job.work * believed, 0)
        loads = MappingProxyType({**loads, model_id: (load + loads.get(model_id, load)) // 2})
    else:
        known = paces.get(model_id, Paces.none())
        measured = known.then(job.size, Pace(job.time, job.work))
        paces = MappingProxyType({**paces, model_id: measured})
    allowance = _grown(standing.allowance)
    if standing.fault is not Fault.WRONG or standing.failures <= 1:
        return Standing(paces=paces, loads=loads, allowance=allowance)
    return replace(
        standing,
        paces=paces,
        loads=loads,
        failures=standing.failures // 2,
        suspended_until=0.0,
        allowance=allowance,
    )


def after_overdue(standing: Standing, job: Delivery, believed: int) -> Standing:
    """A job was cut off after so long. `believed` is the pace that was expected of it: where the job

    took longer already, it counts as if it were done, which is the least that it took; else it tells nothing.
    """
    taken = Pace(job.time, job.work)
    if job.was_cold or taken.per_pixel_step <= believed:
        return standing
    known = standing.paces.get(job.model_id, Paces.none())
    paces = {**standing.paces, job.model_id: known.then(job.size, taken)}
    return replace(standing, paces=MappingProxyType(paces))


def newcomer() -> Standing:
    """Of one whom nobody that we trust knows: its first job is its only one."""
    return Standing(allowance=1)


def _grown(allowance: int | None) -> int | None:
    """Each delivery allows one job more, which doubles it with every round, until it is no limit."""
    return None if allowance is None or allowance >= _FULL_TRUST else allowance + 1


def after_failure(
    standing: Standing, fault: Fault, reason: str, pausing: Pausing, now: float
) -> Standing:
    """A job or its connection broke. Pauses grow only by failures that follow one another:

    the jobs that were under way together when an orchestrator died count as one failure, the heaviest.
    After the pause it gets one job at a time until it delivers, and then one more with each delivery.
    """
    before, failures = standing.fault, standing.failures
    if standing.is_suspended(now):
        if before is not None and not fault.is_heavier_than(before):
            return (
                standing
                if before.is_heavier_than(fault)
                else replace(standing, fault=fault, reason=reason)
            )
        failures = max(failures - (0 if before is None else before.weight), 0)
    failures += fault.weight
    # Wrong deliveries are not made lighter by whatever else fails before a good job.
    if before is not None and before.is_heavier_than(fault):
        fault = before
    until = now + pausing.pause(fault, failures)
    return replace(
        standing,
        failures=failures,
        suspended_until=max(until, standing.suspended_until),
        fault=fault,
        reason=reason,
        allowance=1,
    )


def after_sign_of_life(standing: Standing) -> Standing:
    """It answered an information call. Wrong answers to jobs are not forgotten for that, nor are

    repeated failures to connect: the address for jobs may be another one, which nobody answers.
    """
    if standing.fault is not Fault.UNREACHABLE or standing.failures > 1:
        return standing
    return replace(standing, suspended_until=0.0, fault=None, reason="")


def has_moved(old: int | None, new: int | None) -> bool:
    """Whether a pace became so much another one that choices should know at once."""
    if old is None or new is None:
        return old is not new
    return abs(new - old) * _SMALL > old
