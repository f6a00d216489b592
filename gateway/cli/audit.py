"""`limner-gateway audit`, and how the other commands write down what they do."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import orjson

from gateway.accounting.audit import AuditError, AuditLog, Entry, os_user
from gateway.cli.options import fail, load_settings, settings_options
from gateway.cli.tables import show_table
from gateway.config import GatewaySettings
from network.runtime.clock import SystemClock

#: Notes what was done, in the past tense, and about what.
Note = Callable[..., None]


@click.command()
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="A JSON list of all of it, oldest first.")
@settings_options
def command(*, limit: int, as_json: bool, config: Path | None, data_dir: Path | None) -> None:
    """What operators did: keys, teams, money; when, and who.

    Ends with status 1 where lines were changed or taken out since they were written.
    """
    settings = load_settings(config, data_dir)
    try:
        record = AuditLog(_folder(settings)).read()
    except AuditError as error:
        raise fail(str(error)) from error
    if as_json:
        told = [
            {"at": one.at, "who": one.who, "action": one.action, **one.about}
            for one in record.entries
        ]
        click.echo(orjson.dumps(told))
    else:
        rows = [_row(one) for one in record.entries[-limit:]]
        show_table("audit", ("when", "who", "what", "about"), rows, ids=("when",))
    if record.broken_at is not None:
        raise fail(
            f"line {record.broken_at} does not follow from those before it: the log was changed"
        )


@contextmanager
def audited(settings: GatewaySettings) -> Iterator[Note]:
    """For a block that does something worth a line: it does not begin where none could be written."""
    log = AuditLog(_folder(settings))
    who = os_user(os.environ)
    clock = SystemClock()

    def note(action: str, **about: Any) -> None:
        told = {name: value for name, value in about.items() if value not in (None, (), {}, "")}
        try:
            log.append(Entry(clock.now(), who, action, told))
        except AuditError as error:
            raise fail(str(error)) from error

    try:
        log.check()
    except AuditError as error:
        raise fail(str(error)) from error
    yield note


def _folder(settings: GatewaySettings) -> Path:
    folder = settings.data_dir.expanduser()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def _row(entry: Entry) -> tuple[str, ...]:
    when = datetime.fromtimestamp(entry.at, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    about = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in entry.about.items())
    return when, entry.who, entry.action, about
