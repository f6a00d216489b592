"""What the journal's events add up to. Wei are text in the database and are summed as integers here."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from sqlalchemy import Connection, Integer, Row, Select, cast, func, select

from gateway.accounting.events import (
    Accepted,
    DailySpending,
    Grouping,
    OrchestratorTotal,
    RequestRecord,
    UsageTotal,
)
from gateway.accounting.tables import (
    attempts,
    outcomes,
    receipts,
    repeats,
    requests,
    settlements,
    ticket_batches,
)
from network.dollars import AttoUsd
from network.units import ModelId, Pixels, Wei

#: Request ids in one query.
_AT_ONCE: Final = 500
_DAY: Final = 86_400
_GROUPS = {
    "key": requests.c.key_id,
    "model": requests.c.model_id,
    "orchestrator": settlements.c.orchestrator,
}


@dataclass(slots=True)
class _Sum:
    requests: int = 0
    images: int = 0
    pixels: int = 0
    fee: int = 0
    usd: int = 0
    repeats: int = 0
    repeats_fee: int = 0
    repeats_worth: int = 0


@dataclass(slots=True)
class _Record:
    succeeded: int = 0
    busy: int = 0
    failed: int = 0
    fee: int = 0
    seconds: float = 0.0
    outrun: int = 0
    outrun_fee: int = 0


def usage(
    connection: Connection, by: Grouping, since: float, until: float | None
) -> tuple[UsageTotal, ...]:
    """See `Journal.usage`. Equal fees are counted by the database, so few rows are read."""
    group = _GROUPS[by]
    pixels = requests.c.width * requests.c.height * requests.c.images
    amounts = (settlements.c.fee, settlements.c.usd)
    query = (
        select(
            group,
            *amounts,
            repeats.c.worth,
            func.count(),
            func.sum(requests.c.images),
            func.sum(pixels),
        )
        .join(settlements, settlements.c.request_id == requests.c.request_id)
        .outerjoin(repeats, repeats.c.request_id == requests.c.request_id)
        .where(settlements.c.state == "settled", requests.c.accepted_at >= since)
        .group_by(group, *amounts, repeats.c.worth)
    )
    if until is not None:
        query = query.where(requests.c.accepted_at < until)
    sums: defaultdict[str, _Sum] = defaultdict(_Sum)
    for name, fee, usd, worth, count, images, area in connection.execute(query):
        total = sums[name]
        if worth is not None:
            total.repeats += count
            total.repeats_fee += fee * count
            total.repeats_worth += worth * count
        total.requests += count
        total.images += images
        total.pixels += area
        total.fee += fee * count
        total.usd += (usd or 0) * count
    return tuple(
        UsageTotal(
            name,
            s.requests,
            s.images,
            Pixels(s.pixels),
            Wei(s.fee),
            AttoUsd(s.usd),
            s.repeats,
            Wei(s.repeats_fee),
            Wei(s.repeats_worth),
        )
        for name, s in sorted(sums.items())
    )


def spending(connection: Connection, since: float) -> tuple[DailySpending, ...]:
    """See `Journal.spending`. Equal fees are counted by the database, so few rows are read."""
    day = cast(func.floor(settlements.c.settled_at / _DAY), Integer)
    amounts = (settlements.c.fee, settlements.c.usd)
    query = (
        select(requests.c.key_id, day, *amounts, func.count())
        .join(settlements, settlements.c.request_id == requests.c.request_id)
        .where(settlements.c.state == "settled", settlements.c.settled_at >= since)
        .group_by(requests.c.key_id, day, *amounts)
    )
    fees: Counter[tuple[str, int]] = Counter()
    dollars: Counter[tuple[str, int]] = Counter()
    for key_id, number, fee, usd, count in connection.execute(query):
        fees[key_id, number] += fee * count
        dollars[key_id, number] += (usd or 0) * count
    return tuple(
        DailySpending(key_id, float(number * _DAY), Wei(fee), AttoUsd(dollars[key_id, number]))
        for (key_id, number), fee in sorted(fees.items())
    )


def orchestrator_totals(connection: Connection, since: float) -> tuple[OrchestratorTotal, ...]:
    """See `Journal.orchestrator_totals`."""
    query = (
        select(
            attempts.c.orchestrator,
            outcomes.c.state,
            outcomes.c.fee,
            func.count(),
            func.sum(outcomes.c.seconds),
        )
        .join(outcomes, outcomes.c.attempt_id == attempts.c.attempt_id)
        .where(attempts.c.started_at >= since)
        .group_by(attempts.c.orchestrator, outcomes.c.state, outcomes.c.fee)
    )
    records: defaultdict[str, _Record] = defaultdict(_Record)
    for uri, state, fee, count, seconds in connection.execute(query):
        record = records[uri]
        record.fee += fee * count
        match state:
            case "succeeded":
                record.succeeded += count
                record.seconds += seconds
            case "busy":
                record.busy += count
            case "outrun":
                record.outrun += count
                record.outrun_fee += fee * count
            case _:
                record.failed += count
    return tuple(
        OrchestratorTotal(
            uri,
            r.succeeded,
            r.busy,
            r.failed,
            Wei(r.fee),
            r.seconds / r.succeeded if r.succeeded else None,
            r.outrun,
            Wei(r.outrun_fee),
        )
        for uri, r in sorted(records.items())
    )


def latest(
    connection: Connection, limit: int | None, key_id: str | None
) -> tuple[RequestRecord, ...]:
    """See `Journal.requests`."""
    query = _records().order_by(requests.c.accepted_at.desc(), requests.c.request_id).limit(limit)
    if key_id is not None:
        query = query.where(requests.c.key_id == key_id)
    rows = connection.execute(query).all()
    paid = _payments(connection, [_id(row) for row in rows])
    return tuple(_record(row, paid) for row in rows)


def one(connection: Connection, request_id: str) -> RequestRecord | None:
    """See `Journal.request`."""
    row = connection.execute(_records().where(requests.c.request_id == request_id)).first()
    return None if row is None else _record(row, _payments(connection, [request_id]))


def _records() -> Select[tuple[object, ...]]:
    of_this = attempts.c.request_id == requests.c.request_id
    tried = select(func.count()).where(of_this).scalar_subquery()
    delivery = (
        select(outcomes.c.node_job_id)
        .join(attempts, attempts.c.attempt_id == outcomes.c.attempt_id)
        .where(of_this, outcomes.c.state == "succeeded")
        .scalar_subquery()
    )
    return (
        select(
            requests,
            settlements,
            repeats.c.kind,
            repeats.c.origin,
            tried.label("tried"),
            delivery.label("delivery"),
        )
        .outerjoin(settlements, settlements.c.request_id == requests.c.request_id)
        .outerjoin(repeats, repeats.c.request_id == requests.c.request_id)
    )


@dataclass(slots=True)
class _Paid:
    tickets: int = 0
    credit: Fraction = Fraction(0)
    credited: Fraction = Fraction(0)
    charged: int = 0


def _payments(connection: Connection, request_ids: Sequence[str]) -> Mapping[str, _Paid]:
    """What was paid for each request, over all its attempts."""
    sums: defaultdict[str, _Paid] = defaultdict(_Paid)
    for start in range(0, len(request_ids), _AT_ONCE):
        query = (
            select(
                attempts.c.request_id,
                ticket_batches.c.tickets,
                ticket_batches.c.credit,
                receipts.c.credited,
                receipts.c.charged,
                receipts.c.source,
            )
            .join(ticket_batches, ticket_batches.c.attempt_id == attempts.c.attempt_id)
            .outerjoin(receipts, receipts.c.attempt_id == attempts.c.attempt_id)
            .where(attempts.c.request_id.in_(request_ids[start : start + _AT_ONCE]))
        )
        for request_id, tickets, credit, credited, charged, source in connection.execute(query):
            paid = sums[request_id]
            if source != "unsent":
                paid.tickets += tickets
                paid.credit += Fraction(credit)
            paid.credited += Fraction(credited or 0)
            paid.charged += charged or 0
    return sums


def _id(row: Row[tuple[object, ...]]) -> str:
    request_id: str = row._mapping[requests.c.request_id]  # noqa: SLF001  as below
    return request_id


def _record(row: Row[tuple[object, ...]], payments: Mapping[str, _Paid]) -> RequestRecord:
    at = row._mapping  # noqa: SLF001  SQLAlchemy's public name for access by column
    paid = payments.get(at[requests.c.request_id]) or _Paid()
    accepted = Accepted(
        request_id=at[requests.c.request_id],
        key_id=at[requests.c.key_id],
        model_id=ModelId(at[requests.c.model_id]),
        width=at[requests.c.width],
        height=at[requests.c.height],
        images=at[requests.c.images],
        steps=at[requests.c.steps],
        accepted_at=at[requests.c.accepted_at],
    )
    return RequestRecord(
        accepted=accepted,
        state=at[settlements.c.state] or "open",
        settled_at=at[settlements.c.settled_at],
        fee=at[settlements.c.fee] or Wei(0),
        orchestrator=at[settlements.c.orchestrator] or "",
        attempts=at["tried"],
        reason=at[settlements.c.reason] or "",
        node_job_id=at["delivery"] or "",
        tickets=paid.tickets,
        paid=paid.credit,
        credited=paid.credited,
        charged=Wei(paid.charged),
        usd=at[settlements.c.usd],
        repeat=at[repeats.c.kind] or "",
        origin=at[repeats.c.origin] or "",
    )
