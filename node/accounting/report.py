"""The journal read back: jobs one by one, and earnings by day, model or payer."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Final, Literal

from sqlalchemy import Connection, Select, select

from network.units import Wei
from node.accounting.tables import ends, jobs

Grouping = Literal["day", "model", "payer"]

OPEN: Final = "open"
_DELIVERED: Final = "delivered"
_NOTHING: Final = Wei(0)


@dataclass(frozen=True, slots=True)
class Filter:
    """Which jobs; times in unix seconds, `since` included and `until` not."""

    since: float | None = None
    until: float | None = None
    model: str | None = None
    payer: str | None = None
    state: str | None = None


@dataclass(frozen=True, slots=True)
class JobLine:
    """A job with its end; `state` is "open" without one. `fee` is what was charged."""

    job_id: str
    attempt_id: str
    payer: str
    model_id: str
    state: str
    reason: str
    width: int
    height: int
    images: int
    steps: int
    pixels: int
    price: str
    fee: Wei
    quoted: Wei
    accepted_at: float
    ended_at: float | None
    waited_seconds: float
    run_seconds: float

    def as_json(self) -> dict[str, object]:
        """Return the line for programs: amounts as text, because wei outgrow JSON numbers."""
        return {**asdict(self), "fee": str(self.fee), "quoted": str(self.quoted)}


@dataclass(frozen=True, slots=True)
class EarningsLine:
    """What a day, model or payer brought. `pixels` and `images` are those delivered."""

    group: str
    jobs: int = 0
    delivered: int = 0
    images: int = 0
    pixels: int = 0
    earned: Wei = _NOTHING
    run_seconds: float = 0.0

    def plus(self, line: JobLine) -> "EarningsLine":
        """Return the sum with one more job."""
        done = line.state == _DELIVERED
        return EarningsLine(
            self.group,
            self.jobs + 1,
            self.delivered + done,
            self.images + line.images * done,
            self.pixels + line.pixels * done,
            Wei(self.earned + line.fee),
            self.run_seconds + line.run_seconds,
        )

    def as_json(self) -> dict[str, object]:
        """Return the line for programs; see `JobLine.as_json`."""
        return {**asdict(self), "earned": str(self.earned)}


@dataclass(frozen=True, slots=True)
class Earnings:
    """Groups in order, and their sum."""

    lines: tuple[EarningsLine, ...]
    total: EarningsLine


def read_jobs(connection: Connection, wanted: Filter, limit: int) -> list[JobLine]:
    """Return the newest jobs first."""
    query = _query(wanted).order_by(jobs.c.accepted_at.desc(), jobs.c.job_id).limit(limit)
    return list(_lines(connection, query))


def read_earnings(connection: Connection, wanted: Filter, by: Grouping) -> Earnings:
    """Return sums over all jobs wanted; the total is that of the lines, to the wei."""
    groups: dict[str, EarningsLine] = {}
    total = EarningsLine("total")
    # Wei are text in the database: they are summed here, row by row, and not held.
    for line in _lines(connection, _query(wanted).order_by(jobs.c.accepted_at)):
        name = _group(line, by)
        groups[name] = groups.get(name, EarningsLine(name)).plus(line)
        total = total.plus(line)
    return Earnings(tuple(groups[name] for name in sorted(groups)), total)


def _query(wanted: Filter) -> Select[tuple[object, ...]]:
    query = select(
        *jobs.c,
        ends.c.state,
        ends.c.reason,
        ends.c.charged,
        ends.c.waited_seconds,
        ends.c.run_seconds,
        ends.c.ended_at,
    ).outerjoin(ends, ends.c.job_id == jobs.c.job_id)
    if wanted.since is not None:
        query = query.where(jobs.c.accepted_at >= wanted.since)
    if wanted.until is not None:
        query = query.where(jobs.c.accepted_at < wanted.until)
    if wanted.model is not None:
        query = query.where(jobs.c.model_id == wanted.model)
    if wanted.payer is not None:
        query = query.where(jobs.c.payer == wanted.payer.lower().removeprefix("0x"))
    if wanted.state == OPEN:
        query = query.where(ends.c.state.is_(None))
    elif wanted.state is not None:
        query = query.where(ends.c.state == wanted.state)
    return query


def _lines(connection: Connection, query: Select[tuple[object, ...]]) -> Iterable[JobLine]:
    for row in connection.execution_options(yield_per=1000).execute(query).mappings():
        yield JobLine(
            job_id=row["job_id"],
            attempt_id=row["attempt_id"],
            payer=f"0x{row['payer']}",
            model_id=row["model_id"],
            state=row["state"] or OPEN,
            reason=row["reason"] or "",
            width=row["width"],
            height=row["height"],
            images=row["images"],
            steps=row["steps"],
            pixels=row["pixels"],
            price=row["price"],
            fee=row["charged"] if row["charged"] is not None else Wei(0),
            quoted=row["fee"],
            accepted_at=row["accepted_at"],
            ended_at=row["ended_at"],
            waited_seconds=row["waited_seconds"] or 0.0,
            run_seconds=row["run_seconds"] or 0.0,
        )


def _group(line: JobLine, by: Grouping) -> str:
    match by:
        case "day":
            return datetime.fromtimestamp(line.accepted_at, UTC).date().isoformat()
        case "model":
            return line.model_id
        case "payer":
            return line.payer
