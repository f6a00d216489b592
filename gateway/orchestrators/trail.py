"""What one request leaves behind at orchestrators, for its log line, its metrics and its trace.

The trail is bound to the request's context: whoever sends an attempt finds it there, however many
tasks lie between.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from time import perf_counter
from typing import Final

from gateway.orchestrators.answers import (
    OrchestratorFailed,
    OrchestratorRefused,
    OrchestratorUnreachable,
)
from network.runtime.trace import Trace, begin_trace

#: What may become of an attempt, beside the kinds of `answers.Refused`.
DELIVERED: Final = "delivered"
_CANCELLED: Final = "cancelled"
_OUTRUN: Final = "outrun"
_UNREACHABLE: Final = "unreachable"
_FAILED: Final = "failed"


@dataclass(slots=True)
class Attempt:
    """One order that was sent. Times are seconds of the performance counter."""

    attempt_id: str
    orchestrator: str
    trace: Trace
    began: float
    ended: float = 0.0
    #: One word of a closed set.
    outcome: str = _CANCELLED
    node_job_id: str = ""


@dataclass(slots=True)
class Trail:
    """The request's place in its trace, and its attempts in their order."""

    trace: Trace
    attempts: list[Attempt] = field(default_factory=list)
    #: Seconds spent waiting for a free place.
    waited: float = 0.0
    #: What became of it if it was late (`gateway.dispatch.hedging.Fate`); else "".
    hedge: str = ""

    @property
    def telling(self) -> Attempt:
        """The attempt that delivered, or else the last one; there is one."""
        delivered = (one for one in self.attempts if one.outcome == DELIVERED)
        return next(delivered, self.attempts[-1])


_trail: Final[ContextVar[Trail | None]] = ContextVar("trail", default=None)


def bind(trail: Trail) -> None:
    """From now on the attempts of this context are this trail's."""
    _trail.set(trail)


def branch() -> Trail:
    """A trail for work that outlives the request of this context, in the same trace."""
    trail = _trail.get()
    return Trail(begin_trace(()) if trail is None else trail.trace.child())


def note_wait(seconds: float) -> None:
    """The request of this context waited for a free place."""
    trail = _trail.get()
    if trail is not None:
        trail.waited += seconds


def note_hedge(fate: str) -> None:
    """The job of this context's request was late: what became of it."""
    trail = _trail.get()
    if trail is not None:
        trail.hedge = fate


def note_outrun(attempt_id: str) -> None:
    """Another attempt of this context's request was sooner."""
    trail = _trail.get()
    for attempt in () if trail is None else trail.attempts:
        if attempt.attempt_id == attempt_id:
            attempt.outcome = _OUTRUN


@contextmanager
def attempting(attempt_id: str, orchestrator: str) -> Iterator[Attempt]:
    """Note an attempt, and what the block's error says became of it; a delivery says so itself."""
    trail = _trail.get()
    trace = begin_trace(()) if trail is None else trail.trace.child()
    attempt = Attempt(attempt_id, orchestrator, trace, perf_counter())
    if trail is not None:
        trail.attempts.append(attempt)
    try:
        yield attempt
    except OrchestratorRefused as refused:
        attempt.outcome = refused.kind.value
        raise
    except OrchestratorUnreachable:
        attempt.outcome = _UNREACHABLE
        raise
    except OrchestratorFailed:
        attempt.outcome = _FAILED
        raise
    finally:
        attempt.ended = perf_counter()
