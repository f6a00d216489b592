"""What a process that was cut off left open in the journal, and what is written down for it."""

from collections.abc import Iterable
from fractions import Fraction
from typing import Final

from sqlalchemy import ColumnElement, Connection, and_, exists, select

from gateway.accounting.events import Attempt, Event, Outcome, Settlement
from gateway.accounting.tables import (
    attempts,
    fulfilments,
    outcomes,
    promises,
    requests,
    settlements,
)
from network.units import Wei

_INTERRUPTED: Final = "the gateway stopped"


def lost(connection: Connection, now: float, resumable_since: float) -> list[Event]:
    """The ends of all that is open, but for promises that `open_attempts` are about."""
    kept = {one.request_id for one in _open(connection, _is_resumable(resumable_since))}
    open_requests = connection.execute(
        select(requests.c.request_id)
        .outerjoin(settlements, settlements.c.request_id == requests.c.request_id)
        .where(settlements.c.request_id.is_(None))
    ).scalars()
    events: list[Event] = [
        _settlement(request_id, now) for request_id in open_requests if request_id not in kept
    ]
    lost_attempts = [one for one in _open(connection) if one.request_id not in kept]
    return [*events, *(outcome_of(one, now) for one in lost_attempts)]


def ends_of(request_id: str, attempts: Iterable[Attempt], now: float) -> list[Event]:
    """The end of one request, for nothing, and of all of its attempts that are open."""
    return [*(outcome_of(one, now) for one in attempts), _settlement(request_id, now)]


def open_attempts(connection: Connection) -> tuple[Attempt, ...]:
    """Whose end nobody wrote down, the first of each request in front."""
    return _open(connection)


def _settlement(request_id: str, now: float) -> Settlement:
    return Settlement(request_id, "interrupted", Wei(0), now, reason=_INTERRUPTED)


def outcome_of(attempt: Attempt, now: float) -> Outcome:
    seconds = max(now - attempt.started_at, 0.0)
    return Outcome(attempt.attempt_id, "interrupted", Wei(0), now, seconds, reason=_INTERRUPTED)


def _is_resumable(since: float) -> ColumnElement[bool]:
    """Of promises that nobody fulfilled; begun after `since`, unix seconds."""
    promised = exists().where(promises.c.request_id == attempts.c.request_id)
    fulfilled = exists().where(fulfilments.c.request_id == attempts.c.request_id)
    return and_(attempts.c.started_at > since, promised, ~fulfilled)


def _open(connection: Connection, *conditions: ColumnElement[bool]) -> tuple[Attempt, ...]:
    query = (
        select(attempts)
        .outerjoin(outcomes, outcomes.c.attempt_id == attempts.c.attempt_id)
        .where(outcomes.c.attempt_id.is_(None), *conditions)
        .order_by(attempts.c.started_at, attempts.c.number)
    )
    rows = connection.execute(query).mappings()
    return tuple(Attempt(**{**row, "price": Fraction(row["price"])}) for row in rows)
