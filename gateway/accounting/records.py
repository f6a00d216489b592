"""Events as rows of the journal's tables, and such rows as the bytes of an intent."""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from operator import attrgetter
from typing import Any, Final

import orjson
from sqlalchemy import Connection, Table, select

from gateway.accounting.events import (
    Accepted,
    Attempt,
    Event,
    Fulfilment,
    Outcome,
    Receipt,
    Repeat,
    Settlement,
    TicketBatch,
)
from gateway.accounting.tables import (
    attempts,
    fulfilments,
    metadata,
    outcomes,
    receipts,
    repeats,
    requests,
    settlements,
    ticket_batches,
)
from network.runtime.database import WeiText
from network.runtime.inserting import Row
from network.units import Wei

_TABLES: Final[Mapping[type[Event], Table]] = {
    Accepted: requests,
    Attempt: attempts,
    Outcome: outcomes,
    Settlement: settlements,
    Repeat: repeats,
    TicketBatch: ticket_batches,
    Receipt: receipts,
    Fulfilment: fulfilments,
}
_FRACTIONS: Final[Mapping[type, tuple[str, ...]]] = {
    Attempt: ("price",),
    TicketBatch: ("credit", "taken"),
    Receipt: ("credited", "forfeited"),
}
_COLUMNS: Final = {kind: kind.__struct_fields__ for kind in _TABLES}
_values_of: Final = {kind: attrgetter(*names) for kind, names in _COLUMNS.items()}
#: Columns whose numbers outgrow what JSON's readers take, by table.
_WEI: Final = {
    table: tuple(column.name for column in table.columns if isinstance(column.type, WeiText))
    for table in _TABLES.values()
}


def row_of(event: Event) -> Row:
    """The event as its table holds it."""
    kind = type(event)
    row: dict[str, Any] = dict(zip(_COLUMNS[kind], _values_of[kind](event), strict=True))
    for name in _FRACTIONS.get(kind, ()):
        amount: Fraction = row[name]
        row[name] = f"{amount.numerator}/{amount.denominator}"
    return _TABLES[kind], row


def encode_rows(rows: Sequence[Row]) -> bytes:
    """JSON `[[table, row], ...]`; wei as text."""
    return orjson.dumps([[table.name, _told(table, row)] for table, row in rows])


def decode_rows(record: bytes) -> list[Row]:
    """What `encode_rows` made."""
    found: list[tuple[str, dict[str, Any]]] = orjson.loads(record)
    tables = [(metadata.tables[name], row) for name, row in found]
    return [(table, _understood(table, row)) for table, row in tables]


def missing(connection: Connection, rows: Sequence[Row]) -> list[Row]:
    """Those of `rows` that the database does not have; the first column is each table's key."""
    return [row for row in rows if not _is_known(connection, *row)]


def _is_known(connection: Connection, table: Table, row: Mapping[str, object]) -> bool:
    key = next(iter(table.primary_key))
    query = select(key).where(key == row[key.name])
    return connection.execute(query).first() is not None


def _told(table: Table, row: Mapping[str, object]) -> Mapping[str, object]:
    names = _WEI[table]
    if not names:
        return row
    told = dict(row)
    for name in names:
        if told[name] is not None:
            told[name] = str(told[name])
    return told


def _understood(table: Table, row: dict[str, Any]) -> dict[str, Any]:
    # An earlier version may have written the record, and not known all of the columns.
    told = [name for name in _WEI[table] if row.get(name) is not None]
    return {**row, **{name: Wei(int(row[name])) for name in told}}
