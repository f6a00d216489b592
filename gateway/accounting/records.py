"""Events as rows of the journal's tables, and such rows as the bytes of an intent."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, Final

import orjson
from sqlalchemy import Connection, Table, select

from gateway.accounting.events import Accepted, Attempt, Event, Outcome, Settlement
from gateway.accounting.tables import attempts, metadata, outcomes, requests, settlements
from network.runtime.inserting import Row
from network.units import Wei

_TABLES: Final[Mapping[type, Table]] = {
    Accepted: requests,
    Attempt: attempts,
    Outcome: outcomes,
    Settlement: settlements,
}
_COLUMNS: Final = {kind: tuple(f.name for f in fields(kind)) for kind in _TABLES}
_FEE: Final = "fee"


def row_of(event: Event) -> Row:
    """The event as its table holds it."""
    kind = type(event)
    row: dict[str, object] = {name: getattr(event, name) for name in _COLUMNS[kind]}
    if isinstance(event, Attempt):
        row["price"] = f"{event.price.numerator}/{event.price.denominator}"
    return _TABLES[kind], row


def encode_rows(rows: Sequence[Row]) -> bytes:
    """JSON `[[table, row], ...]`; wei as text, for they outgrow what JSON's readers take."""
    return orjson.dumps([[table.name, _told(row)] for table, row in rows])


def decode_rows(record: bytes) -> list[Row]:
    """What `encode_rows` made."""
    found: list[tuple[str, dict[str, Any]]] = orjson.loads(record)
    return [(metadata.tables[name], _understood(row)) for name, row in found]


def missing(connection: Connection, rows: Sequence[Row]) -> list[Row]:
    """Those of `rows` that the database does not have; the first column is each table's key."""
    return [row for row in rows if not _is_known(connection, *row)]


def _is_known(connection: Connection, table: Table, row: Mapping[str, object]) -> bool:
    key = next(iter(table.primary_key))
    query = select(key).where(key == row[key.name])
    return connection.execute(query).first() is not None


def _told(row: Mapping[str, object]) -> Mapping[str, object]:
    return {**row, _FEE: str(row[_FEE])} if _FEE in row else row


def _understood(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, _FEE: Wei(int(row[_FEE]))} if _FEE in row else row
