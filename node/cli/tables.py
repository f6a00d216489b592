"""Tables for people; into a pipe they keep their full width."""

import sys
from collections.abc import Iterable
from typing import Final

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

#: A pipe has no width of its own: long lines are better there than folded ones.
_PIPED_WIDTH: Final = 200


def console(*, stderr: bool = False) -> Console:
    """Return a console as wide as the terminal is."""
    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, width=None if stream.isatty() else _PIPED_WIDTH)


def show(table: Table) -> None:
    """Print a table on standard output."""
    console().print(table)


def plain_table(title: str, *, show_footer: bool = False) -> Table:
    """Return a table without columns in the style of all commands."""
    return Table(
        title=title,
        title_justify="left",
        box=SIMPLE_HEAD,
        pad_edge=False,
        show_footer=show_footer,
    )


def add_columns(table: Table, names: Iterable[str], *, right: bool = False) -> None:
    """Add columns that are never folded."""
    for name in names:
        table.add_column(name, justify="right" if right else "left", no_wrap=True)
