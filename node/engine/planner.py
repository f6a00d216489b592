"""Decides which samples take the next denoise step together. Pure: no torch, no clock.

A sample is one image on its way. Each turn has a lead, and steps with it every sample that fits
into its forward pass, up to the cap. Two lanes choose the lead, each for half of the device's
seconds:

* the quick lane takes the job that needs the least until it is done, so that a small job takes
  about twice its own time whatever large ones came before it;
* the fair lane takes the job that has led it for the fewest seconds. Who comes later starts level
  with those who are there, so nobody is starved by newcomers: between two of its steps a job waits
  for a bounded number of turns of every other one.

Seconds, not turns, are shared: a step of a large image counts for as much as it takes.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

#: Tells how many samples of a key may step together where so many want to; at least 1.
Cap = Callable[[Hashable, int], int]


@dataclass(frozen=True, slots=True)
class Runnable:
    """A sample that wants a step.

    `sample` and `job` numbers grow with admission. Samples may share a forward pass when their
    `key` (model, latent shape, guidance on or off ...) is equal and neither is `alone`. `left` is
    how many seconds the sample's job would still need by itself, about.
    """

    sample: int
    job: int
    key: Hashable
    alone: bool
    left: float


@dataclass(frozen=True, slots=True)
class Group:
    """The samples that step together, those of the job whose turn it is first."""

    samples: tuple[int, ...]
    lead: int
    quick: bool


class Planner:
    """Plans a turn, is told what it took, plans the next."""

    def __init__(self, cap: Cap) -> None:
        self._cap = cap
        # Seconds of the fair lane by the job that led them, since the lane's beginning.
        self._led: dict[int, float] = {}
        # Where newcomers start: what a job has that was there from the beginning.
        self._level = 0.0
        # Seconds by which the quick lane is ahead of the fair one.
        self._ahead = 0.0

    def plan(self, runnable: Sequence[Runnable]) -> Group | None:
        """Return the next group; None when nothing wants a step."""
        jobs = {one.job for one in runnable}
        self._led = {job: self._led.get(job, self._level) for job in jobs}
        if not runnable:
            return None
        quick = self._ahead <= 0.0
        lead = min(runnable, key=_soonest_done if quick else self._least_led)
        if lead.alone:
            return Group((lead.sample,), lead.job, quick)
        company = [one for one in runnable if one.key == lead.key and not one.alone]
        company.sort(key=lambda one: (one.job != lead.job, *_soonest_done(one)))
        size = max(1, self._cap(lead.key, len(company)))
        return Group(tuple(one.sample for one in company[:size]), lead.job, quick)

    def charge(self, group: Group, seconds: float) -> None:
        """Take in how long a group's step took."""
        if group.quick:
            self._ahead += seconds
            return
        self._ahead -= seconds
        if group.lead in self._led:
            self._led[group.lead] += seconds
        if self._led:
            fair = self._level + seconds / len(self._led)
            self._level = max(fair, min(self._led.values()))

    def _least_led(self, one: Runnable) -> tuple[float, int, int]:
        return (self._led[one.job], one.job, one.sample)


def _soonest_done(one: Runnable) -> tuple[float, int, int]:
    return (one.left, one.job, one.sample)
