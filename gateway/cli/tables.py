"""Tables for people; into a pipe they keep their full width."""

import sys
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table

#: Wide enough for every id in one line where nobody watches.
_PIPED_WIDTH = 240


def console() -> Console:
    return Console(width=None if sys.stdout.isatty() else _PIPED_WIDTH)


def show_table(
    title: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    numbers: Iterable[str] = (),
    ids: Iterable[str] = (),
) -> None:
    """Columns in `numbers` stand right; those in `ids` are never cut."""
    right, whole = set(numbers), set(ids)
    table = Table(title=title)
    for column in columns:
        table.add_column(
            column,
            justify="right" if column in right else "left",
            no_wrap=column in whole,
            overflow="fold",
        )
    for row in rows:
        table.add_row(*row)
    console().print(table)
