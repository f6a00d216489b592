"""`limner-node jobs` and `limner-node earnings`: the journal, read while the node runs or not."""

import asyncio
import csv
import io
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, TypeVar

import click
import orjson
from rich.table import Table
from sqlalchemy import Connection
from sqlalchemy.engine import make_url
from typing_extensions import override

from network.errors import LimnerError
from network.runtime.clock import SystemClock
from network.runtime.database import open_database
from network.units import format_wei
from node.accounting.journal import MIGRATIONS
from node.accounting.report import (
    Earnings,
    EarningsLine,
    Filter,
    Grouping,
    JobLine,
    read_earnings,
    read_jobs,
)
from node.cli.options import load_settings, settings_options
from node.cli.tables import add_columns, plain_table, show
from node.config.settings import NodeSettings, database_url

_RELATIVE: Final = re.compile(r"([0-9]{1,5})([mhdw])")
_UNITS: Final = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_STATES: Final = ("open", "delivered", "failed", "cancelled", "refused", "interrupted")

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")


def _which(command: F) -> F:
    """Add the options that choose jobs."""
    options = (
        click.option("--csv", "as_csv", is_flag=True, help="Comma-separated values."),
        click.option("--json", "as_json", is_flag=True, help="JSON; amounts in wei as text."),
        click.option("--payer", help="Only jobs of this gateway (0x and 40 hex digits)."),
        click.option("--model", help="Only jobs of this model."),
        click.option("--until", type=_MOMENT, help="Only jobs accepted before this."),
        click.option(
            "--since", type=_MOMENT, help="Only jobs accepted since: 2026-11-23, 90m, 24h or 7d."
        ),
    )
    for option in options:
        command = option(command)
    return command


class _Moment(click.ParamType[float]):
    """A time in UTC, or how long ago."""

    name = "time"

    @override
    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        text = str(value)
        now = datetime.fromtimestamp(SystemClock().now(), UTC)
        if found := _RELATIVE.fullmatch(text):
            return (now - timedelta(**{_UNITS[found[2]]: int(found[1])})).timestamp()
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            self.fail(f"{text!r} is no time; write 2026-11-23, 24h or 7d", param, ctx)
        return moment.replace(tzinfo=moment.tzinfo or UTC).timestamp()


_MOMENT: Final = _Moment()


@click.command()
@settings_options
@_which
@click.option("--state", type=click.Choice(_STATES), help="Only jobs that ended so.")
@click.option("--limit", type=click.IntRange(1, 1_000_000), default=50, show_default=True)
def jobs(
    *,
    config: Path | None,
    data_dir: Path | None,
    since: float | None,
    until: float | None,
    model: str | None,
    payer: str | None,
    state: str | None,
    limit: int,
    as_json: bool,
    as_csv: bool,
) -> None:
    """List accepted jobs, the newest first. Works while the node runs."""
    settings = load_settings(config, {"data_dir": data_dir})
    wanted = Filter(since, until, model, payer, state)
    lines = read_journal(settings, lambda connection: read_jobs(connection, wanted, limit))
    if as_json:
        click.echo(orjson.dumps([line.as_json() for line in lines], option=orjson.OPT_INDENT_2))
    elif as_csv:
        click.echo(_csv([line.as_json() for line in lines], JobLine), nl=False)
    else:
        show(_jobs_table(lines))


@click.command()
@settings_options
@_which
@click.option(
    "--by", type=click.Choice(["day", "model", "payer"]), default="day", show_default=True
)
def earnings(
    *,
    config: Path | None,
    data_dir: Path | None,
    since: float | None,
    until: float | None,
    model: str | None,
    payer: str | None,
    by: Grouping,
    as_json: bool,
    as_csv: bool,
) -> None:
    """Sum up what was earned, to the wei. Days are UTC. Works while the node runs."""
    settings = load_settings(config, {"data_dir": data_dir})
    wanted = Filter(since, until, model, payer)
    found = read_journal(settings, lambda connection: read_earnings(connection, wanted, by))
    rows = [line.as_json() for line in found.lines]
    if as_json:
        value = {"by": by, "lines": rows, "total": found.total.as_json()}
        click.echo(orjson.dumps(value, option=orjson.OPT_INDENT_2))
    elif as_csv:
        click.echo(_csv([*rows, found.total.as_json()], EarningsLine), nl=False)
    else:
        show(_earnings_table(found, by))


def read_journal(settings: NodeSettings, query: Callable[[Connection], T]) -> T:
    """Return what `query` finds; ends the command where there is no journal."""
    url = make_url(database_url(settings))
    if url.get_backend_name() == "sqlite" and not Path(url.database or "").is_file():
        raise click.ClickException(
            f"there is no journal at {url.database}; name the node's --data-dir or --config"
        )

    async def read() -> T:
        async with open_database(str(database_url(settings)), MIGRATIONS) as database:
            return await database.read(query)

    try:
        return asyncio.run(read())
    except LimnerError as error:
        raise click.ClickException(str(error)) from None


def _csv(rows: Sequence[Mapping[str, object]], kind: type[JobLine | EarningsLine]) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, list(kind.__dataclass_fields__), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def _jobs_table(lines: Sequence[JobLine]) -> Table:
    table = plain_table("Jobs, the newest first" if lines else "No jobs")
    add_columns(table, ("accepted (UTC)", "job", "gateway", "model", "state"))
    add_columns(table, ("images", "steps", "waited", "ran", "charged"), right=True)
    for line in lines:
        table.add_row(
            datetime.fromtimestamp(line.accepted_at, UTC).strftime("%m-%d %H:%M:%S"),
            line.job_id[:8],
            line.payer[:8],
            line.model_id,
            f"{line.state} ({line.reason})" if line.reason else line.state,
            f"{line.images} {line.width}x{line.height}",
            str(line.steps),
            f"{line.waited_seconds:.1f} s",
            f"{line.run_seconds:.1f} s",
            format_wei(line.fee),
        )
    return table


def _earnings_table(found: Earnings, by: Grouping) -> Table:
    table = plain_table(f"Earnings by {by}", show_footer=True)
    total = found.total
    columns: tuple[tuple[str, Callable[[EarningsLine], str]], ...] = (
        ("jobs", lambda line: str(line.jobs)),
        ("delivered", lambda line: str(line.delivered)),
        ("images", lambda line: str(line.images)),
        ("megapixels", lambda line: f"{line.pixels / 1e6:.1f}"),
        ("engine time", lambda line: f"{line.run_seconds:.1f} s"),
        ("wei", lambda line: str(line.earned)),
        ("earned", lambda line: format_wei(line.earned)),
    )
    table.add_column(by, "total", no_wrap=True)
    for name, text in columns:
        table.add_column(name, text(total), justify="right", no_wrap=True)
    for line in found.lines:
        table.add_row(line.group, *(text(line) for _, text in columns))
    return table
