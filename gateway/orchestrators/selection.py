"""Who takes a request: eligible first, then the lowest fee plus the price of the time it takes.

Everything is counted in integers, so that the order is exact and does not depend on the order
in which orchestrators are looked at. Times are whole femtoseconds: a fast device needs less than a
nanosecond for one pixel of one step.
"""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from fractions import Fraction
from functools import cached_property
from typing import NamedTuple, TypeAlias

import msgspec

from gateway.orchestrators.pace import size_class
from network.units import ModelId, Pixels, Wei

FEMTOSECONDS = 10**15


@dataclass(frozen=True, slots=True)
class Need:
    """What a request asks for, as far as routing is concerned."""

    model_id: ModelId
    #: Pixels of all images together.
    pixels: Pixels
    steps: int
    #: The most wei per pixel that may be paid: the lower of the key's and the gateway's limit.
    price_cap: Fraction | None
    images: int = 1
    #: Of one image.
    size: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", size_class(self.pixels // self.images))


@dataclass(frozen=True, slots=True)
class Policy:
    """How money is weighed against time, and what is believed about strangers."""

    #: Wei that one second of waiting is worth. 0 buys the cheapest, a large value the fastest.
    time_value: Fraction = Fraction(0)
    #: Femtoseconds per pixel and step where nobody's job with the model has been measured.
    unmeasured_pace: int = 500_000_000
    #: Femtoseconds a cold model takes to load, where that was not measured either.
    cold_load: int = 30 * FEMTOSECONDS
    #: Seconds after which an offer that was not refreshed is no longer believed.
    max_age: float = 60.0


class Reason(Enum):
    """Why an orchestrator was passed over."""

    NOT_OFFERED = "model not offered"
    INCOMPATIBLE = "not compatible"
    OUTDATED = "older than the minimum version"
    BLOCKED = "on the blocklist"
    UNREACHABLE = "unreachable"
    UNPRICED = "price not known yet"
    UNPAYABLE = "its tickets are not acceptable"
    STALE = "silent for too long"
    SUSPENDED = "paused after failures"
    ABOVE_CAP = "above the price cap"
    BUSY = "no free place"
    TRIED = "tried for this request"


class Prospect(msgspec.Struct, frozen=True):
    """One orchestrator and one model, with all that a decision needs; replaced on every change."""

    uri: str
    price_numerator: int
    price_denominator: int
    #: Free places less our own jobs that the advertisement does not count yet; fewer where the
    #: orchestrator is new or back from a pause.
    free: int
    #: Femtoseconds per pixel and step; at 512 x 512, where sizes differ.
    pace: int
    #: Femtoseconds before the first step: the way there and, for a cold model, loading.
    overhead: int
    #: Monotonic seconds until which the offer is believed.
    fresh_until: float
    #: Monotonic seconds until which the orchestrator is paused.
    suspended_until: float = 0.0
    #: Set where nothing but news makes it eligible: incompatible, outdated, blocked, unreachable,
    #: unpriced, unpayable.
    barred: Reason | None = None
    detail: str = ""
    #: `pace` by size class; empty where it is the same at all sizes.
    paces: tuple[int, ...] = ()
    #: Its model is not loaded; `overhead` counts the loading in.
    is_cold: bool = False

    def with_free(self, free: int) -> "Prospect":
        """The same with other places; done twice in each request."""
        return Prospect(
            self.uri,
            self.price_numerator,
            self.price_denominator,
            free,
            self.pace,
            self.overhead,
            self.fresh_until,
            self.suspended_until,
            self.barred,
            self.detail,
            self.paces,
            self.is_cold,
        )

    @property
    def price(self) -> Fraction:
        return Fraction(self.price_numerator, self.price_denominator)


class Candidate(NamedTuple):
    """An eligible orchestrator. Candidates order by score, then by URI."""

    #: Score in units of `1 / (10**15 * time_value.denominator)` wei.
    score: int
    uri: str
    fee: Wei
    #: Femtoseconds until the images are there.
    expected: int
    prospect: Prospect

    @property
    def expected_seconds(self) -> float:
        return self.expected / FEMTOSECONDS


class Refusal(NamedTuple):
    """An orchestrator that was passed over, and why."""

    uri: str
    reason: Reason
    detail: str

    def text(self) -> str:
        return f"{self.uri}: {self.reason.value}" + (f" ({self.detail})" if self.detail else "")


