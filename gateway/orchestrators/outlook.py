"""Why nobody takes a request, in true words for the client, and when to ask again."""

from collections import Counter
from collections.abc import Sequence
from fractions import Fraction

from gateway.orchestrators.selection import FEMTOSECONDS, Ranking, Reason, Refusal, expected_of
from network.errors import Problem
from network.units import format_price
from network.wire import problems

#: Reasons that may pass within the time a request can wait.
PASSING = frozenset({Reason.BUSY, Reason.UNPRICED})
_SHORTEST, _LONGEST = 1.0, 60.0


def may_pass(ranking: Ranking) -> bool:
    """Whether waiting a little may help."""
    return not PASSING.isdisjoint(ranking.reasons())


def retry_after(ranking: Ranking, jobs: int, ahead: int) -> float:
    """Seconds until a place is likely to be free for one more request.

    `jobs` of ours are under way on the model, `ahead` requests wait before this one.
    """
    times = [
        expected_of(prospect, ranking.need) / FEMTOSECONDS
        for prospect, reason in ranking.passed_over
        if reason is Reason.BUSY
    ]
    one_job = min(times, default=_SHORTEST)
    return min(max(one_job * (ahead + 1) / max(jobs, 1), _SHORTEST), _LONGEST)


def no_capacity(ranking: Ranking, jobs: int, ahead: int, waited: float) -> Problem:
    seconds = retry_after(ranking, jobs, ahead)
    return problems.no_capacity(
        seconds,
        f"Every orchestrator that offers {ranking.need.model_id} is busy, and none became free "
        f"within {waited:.0f} s. Try again in about {seconds:.0f} s.",
    )


def line_full(ranking: Ranking, jobs: int, waiting: int) -> Problem:
    seconds = retry_after(ranking, jobs, waiting)
    return problems.no_capacity(
        seconds,
        f"Every orchestrator that offers {ranking.need.model_id} is busy, and {waiting} requests "
        f"wait already. Try again in about {seconds:.0f} s.",
    )


def nobody(ranking: Ranking, failures: Sequence[str], others: Sequence[Refusal]) -> Problem:
    """Nobody is eligible and waiting would not help. `failures` are this request's own."""
    if failures:
        return all_failed(failures)
    cheapest = ranking.cheapest_price()
    if cheapest is not None and ranking.need.price_cap is not None:
        return _above_cap(ranking, cheapest, ranking.need.price_cap)
    model_id = ranking.need.model_id
    counts = Counter(reason.value for _, reason in ranking.passed_over)
    listed = ", ".join(f"{count} {reason}" for reason, count in sorted(counts.items()))
    silent = sum(other.reason is Reason.UNREACHABLE for other in others)
    message = f"No orchestrator can take {model_id} now"
    if listed:
        message += f". Of those that offer it: {listed}"
    if silent:
        message += f". Of the others, {silent} unreachable"
    return problems.orchestrators_failed(message + ".")


def all_failed(failures: Sequence[str]) -> Problem:
    """Each failure says what one orchestrator did, e.g. "it answered 500: ..."."""
    if len(failures) == 1:
        return problems.orchestrators_failed(
            f"The orchestrator that was asked failed, and there is no other: {failures[0]}."
        )
    return problems.orchestrators_failed(
        f"All {len(failures)} orchestrators that were asked failed. The last: {failures[-1]}."
    )


def too_late(failures: Sequence[str], left: float) -> Problem:
    """Nobody who is free would deliver before the request's deadline, after others failed."""
    return problems.timed_out(
        f"An orchestrator failed, and no other that is free is expected to deliver within the "
        f"{max(left, 0.0):.1f} s that are left. The failure: {failures[-1]}."
    )


def not_retried(failures: Sequence[str]) -> Problem:
    """So many requests fail that this one is not tried elsewhere."""
    return problems.orchestrators_failed(
        f"An orchestrator failed, and so many requests failed in the last minute that this one was "
        f"not sent to another. The failure: {failures[-1]}."
    )


def nobody_known(silent: Sequence[Refusal]) -> Problem:
    """Not one orchestrator has ever told what it offers."""
    if not silent:
        return problems.orchestrators_failed(
            "This gateway has no orchestrators configured, and no list of its sources names any."
        )
    return problems.orchestrators_failed(
        f"None of the {len(silent)} orchestrators of this gateway has answered yet. "
        f"The last attempt: {silent[-1].detail}."
    )


def _above_cap(ranking: Ranking, cheapest: Fraction, cap: Fraction) -> Problem:
    return problems.price_above_cap(
        f"Every orchestrator that can take {ranking.need.model_id} now asks more than the price "
        f"cap of {format_price(cap)} wei per pixel; the cheapest asks {format_price(cheapest)}."
    )
