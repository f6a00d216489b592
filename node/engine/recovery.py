"""Which jobs go to the worker now, and what becomes of them when it dies. Pure.

A job that was running when a worker died is a suspect: perhaps it killed the worker. It is tried
again alone, so that a second crash convicts it and nobody else, and its former neighbours are
never failed for what it did.
"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Standing:
    """A job not yet ended: `sent` to the present worker, `running` there, crashes lived through."""

    ticket: int
    sent: bool = False
    running: bool = False
    crashes: int = 0


@dataclass(frozen=True, slots=True)
class Aftermath:
    """After a crash: tickets to fail, and those whose running counts as one crash more."""

    convicted: tuple[int, ...]
    suspected: tuple[int, ...]


def to_send(standings: Sequence[Standing]) -> tuple[int, ...]:
    """Return the tickets to send to the worker now, oldest first."""
    suspects = [standing for standing in standings if standing.crashes]
    if not suspects:
        return tuple(standing.ticket for standing in standings if not standing.sent)
    if any(standing.sent for standing in standings):
        return ()
    return (suspects[0].ticket,)


def after_crash(standings: Sequence[Standing], attempts: int) -> Aftermath:
    """Sort the jobs of a worker that died: a job may have been running in `attempts` of those."""
    running = [standing for standing in standings if standing.running]
    return Aftermath(
        convicted=tuple(s.ticket for s in running if s.crashes + 1 >= attempts),
        suspected=tuple(s.ticket for s in running if s.crashes + 1 < attempts),
    )
