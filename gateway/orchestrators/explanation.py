"""Why each orchestrator would be chosen for a request or not. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final

from gateway.orchestrators.selection import (
    Candidate,
    Prospect,
    Ranking,
    Reason,
    Refusal,
    candidate_of,
    score_of,
)
from network.units import Wei, format_price

#: Of the others the price, if there is one, is not what a request would be asked for.
_PRICED: Final = frozenset(
    {Reason.ABOVE_CAP, Reason.STALE, Reason.SUSPENDED, Reason.BUSY, Reason.TRIED}
)


@dataclass(frozen=True, slots=True)
class Figures:
    """What a choice weighs."""

    #: Wei per pixel.
    price: Fraction
    fee: Wei
    expected_seconds: float
    #: `fee + time_value x expected seconds`, in wei, exact.
    score: Fraction
    #: Free places, less our own jobs that the orchestrator does not count yet.
    free: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """One orchestrator: its place in the order, or the reason why it has none."""

    uri: str
    #: 1 gets the request; None is passed over.
    rank: int | None
    reason: Reason | None = None
    detail: str = ""
    figures: Figures | None = None

    def as_json(self) -> dict[str, Any]:
        """Amounts are exact text."""
        figures = self.figures
        return {
            "uri": self.uri,
            "rank": self.rank,
            "reason": None if self.reason is None else self.reason.value,
            "detail": self.detail,
            "price_wei_per_pixel": None if figures is None else format_price(figures.price),
            "fee_wei": None if figures is None else str(figures.fee),
            "expected_seconds": None if figures is None else round(figures.expected_seconds, 3),
            "score_wei": None if figures is None else format_price(figures.score),
            "free": None if figures is None else figures.free,
        }


def explain(ranking: Ranking, others: tuple[Refusal, ...]) -> tuple[Verdict, ...]:
    """Everybody: the eligible in their order, then the rest by URI."""
    chosen = [
        Verdict(one.uri, place, figures=_figures(ranking, one))
        for place, one in enumerate(ranking.candidates, 1)
    ]
    passed = [*_passed_over(ranking), *(Verdict(one.uri, None, *one[1:]) for one in others)]
    return (*chosen, *sorted(passed, key=lambda verdict: verdict.uri))


def _passed_over(ranking: Ranking) -> Iterator[Verdict]:
    known = {prospect.uri: prospect for prospect, _ in ranking.passed_over}
    for uri, reason, detail in ranking.refusals:
        figures = _figures(ranking, _once_eligible(ranking, known[uri]))
        yield Verdict(uri, None, reason, detail, figures if reason in _PRICED else None)


def _once_eligible(ranking: Ranking, one: Prospect) -> Candidate:
    return candidate_of(score_of(one, ranking.need, ranking.policy), one, ranking.need)


def _figures(ranking: Ranking, one: Candidate) -> Figures:
    prospect = one.prospect
    score = ranking.score(one)
    return Figures(prospect.price, one.fee, one.expected_seconds, score, prospect.free)
