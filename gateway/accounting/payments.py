"""What the journal knows of payments: where a gateway that starts again takes them up."""

from collections import defaultdict
from dataclasses import dataclass
from fractions import Fraction
from typing import Final, NamedTuple

from sqlalchemy import Connection, func, or_, select

from gateway.accounting.tables import attempts, receipts, requests, ticket_batches
from network.units import ModelId, Wei

#: Tickets live for two rounds; those of some more are read, as the chain may not answer at start.
_ROUNDS: Final = 4
_NOTHING: Final = Fraction(0)


class BalanceKey(NamedTuple):
    """Where a balance is kept: the account paid, 40 hex digits, the node and the model."""

    recipient: str
    #: URI.
    orchestrator: str
    model_id: ModelId


@dataclass(frozen=True, slots=True)
class InDoubt:
    """An attempt with a payment whose end nobody wrote down. Amounts in wei."""

    attempt_id: str
    key: BalanceKey
    fee: Wei
    tickets: int
    credit: Fraction
    taken: Fraction


@dataclass(frozen=True, slots=True)
class SentBatch:
    """Tickets that may still be redeemed, or count in the caps of an hour. Amounts in wei."""

    attempt_id: str
    key_id: str
    recipient: str
    tickets: int
    credit: Fraction
    #: Of one ticket.
    face_value: Wei
    creation_round: int
    #: Unix seconds.
    made_at: float


@dataclass(frozen=True, slots=True)
class PaymentState:
    """All of it, as of one moment."""

    #: What the next attempts may use, in wei.
    available: dict[BalanceKey, Fraction]
    in_doubt: tuple[InDoubt, ...]
    #: The oldest first.
    sent: tuple[SentBatch, ...]


@dataclass(frozen=True, slots=True)
class PaymentTotal:
    """What was paid by ticket and what came of it, in wei; all 0 off-chain."""

    tickets: int
    #: What the tickets are worth.
    credit: Fraction
    credited: Fraction
    charged: Wei
    forfeited: Fraction


def payment_total(connection: Connection, since: float) -> PaymentTotal:
    """Over all attempts started since then (unix seconds). Equal payments are counted by the database."""
    alike = (
        ticket_batches.c.tickets,
        ticket_batches.c.credit,
        receipts.c.credited,
        receipts.c.charged,
        receipts.c.forfeited,
        receipts.c.source,
    )
    query = (
        select(*alike, func.count())
        .select_from(ticket_batches)
        .join(attempts, attempts.c.attempt_id == ticket_batches.c.attempt_id)
        .outerjoin(receipts, receipts.c.attempt_id == ticket_batches.c.attempt_id)
        .where(attempts.c.started_at >= since)
        .group_by(*alike)
    )
    sent, charged = 0, 0
    credit = credited = forfeited = _NOTHING
    for row in connection.execute(query):
        count = row[-1]
        if row.source != "unsent":
            sent += row.tickets * count
            credit += Fraction(row.credit) * count
        credited += Fraction(row.credited or 0) * count
        charged += (row.charged or 0) * count
        forfeited += Fraction(row.forfeited or 0) * count
    return PaymentTotal(sent, credit, credited, Wei(charged), forfeited)


def payment_state(connection: Connection, now: float) -> PaymentState:
    """`now` in unix seconds."""
    in_doubt = _in_doubt(connection)
    available = _settled(connection)
    for one in in_doubt:
        available[one.key] = available.get(one.key, _NOTHING) - one.taken
    return PaymentState(
        {key: amount for key, amount in available.items() if amount},
        in_doubt,
        _sent(connection, now),
    )


def _settled(connection: Connection) -> dict[BalanceKey, Fraction]:
    """Equal receipts are counted by the database, so that few fractions are read."""
    alike = (
        ticket_batches.c.recipient,
        attempts.c.orchestrator,
        ticket_batches.c.model_id,
        receipts.c.credited,
        receipts.c.charged,
        receipts.c.forfeited,
    )
    query = (
        select(*alike, func.count())
        .select_from(ticket_batches)
        .join(attempts, attempts.c.attempt_id == ticket_batches.c.attempt_id)
        .join(receipts, receipts.c.attempt_id == ticket_batches.c.attempt_id)
        .group_by(*alike)
    )
    sums: defaultdict[BalanceKey, Fraction] = defaultdict(Fraction)
    for recipient, uri, model_id, credited, charged, forfeited, count in connection.execute(query):
        change = Fraction(credited) - charged - Fraction(forfeited)
        sums[BalanceKey(recipient, uri, ModelId(model_id))] += change * count
    return dict(sums)


def _in_doubt(connection: Connection) -> tuple[InDoubt, ...]:
    query = (
        select(ticket_batches, attempts.c.orchestrator, attempts.c.fee)
        .join(attempts, attempts.c.attempt_id == ticket_batches.c.attempt_id)
        .outerjoin(receipts, receipts.c.attempt_id == ticket_batches.c.attempt_id)
        .where(receipts.c.attempt_id.is_(None))
    )
    return tuple(
        InDoubt(
            row.attempt_id,
            BalanceKey(row.recipient, row.orchestrator, ModelId(row.model_id)),
            row.fee,
            row.tickets,
            Fraction(row.credit),
            Fraction(row.taken),
        )
        for row in connection.execute(query)
    )


def _sent(connection: Connection, now: float) -> tuple[SentBatch, ...]:
    newest = connection.scalar(select(func.max(ticket_batches.c.creation_round))) or 0
    query = (
        select(ticket_batches, requests.c.key_id, attempts.c.started_at)
        .join(attempts, attempts.c.attempt_id == ticket_batches.c.attempt_id)
        .join(requests, requests.c.request_id == attempts.c.request_id)
        .outerjoin(receipts, receipts.c.attempt_id == ticket_batches.c.attempt_id)
        .where(
            ticket_batches.c.tickets > 0,
            or_(receipts.c.source.is_(None), receipts.c.source != "unsent"),
            or_(
                ticket_batches.c.creation_round > newest - _ROUNDS,
                attempts.c.started_at > now - 3600,
            ),
        )
        .order_by(attempts.c.started_at)
    )
    return tuple(
        SentBatch(
            row.attempt_id,
            row.key_id,
            row.recipient,
            row.tickets,
            Fraction(row.credit),
            row.face_value,
            row.creation_round,
            row.started_at,
        )
        for row in connection.execute(query)
    )
