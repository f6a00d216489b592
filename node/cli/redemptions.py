"""`limner-node redemptions`: winning tickets and what became of them."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal

import click
import orjson
from rich.table import Table

from network.identity import checksum
from network.units import format_wei
from node.cli.journal import read_journal
from node.cli.options import load_settings, settings_options
from node.cli.tables import add_columns, plain_table, show
from node.payments.redemptions import Record, SenderLine, by_sender, read_records

By = Literal["sender", "ticket"]
_SHOWN: Final = 200


@click.command()
@settings_options
@click.option("--by", type=click.Choice(["sender", "ticket"]), default="sender", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="JSON; amounts in wei as text.")
def redemptions(*, config: Path | None, data_dir: Path | None, by: By, as_json: bool) -> None:
    """Show winning tickets: pending, redeemed, written off. Works while the node runs."""
    settings = load_settings(config, {"data_dir": data_dir})
    records = read_journal(settings, read_records)
    lines, total = by_sender(records)
    if as_json:
        found = (
            [_json(record) for record in records]
            if by == "ticket"
            else [line.as_json() for line in lines]
        )
        value = {"by": by, "lines": found, "total": total.as_json()}
        click.echo(orjson.dumps(value, option=orjson.OPT_INDENT_2))
    else:
        show(_tickets(records) if by == "ticket" else _senders(lines, total))


def _senders(lines: list[SenderLine], total: SenderLine) -> Table:
    table = plain_table("Winning tickets by sender" if lines else "No winning tickets")
    add_columns(table, ("sender",))
    add_columns(table, ("tickets", "pending", "redeemed", "written off", "gas"), right=True)
    for line in [*lines, total]:
        amounts = (line.pending, line.redeemed, line.written_off, line.gas)
        table.add_row(line.sender, str(line.tickets), *(format_wei(amount) for amount in amounts))
    return table


def _tickets(records: list[Record]) -> Table:
    table = plain_table("Winning tickets, the newest last" if records else "No winning tickets")
    add_columns(table, ("ticket", "sender", "state", "since (UTC)"))
    add_columns(table, ("face value", "paid", "gas"), right=True)
    add_columns(table, ("transaction", "reason"))
    for record in records[-_SHOWN:]:
        last = record.last
        since = datetime.fromtimestamp(last.at, UTC).strftime("%m-%d %H:%M") if last.at else ""
        table.add_row(
            last.ticket_hash.hex()[:8],
            checksum(record.winner.signed.ticket.sender)[:10],
            record.state.value,
            since,
            format_wei(record.winner.signed.ticket.face_value),
            format_wei(record.income),
            format_wei(record.cost),
            last.transaction_hash.hex()[:10],
            last.reason,
        )
    return table


def _json(record: Record) -> dict[str, object]:
    last = record.last
    return {
        "ticket": last.ticket_hash.hex(),
        "sender": checksum(record.winner.signed.ticket.sender),
        "state": record.state.value,
        "face_value": str(record.winner.signed.ticket.face_value),
        "paid": str(record.income),
        "lost": str(record.loss),
        "gas": str(record.cost),
        "transaction": last.transaction_hash.hex(),
        "reason": last.reason,
        "at": last.at,
    }
