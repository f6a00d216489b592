"""Whether a late job is given to a second orchestrator beside the first. Pure.

Whoever delivers first wins, and the other is cancelled. That is worth it where it costs nothing: for
jobs that are cheap, and at orchestrators that charge nothing for what was cancelled.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Final

from network.units import Wei

#: Seconds. What is late by less is not late, but jitter.
_SHORTEST: Final = 0.1


@dataclass(frozen=True, slots=True)
class Hedging:
    """The settings."""

    #: What each of the two attempts may cost at most.
    max_fee: Wei
    #: Over all requests, this share of them may get a second orchestrator,
    share: float
    #: and so many more within a minute.
    spare: int = 10
    #: Of the jobs of its model and size, 0 to 1, this share is sooner than one that is late.
    quantile: float = 0.95


class Objection(Enum):
    """Why there is no second orchestrator, in words for the operator."""

    NOBODY = "nobody could be asked first"
    DEAR = "its fee is above routing.hedging.max_fee"
    BINDING = "it is not known to charge nothing for what is cancelled"
    UNKNOWN = "how long such jobs take there is not known yet"
    PATIENT = "by the time that it is late, the deadline has passed"
    CROWDED = "requests wait for a free place"
    ALONE = "no other that may be asked is free"
    TOO_LATE = "it is expected to deliver after the deadline"
    SPENT = "routing.hedging.share and spare are used up"
    UNCOVERED = "a limit of its key or of the gateway does not cover two fees"


class Fate(Enum):
    """What became of a job that was late; the values are labels of a metric."""

    #: Which of the two was sooner.
    FIRST = "first"
    SECOND = "second"
    #: The one that was not sooner had delivered, too, before it could be cancelled.
    BOTH = "both"
    NEITHER = "neither"
    #: It was late, and none was asked second.
    WITHHELD = "withheld"


@dataclass(frozen=True, slots=True)
class HedgePlan:
    """What would be done for a request that began now, if its job were late."""

    #: Seconds from its start; None where nothing is done, and why.
    after_seconds: float | None
    #: URI of who would be asked second.
    second: str = ""
    objection: Objection | None = None


def objection_to(hedging: Hedging, fee: Wei, *, cancels_free: bool) -> Objection | None:
    """Why an attempt may not be one of two: it may turn out to be the one that is cancelled."""
    if fee > hedging.max_fee:
        return Objection.DEAR
    return None if cancels_free else Objection.BINDING


def due_in(late_after: float | None, left: float) -> float | Objection:
    """Seconds from its start after which a job gets a second orchestrator.

    `left` are the seconds until its request's deadline.
    """
    if late_after is None:
        return Objection.UNKNOWN
    due = max(late_after, _SHORTEST)
    return due if due < left else Objection.PATIENT


def fate_of(*, first_delivered: bool, second_delivered: bool, second_won: bool) -> Fate:
    if first_delivered and second_delivered:
        return Fate.BOTH
    if not (first_delivered or second_delivered):
        return Fate.NEITHER
    return Fate.SECOND if second_won else Fate.FIRST