#: Score, URI, prospect. URIs differ, so that prospects are never compared.
_Scored: TypeAlias = tuple[int, str, Prospect]


@dataclass(frozen=True)
class Ranking:
    """The outcome of one decision."""

    need: Need
    policy: Policy
    _eligible: list[_Scored]
    #: In the order in which they were looked at; `refusals` is for reading.
    passed_over: list[tuple[Prospect, Reason]]

    @property
    def best(self) -> Candidate | None:
        best = min(self._eligible, default=None)
        return None if best is None else self._candidate(best)

    @cached_property
    def candidates(self) -> tuple[Candidate, ...]:
        """All eligible orchestrators, the best first."""
        return tuple(self._candidate(scored) for scored in sorted(self._eligible))

    @cached_property
    def refusals(self) -> tuple[Refusal, ...]:
        """Everybody else with the reason, by URI."""
        return tuple(sorted(self._explain()))

    def reasons(self) -> frozenset[Reason]:
        return frozenset(reason for _, reason in self.passed_over)

    def score(self, candidate: Candidate) -> Fraction:
        """The exact score in wei."""
        return Fraction(candidate.score, FEMTOSECONDS * self.policy.time_value.denominator)

    def cheapest_price(self) -> Fraction | None:
        """Wei per pixel of the cheapest orchestrator refused for its price only."""
        prices = [one.price for one, why in self.passed_over if why is Reason.ABOVE_CAP]
        return min(prices, default=None)

    def _candidate(self, scored: _Scored) -> Candidate:
        score, _, one = scored
        return candidate_of(score, one, self.need)

    def _explain(self) -> Iterator[Refusal]:
        for prospect, reason in self.passed_over:
            detail = prospect.detail
            if reason is Reason.ABOVE_CAP:
                detail = f"{prospect.price} > {self.need.price_cap} wei per pixel"
            yield Refusal(prospect.uri, reason, detail)


def score_of(one: Prospect, need: Need, policy: Policy) -> int:
    """`fee + time_value x expected seconds`, in the units of `Candidate.score`."""
    pixels, value = need.pixels, policy.time_value
    price, unit = one.price_numerator, one.price_denominator
    owed = pixels * price if unit == 1 else _fee(pixels, price, unit)
    pace = one.paces[need.size] if one.paces else one.pace
    expected = one.overhead + pixels * need.steps * pace
    return owed * FEMTOSECONDS * value.denominator + value.numerator * expected


def candidate_of(score: int, one: Prospect, need: Need) -> Candidate:
    owed = _fee(need.pixels, one.price_numerator, one.price_denominator)
    return Candidate(score, one.uri, owed, expected_of(one, need), one)


def expected_of(one: Prospect, need: Need) -> int:
    """Femtoseconds until the images are there."""
    return one.overhead + need.pixels * need.steps * pace_of(one, need.size)


def pace_of(one: Prospect, size: int) -> int:
    """Femtoseconds per pixel and step of images of a size class."""
    return one.paces[size] if one.paces else one.pace


def rank(
    need: Need,
    prospects: Iterable[Prospect],
    policy: Policy,
    now: float,
    tried: Collection[str] = (),
) -> Ranking:
    """Order the eligible by `fee + time_value x expected seconds`; name a reason for the others.

    `now` is monotonic seconds; `tried` are URIs this request must not go to again.
    """
    cap = need.price_cap
    cap_numerator, cap_denominator = (0, 0) if cap is None else cap.as_integer_ratio()
    eligible: list[_Scored] = []
    passed_over: list[tuple[Prospect, Reason]] = []
    for one in prospects:
        price, unit = one.price_numerator, one.price_denominator
        if one.barred is not None:
            reason = one.barred
        elif one.uri in tried:
            reason = Reason.TRIED
        elif cap_denominator and price * cap_denominator > cap_numerator * unit:
            reason = Reason.ABOVE_CAP
        elif one.fresh_until < now:
            reason = Reason.STALE
        elif one.suspended_until > now:
            reason = Reason.SUSPENDED
        elif one.free <= 0:
            reason = Reason.BUSY
        else:
            eligible.append((score_of(one, need, policy), one.uri, one))
            continue
        passed_over.append((one, reason))
    return Ranking(need, policy, eligible, passed_over)


def _fee(pixels: int, price: int, unit: int) -> Wei:
    """`network.units.fee`, rounding up as it does, without making a fraction for every look."""
    return Wei(-(-pixels * price // unit))
