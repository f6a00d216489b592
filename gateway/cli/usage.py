"""`limner-gateway usage`: the journal, to the wei."""

import csv
import math
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import click
import orjson
from sqlalchemy import Connection
from typing_extensions import override

from gateway.accounting import queries
from gateway.accounting.events import Grouping, RequestRecord, UsageTotal
from gateway.accounting.payments import PaymentTotal, payment_total
from gateway.cli.options import in_loop, load_settings, settings_options
from gateway.cli.tables import show_table
from gateway.home import open_gateway_database
from network.dollars import AttoUsd, format_usd
from network.runtime.clock import SystemClock
from network.units import Pixels, Wei, format_wei, pixels_of

_SINCE = re.compile(r"([1-9][0-9]{0,5})([hdw])")
_UNITS = {"h": 3600, "d": 86_400, "w": 604_800}
_TABLE_LINES = 50


class _Since(click.ParamType[float]):
    name = "time"

    @override
    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        text = str(value)
        if match := _SINCE.fullmatch(text):
            return SystemClock().now() - int(match[1]) * _UNITS[match[2]]
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            self.fail(f"{text!r}: write 24h, 7d, 4w or 2026-11-23", param, ctx)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


@dataclass(frozen=True, slots=True)
class _Report:
    columns: tuple[str, ...]
    lines: list[dict[str, Any]]
    #: Over everything bought, whatever the lines show.
    total: UsageTotal
    paid: PaymentTotal


@click.command()
@click.option(
    "--by",
    type=click.Choice(["request", "key", "model", "orchestrator"]),
    default="request",
    show_default=True,
    help="One line for each request, or totals.",
)
@click.option(
    "--since", type=_Since(), default="1970-01-01", help="24h, 7d or a date.  [default: all]"
)
@click.option("--key", "key_id", help="Only requests of this key id.")
@click.option("--limit", type=click.IntRange(min=1), help="Latest requests shown.  [table: 50]")
@click.option("--json", "form", flag_value="json", help="A JSON list; wei as text, exact.")
@click.option("--csv", "form", flag_value="csv", help="CSV with a header line.")
@settings_options
def command(
    *,
    by: str,
    since: float,
    key_id: str | None,
    limit: int | None,
    form: str | None,
    config: Path | None,
    data_dir: Path | None,
) -> None:
    """What was bought, for whom, from whom and for how much."""
    shown = limit or (_TABLE_LINES if form is None else None)
    settings = load_settings(config, data_dir)

    async def read() -> tuple[tuple[UsageTotal, ...], tuple[RequestRecord, ...], PaymentTotal]:
        async with open_gateway_database(settings) as database:
            return (
                await database.read(partial(_totals, by=by, since=since)),
                await database.read(partial(queries.latest, limit=shown, key_id=key_id)),
                await database.read(partial(payment_total, since=since)),
            )

    totals, records, paid = in_loop(read())
    if by == "request":
        if key_id is not None:
            totals = tuple(one for one in totals if one.group == key_id)
        lines = [_request_line(one) for one in records if one.accepted.accepted_at >= since]
        report = _Report(_REQUEST_COLUMNS, lines, _sum(totals), paid)
    else:
        lines = [_total_line(one) for one in totals]
        report = _Report(_TOTAL_COLUMNS, lines, _sum(totals), paid)
    _show(report, form)


_REQUEST_COLUMNS = (
    "request_id",
    "accepted_at",
    "key_id",
    "model_id",
    "state",
    "images",
    "pixels",
    "fee",
    "usd",
    "orchestrator",
    "node_job_id",
    "attempts",
    "tickets",
    "paid",
    "credited",
    "charged",
    "settled_at",
    "reason",
    "repeat",
    "origin",
)
_TOTAL_COLUMNS = (
    "group",
    "requests",
    "images",
    "pixels",
    "fee",
    "usd",
    "repeats",
    "repeats_fee",
    "repeats_worth",
)
#: What a terminal has room for.
_TABLE_COLUMNS = (
    "request_id",
    "accepted_at",
    "key_id",
    "model_id",
    "state",
    "images",
    "fee",
    "orchestrator",
)
#: And where anything was paid by ticket.
_PAID_COLUMNS = ("tickets", "paid", "charged")
#: And where what fees came to in dollars is known.
_DOLLARS = "usd"
#: And where requests got the images of others.
_REPEAT_COLUMNS = ("repeat", "repeats", "repeats_fee", "repeats_worth")
_NUMBERS = {
    *("requests", "images", "pixels", "fee", "usd", "attempts", "tickets", "paid", "charged"),
    *("repeats", "repeats_fee", "repeats_worth"),
}


