"""What would become of a request that began now, with nothing done for it. Pure."""

from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from gateway.orchestrators import outlook
from gateway.orchestrators.selection import Candidate, Ranking, Reason, Refusal, rank
from network.errors import ProblemError
from network.units import ModelId, Wei
from network.wire import problems

#: Seconds; orchestrators are asked for their prices about so soon.
_PRICED_SOON: Final = 1.0


@dataclass(frozen=True, slots=True)
class Survey:
    """What a request meets at one moment (monotonic seconds)."""

    ranking: Ranking
    #: Those who do not offer the model, or never answered.
    others: tuple[Refusal, ...]
    #: Our own jobs on the model.
    jobs: int
    #: Requests that wait for a place already, and how many may.
    waiting: int
    max_waiting: int
    now: float


@dataclass(frozen=True, slots=True)
class Foresight:
    """The best there is: `free` orchestrators could take it now, or else one will in `wait` seconds."""

    best: Candidate
    free: int
    wait: float


@dataclass(frozen=True, slots=True)
class Quote:
    """What a request would cost and how long it would take."""

    model_id: ModelId
    fee: Wei
    #: Wei per pixel.
    price: Fraction
    expected_seconds: float
    #: How many could take it now.
    orchestrators: int
    #: Whether the one that would be asked has the model in memory.
    warm: bool
    waiting: int


def foresee(survey: Survey) -> Foresight:
    """Raises ProblemError where a request would be refused, in the same words."""
    ranking = survey.ranking
    candidates = ranking.candidates
    if candidates:
        return Foresight(candidates[0], len(candidates), 0.0)
    if not outlook.may_pass(ranking):
        raise ProblemError(outlook.nobody(ranking, (), survey.others))
    if survey.waiting >= survey.max_waiting:
        raise ProblemError(outlook.line_full(ranking, survey.jobs, survey.waiting))
    best = _once_free(survey)
    if best is None:
        message = f"The price of {ranking.need.model_id} is not known yet. Try again in a second."
        raise ProblemError(problems.no_capacity(_PRICED_SOON, message))
    return Foresight(best, 0, outlook.retry_after(ranking, survey.jobs, survey.waiting))


def _once_free(survey: Survey) -> Candidate | None:
    """The best of those who are only busy."""
    ranking = survey.ranking
    busy = [
        prospect.with_free(1) for prospect, reason in ranking.passed_over if reason is Reason.BUSY
    ]
    return rank(ranking.need, busy, ranking.policy, survey.now).best
