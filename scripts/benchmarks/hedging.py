"""What it brings to give late jobs to a second orchestrator, in simulated time.

The market is that of `simulation`, in which some jobs stall besides: they take ten times as long as others there, and
nobody can know which. The gateway's own rules decide what is late, who is asked second, and how often.
"""

from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import Final

from typing_extensions import override

from gateway.dispatch.hedging import Hedging
from gateway.dispatch.retrying import RetryBudget
from gateway.orchestrators.lateness import Kind, Lateness
from gateway.orchestrators.standing import Delivery, after_overdue
from network.units import Wei
from scripts.benchmarks.simulation import MODEL, NEED, Orchestrator, Simulation, World, ours

#: Of all jobs.
STALLS: Final = 0.02
_TIMES_AS_LONG: Final = 10
_SECONDS: Final = 1e-15 * NEED.pixels * NEED.steps
#: Two may be as dear as the dearest there is.
HEDGING: Final = Hedging(Wei(10**18), share=0.05)


@dataclass(frozen=True, slots=True)
class Tail:
    """Figures of one run."""

    p50_seconds: float
    p99_seconds: float
    p999_seconds: float
    #: Jobs that were begun for each request that was delivered, and the seconds of work for each.
    jobs: float
    work_seconds: float


@dataclass(slots=True)
class _Run:
    one: Orchestrator
    kind: Kind
    expected: float
    sent: float
    is_over: bool = False


@dataclass(slots=True)
class _Job:
    began: float
    best: float
    tried: set[str]
    runs: list[_Run] = field(default_factory=list)


class StallingSimulation(Simulation):
    """Without `hedging`, stalled jobs are waited for."""

    def __init__(self, count: int, randomness: Random, hedging: Hedging | None) -> None:
        super().__init__(count, ours, randomness, World(is_trusting=True))
        self._hedging = hedging
        self._lateness = Lateness(0.95 if hedging is None else hedging.quantile)
        share, spare = (0.0, 0) if hedging is None else (hedging.share, hedging.spare)
        self._allowed = RetryBudget(share, spare)
        self._jobs = 0
        self._worked = 0.0

    def measure(self, requests: int, per_second: float) -> Tail:
        _ = self.run(requests, per_second)
        seconds = sorted(self._seconds)
        count = len(seconds)
        return Tail(
            seconds[count // 2],
            seconds[count * 99 // 100],
            seconds[count * 999 // 1000],
            self._jobs / count,
            self._worked / count,
        )

    @override
    def _work(self, one: Orchestrator, began: float, best: float, tried: set[str]) -> None:
        self._allowed.earn()
        job = _Job(began, best, tried)
        run = self._begin(job, one)
        due = None
        if self._hedging is not None:
            due = self._lateness.late_after(run.kind, run.expected)
        if due is not None:
            self._at(self.now + due, partial(self._hedge, job))

    def _begin(self, job: _Job, one: Orchestrator) -> _Run:
        is_measured = one.standing.pace(MODEL, NEED.size) is not None
        kind = (MODEL, NEED.size, is_measured)
        run = _Run(one, kind, self._pace(one) * _SECONDS, self.now)
        job.runs.append(run)
        self._jobs += 1
        stalls = self._random.random() < STALLS
        seconds = one.pace * (_TIMES_AS_LONG if stalls else 1)
        self._at(self.now + seconds, partial(self._end, job, run))
        return run

    def _hedge(self, job: _Job) -> None:
        if job.runs[0].is_over:
            return
        uri = ours(self, job.tried)
        one = None if uri is None else self.orchestrators[uri]
        if one is None or one.free <= 0 or one.fails or not self._allowed.spend(self.now):
            return
        self._count(one.uri, 1)
        _ = self._begin(job, one)

    def _end(self, job: _Job, run: _Run) -> None:
        if run.is_over:
            return
        for each in job.runs:
            seconds = self.now - each.sent
            each.is_over = True
            self._worked += seconds
            was_cut_off = each is not run
            self._lateness.learn(each.kind, seconds, each.expected, was_cut_off=was_cut_off)
            if was_cut_off:
                self._cut_off(each.one, seconds)
        self._delivered(run.one, job.began, run.sent, job.best)

    def _cut_off(self, one: Orchestrator, seconds: float) -> None:
        self._count(one.uri, -1)
        cut = Delivery(MODEL, NEED.pixels, NEED.steps, seconds)
        one.standing = after_overdue(one.standing, cut, self._pace(one))
        self._tell(one)


def compare(count: int, requests: int, seed: int) -> dict[str, Tail]:
    """The same market without and with a second orchestrator for late jobs."""
    return {
        name: StallingSimulation(count, Random(seed), hedging).measure(  # noqa: S311
            requests, per_second=count / 4
        )
        for name, hedging in (("waited for", None), ("hedged", HEDGING))
    }