def _totals(connection: Connection, by: str, since: float) -> tuple[UsageTotal, ...]:
    groupings: dict[str, Grouping] = {"model": "model", "orchestrator": "orchestrator"}
    return queries.usage(connection, groupings.get(by, "key"), since, None)


def _request_line(record: RequestRecord) -> dict[str, Any]:
    accepted = record.accepted
    return {
        "request_id": accepted.request_id,
        "accepted_at": accepted.accepted_at,
        "key_id": accepted.key_id,
        "model_id": accepted.model_id,
        "state": record.state,
        "images": accepted.images,
        "pixels": pixels_of(accepted.width, accepted.height, accepted.images),
        "fee": str(record.fee),
        # By the rate at which it was held; "" where none was known.
        "usd": "" if record.usd is None else format_usd(record.usd),
        "orchestrator": record.orchestrator,
        "node_job_id": record.node_job_id,
        "attempts": record.attempts,
        "tickets": record.tickets,
        # What tickets are worth is a fraction of a wei; rounded so that nothing looks better than it is.
        "paid": str(math.ceil(record.paid)),
        "credited": str(math.floor(record.credited)),
        "charged": str(record.charged),
        "settled_at": record.settled_at,
        "reason": record.reason,
        "repeat": record.repeat,
        "origin": record.origin,
    }


def _total_line(total: UsageTotal) -> dict[str, Any]:
    return {
        "group": total.group,
        "requests": total.requests,
        "images": total.images,
        "pixels": total.pixels,
        "fee": str(total.fee),
        "usd": format_usd(total.usd),
        "repeats": total.repeats,
        "repeats_fee": str(total.repeats_fee),
        "repeats_worth": str(total.repeats_worth),
    }


def _sum(totals: Iterable[UsageTotal]) -> UsageTotal:
    requests = images = pixels = fee = usd = 0
    repeats = repeats_fee = repeats_worth = 0
    for total in totals:
        requests += total.requests
        images += total.images
        pixels += total.pixels
        fee += total.fee
        usd += total.usd
        repeats += total.repeats
        repeats_fee += total.repeats_fee
        repeats_worth += total.repeats_worth
    return UsageTotal(
        "",
        requests,
        images,
        Pixels(pixels),
        Wei(fee),
        AttoUsd(usd),
        repeats,
        Wei(repeats_fee),
        Wei(repeats_worth),
    )


def _show(report: _Report, form: str | None) -> None:
    if form == "json":
        click.echo(orjson.dumps(report.lines))
    elif form == "csv":
        writer = csv.DictWriter(sys.stdout, report.columns)
        writer.writeheader()
        writer.writerows(report.lines)
    else:
        _show_table(report)


def _show_table(report: _Report) -> None:
    total = report.total
    shown = {*_TABLE_COLUMNS, *_TOTAL_COLUMNS} - {_DOLLARS, *_REPEAT_COLUMNS}
    if total.usd:
        shown.add(_DOLLARS)
    if report.paid.tickets:
        shown |= {*_PAID_COLUMNS}
    if total.repeats:
        shown |= {*_REPEAT_COLUMNS}
    columns = [name for name in report.columns if name in shown]
    rows = [[_cell(name, line[name]) for name in columns] for line in report.lines]
    show_table("bought", columns, rows, _NUMBERS, ("request_id", "key_id", "fee"))
    dollars = f", counted as {format_usd(total.usd)} USD" if total.usd else ""
    click.echo(
        f"delivered in all: {total.requests} requests, {total.images} images, "
        f"{total.pixels} pixels for {total.fee} wei ({format_wei(total.fee)}){dollars}"
    )
    if total.repeats:
        click.echo(
            f"{total.repeats} of them got the images of others: charged {total.repeats_fee} wei "
            f"where {total.repeats_worth} were paid before; the others cost "
            f"{total.fee - total.repeats_fee} wei"
        )
    paid = report.paid
    if paid.tickets:
        left = paid.credited - paid.charged - paid.forfeited
        click.echo(
            f"paid in all: {paid.tickets} tickets worth {math.ceil(paid.credit)} wei; credited "
            f"{math.floor(paid.credited)}, charged {paid.charged}, given up "
            f"{math.ceil(paid.forfeited)}, left {math.floor(left)} wei"
        )


def _cell(name: str, value: object) -> str:
    if name == "accepted_at" and isinstance(value, float):
        return datetime.fromtimestamp(value, UTC).strftime("%m-%d %H:%M:%S")
    return str(value)
