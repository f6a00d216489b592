"""Rows into tables, by the driver's own `executemany`.

SQLAlchemy writes each statement once. Running it through SQLAlchemy costs several times what SQLite
takes for the row, on the way of every job.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, TypeAlias

from sqlalchemy import Connection, Table
from sqlalchemy.engine import Dialect
from sqlalchemy.schema import sort_tables

Row: TypeAlias = tuple[Table, Mapping[str, object]]
_Convert: TypeAlias = Callable[[Any], object]


@dataclass(frozen=True, slots=True)
class _Insert:
    """The statement for one table and one choice of its columns."""

    sql: str
    #: The columns in the statement's order, each with what the driver needs done to its values.
    columns: tuple[tuple[str, _Convert | None], ...]
    is_positional: bool

    def parameters(self, row: Mapping[str, object]) -> Any:
        """`row` as the driver takes it: a sequence or a mapping, by its dialect."""
        if self.is_positional:
            return tuple([_converted(convert, row[name]) for name, convert in self.columns])
        return {name: _converted(convert, row[name]) for name, convert in self.columns}


class Inserter:
    """Keeps the statements for one kind of database."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self._inserts: dict[tuple[Table, tuple[str, ...]], _Insert] = {}
        self._orders: dict[frozenset[Table], tuple[Table, ...]] = {}

    def insert(self, connection: Connection, rows: Sequence[Row]) -> None:
        """Insert within the connection's transaction; raises the driver's errors.

        One `executemany` for each table and set of columns, referenced tables first. Rows of
        one table keep their order, so that counting keys tell which came first.
        """
        by_table: dict[Table, list[Mapping[str, object]]] = {}
        for table, values in rows:
            by_table.setdefault(table, []).append(values)
        cursor = connection.connection.cursor()
        try:
            for table in self._referenced_first(frozenset(by_table)):
                for names, alike in groupby(by_table[table], key=tuple):
                    insert = self._insert(table, names)
                    cursor.executemany(insert.sql, [insert.parameters(row) for row in alike])
        finally:
            cursor.close()

    def _referenced_first(self, tables: frozenset[Table]) -> tuple[Table, ...]:
        order = self._orders.get(tables)
        if order is None:
            order = self._orders[tables] = tuple(sort_tables(tables))
        return order

    def _insert(self, table: Table, names: tuple[str, ...]) -> _Insert:
        insert = self._inserts.get((table, names))
        if insert is None:
            insert = self._inserts[table, names] = _compiled(table, names, self._dialect)
        return insert


def _compiled(table: Table, names: tuple[str, ...], dialect: Dialect) -> _Insert:
    """Raises CompileError for a column that the table does not have."""
    compiled = table.insert().inline().compile(dialect=dialect, column_keys=list(names))
    order = compiled.positiontup if compiled.positional else list(names)
    if order is None or set(order) != set(names):
        raise TypeError(f"{table.name} has columns whose defaults Python would have to fill in")
    columns = tuple(
        (name, table.c[name].type.dialect_impl(dialect).bind_processor(dialect)) for name in order
    )
    return _Insert(str(compiled), columns, compiled.positional)


def _converted(convert: _Convert | None, value: object) -> object:
    return value if convert is None else convert(value)
