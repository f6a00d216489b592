"""The command `limner-node`."""

import asyncio
import csv
import io
import re
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from importlib.metadata import version as distribution_version
from pathlib import Path
from typing import Any, Final, TypeVar

import click
import orjson
import structlog
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from sqlalchemy import Connection
from sqlalchemy.engine import make_url
from typing_extensions import override

from network.errors import LimnerError
from network.identity import checksum
from network.runtime import log as logging_setup
from network.runtime.clock import SystemClock
from network.runtime.database import open_database
from network.runtime.settings import load
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
from node.config.settings import ENVIRONMENT_PREFIX, NodeSettings, database_url
from node.discovery.identity import open_identity

_RELATIVE: Final = re.compile(r"([0-9]{1,5})([mhdw])")
_UNITS: Final = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_STATES: Final = ("open", "delivered", "failed", "cancelled", "refused", "interrupted")

log = structlog.get_logger(__name__)

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")


def _settings(config: Path | None, overrides: Mapping[str, object]) -> NodeSettings:
    try:
        return load(NodeSettings, config, ENVIRONMENT_PREFIX, overrides)
    except LimnerError as error:
        raise click.ClickException(str(error)) from None


def _where(command: F) -> F:
    """Add the two options that tell which node is meant."""
    options = (
        click.option(
            "--data-dir",
            type=click.Path(path_type=Path, file_okay=False),
            help="Keystore, journal and certificate.  [default: ~/.limner/node]",
        ),
        click.option(
            "--config",
            type=click.Path(path_type=Path, dir_okay=False),
            help="A TOML file; configs/node.toml explains every setting.",
        ),
    )
    for option in options:
        command = option(command)
    return command


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


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
def main() -> None:
    r"""Make images for gateways of Livepeer's network, and earn by the pixel.

    \b
    Start with the built-in model, for this machine only:
        limner-node run
    See what came in:
        limner-node jobs
        limner-node earnings --by model

    Settings come from a file (--config), then from the environment (LIMNER_NODE__LISTEN and so
    on, with two underscores for a table: LIMNER_NODE__LOG__LEVEL), then from the options here.
    """


@main.command()
@_where
@click.option("--listen", help="Where gateways reach the node.  [default: https://127.0.0.1:8936]")
@click.option("--admin-listen", help="Metrics and status.  [default: 127.0.0.1:7935]")
@click.option("--service-uri", help="The URL to advertise, when it is not the one listened on.")
@click.option("--open", "is_open", is_flag=True, help="Serve any gateway, known or not.")
@click.option("--price", help='Wei per pixel: 2400000, "0.5", "7/2" or "5 gwei".')
@click.option("--device", help="auto, cpu, cuda or cuda:N.  [default: auto]")
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]))
@click.option("--json-ready", is_flag=True, help="Print one JSON line on stdout once it serves.")
def run(
    *,
    config: Path | None,
    data_dir: Path | None,
    listen: str | None,
    admin_listen: str | None,
    service_uri: str | None,
    price: str | None,
    device: str | None,
    log_level: str | None,
    is_open: bool,
    json_ready: bool,
) -> None:
    r"""Run the node until it is told to stop (Ctrl-C or SIGTERM).

    A first start makes an account, a passphrase file and a TLS certificate in the data
    directory. To be reachable from outside, set a public address and name your gateways:

    \b
        listen = "https://0.0.0.0:8936"
        service_uri = "https://node.example.org:8936"
        allowed_gateways = ["0x..."]
    """
    settings = _settings(
        config,
        {
            "data_dir": data_dir,
            "listen": listen,
            "admin_listen": admin_listen,
            "service_uri": service_uri,
            "open": True if is_open else None,
            "price": price,
            "engine.device": device,
            "log.level": log_level,
        },
    )
    logging_setup.configure(settings.log.level, settings.log.format)
    import uvloop  # noqa: PLC0415  the other commands start without a server's libraries

    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve(settings, json_ready=json_ready))
    except LimnerError as error:
        raise click.ClickException(str(error)) from None


async def _serve(settings: NodeSettings, *, json_ready: bool) -> None:
    from node.app import open_node  # noqa: PLC0415  as above

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with open_node(settings) as node:
        _announce(node.url, node.admin_url, checksum(node.address), json_ready=json_ready)
        await stop.wait()
        log.info("stopping", grace_seconds=settings.server.shutdown_seconds)
    log.info("stopped")


def _announce(url: str, admin_url: str, account: str, *, json_ready: bool) -> None:
    log.info("serving", url=url, admin_url=admin_url, address=account)
    if json_ready:
        line = {"event": "ready", "url": url, "admin_url": admin_url, "address": account}
        sys.stdout.write(orjson.dumps(line).decode() + "\n")
        sys.stdout.flush()


@main.command()
@_where
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
    settings = _settings(config, {"data_dir": data_dir})
    wanted = Filter(since, until, model, payer, state)
    lines = _read(settings, lambda connection: read_jobs(connection, wanted, limit))
    if as_json:
        click.echo(orjson.dumps([line.as_json() for line in lines], option=orjson.OPT_INDENT_2))
    elif as_csv:
        click.echo(_csv([line.as_json() for line in lines], JobLine), nl=False)
    else:
        _show(_jobs_table(lines))


@main.command()
@_where
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
    settings = _settings(config, {"data_dir": data_dir})
    wanted = Filter(since, until, model, payer)
    found = _read(settings, lambda connection: read_earnings(connection, wanted, by))
    rows = [line.as_json() for line in found.lines]
    if as_json:
        value = {"by": by, "lines": rows, "total": found.total.as_json()}
        click.echo(orjson.dumps(value, option=orjson.OPT_INDENT_2))
    elif as_csv:
        click.echo(_csv([*rows, found.total.as_json()], EarningsLine), nl=False)
    else:
        _show(_earnings_table(found, by))


@main.command()
@_where
def address(config: Path | None, data_dir: Path | None) -> None:
    """Print the node's account; makes it if there is none yet."""
    settings = _settings(config, {"data_dir": data_dir})
    keystore = settings.keystore
    try:
        identity = asyncio.run(
            open_identity(settings.data_dir, keystore.passphrase, keystore.passphrase_file)
        )
    except LimnerError as error:
        raise click.ClickException(str(error)) from None
    click.echo(checksum(identity.signer.address))


@main.command()
def version() -> None:
    """Print the version."""
    click.echo(distribution_version("limner"))


def _read(settings: NodeSettings, query: Callable[[Connection], T]) -> T:
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


def _show(table: Table) -> None:
    # A pipe has no width of its own: long lines are better there than folded ones.
    console = Console() if sys.stdout.isatty() else Console(width=160)
    console.print(table)


def _table(title: str, *, show_footer: bool = False) -> Table:
    return Table(
        title=title,
        title_justify="left",
        box=SIMPLE_HEAD,
        pad_edge=False,
        show_footer=show_footer,
    )


def _csv(rows: Sequence[Mapping[str, object]], kind: type[JobLine | EarningsLine]) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, list(kind.__dataclass_fields__), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def _jobs_table(lines: Sequence[JobLine]) -> Table:
    table = _table("Jobs, the newest first" if lines else "No jobs")
    for name in ("accepted (UTC)", "job", "gateway", "model", "state"):
        table.add_column(name, no_wrap=True)
    for name in ("images", "steps", "waited", "ran", "charged"):
        table.add_column(name, justify="right", no_wrap=True)
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
    table = _table(f"Earnings by {by}", show_footer=True)
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


if __name__ == "__main__":
    main()
