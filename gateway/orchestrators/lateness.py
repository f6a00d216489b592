"""How much longer than expected jobs take, so that it can be told when one is late. Pure.

Expected times are learned of each orchestrator (`pace`); how far jobs stray from them is learned here,
over all orchestrators, by kinds of jobs. A job that was cut off took at least as long as it had
until then. Left out, or taken as done, such jobs would make all jobs look short, and ever more of
them late; so the quantile is that of Kaplan and Meier, in which they count for as long as they were seen.
"""

from bisect import insort
from collections import deque
from collections.abc import Sequence
from typing import Final, NamedTuple, TypeAlias

from gateway.orchestrators.selection import Candidate, Need

#: Jobs of one kind that are remembered.
_WINDOW: Final = 256
#: Kinds that are remembered, the latest used.
_MOST_KINDS: Final = 256
#: So many new jobs of a kind go by until its quantile is looked up anew.
_STALE_AFTER: Final = 8
_EPSILON: Final = 1e-9

#: Model, size class, and whether the expectation comes from jobs of that size at that orchestrator.
Kind: TypeAlias = tuple[str, int, bool]


class Took(NamedTuple):
    """One job's time, as a multiple of the time that was expected; they order by it.

    Of two that are equal the finished one comes first: what was cut off then goes on.
    """

    ratio: float
    was_cut_off: bool = False


def kind_of(need: Need, candidate: Candidate, *, is_measured: bool) -> Kind:
    """`is_measured`: jobs of that model and size were delivered there before."""
    return need.model_id, need.size, is_measured and not candidate.prospect.is_cold


def quantile(ordered: Sequence[Took], share: float) -> float:
    """The least ratio that at least `share` (0 to 1) of the jobs stay within, as far as can be told.

    Where those that were cut off hide it, the largest ratio seen. `ordered` is not empty.
    """
    beyond = 1.0
    for number, (ratio, was_cut_off) in enumerate(ordered):
        if was_cut_off:
            continue
        left = len(ordered) - number
        beyond *= (left - 1) / left
        if beyond <= 1 - share + _EPSILON:
            return ratio
    return ordered[-1].ratio


class _Recent:
    """The latest jobs of one kind."""

    __slots__ = ("_age", "_known", "_latest", "_ordered")

    def __init__(self) -> None:
        self._latest: deque[Took] = deque()
        self._ordered: list[Took] = []
        self._known: float | None = None
        #: Jobs since that was looked up.
        self._age = 0

    def __len__(self) -> int:
        return len(self._latest)

    def add(self, took: Took) -> None:
        self._latest.append(took)
        insort(self._ordered, took)
        if len(self._latest) > _WINDOW:
            self._ordered.remove(self._latest.popleft())
        self._age += 1

    def quantile(self, share: float) -> float:
        if self._known is None or self._age >= _STALE_AFTER:
            self._known, self._age = quantile(self._ordered, share), 0
        return self._known


class Lateness:
    """Of all kinds of jobs. A job is late that takes longer than `share` of its kind do."""

    def __init__(self, share: float) -> None:
        self._share = share
        #: A quantile is that of something only where a job or more lies beyond it.
        self._fewest = round(1 / (1 - share))
        self._kinds: dict[Kind, _Recent] = {}

    def learn(self, kind: Kind, seconds: float, expected: float, *, was_cut_off: bool) -> None:
        """`expected` seconds were expected when the job was sent; 0 tells nothing."""
        if expected <= 0:
            return
        recent = self._kinds.pop(kind, None)
        if recent is None:
            recent = _Recent()
            if len(self._kinds) >= _MOST_KINDS:
                del self._kinds[next(iter(self._kinds))]
        self._kinds[kind] = recent
        recent.add(Took(seconds / expected, was_cut_off))

    def late_after(self, kind: Kind, expected: float) -> float | None:
        """Seconds after which a job of that kind is late; None where too few were seen."""
        recent = self._kinds.get(kind)
        if recent is None or len(recent) < self._fewest:
            return None
        return recent.quantile(self._share) * expected
