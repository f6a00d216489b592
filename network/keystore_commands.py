"""`keystore import`, the same in `limner-node` and `limner-gateway`.

No key and no passphrase is an argument: they come from files, the environment or a terminal.
"""

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from network.errors import LimnerError
from network.identity import checksum
from network.keystore import import_key, is_hex_key, read_key_file
from network.passphrase import (
    PassphraseSources,
    find_passphrase,
    must_be_asked,
    read_passphrase,
)

#: Puts a role's own options before a command.
Options = Callable[[Callable[..., Any]], Callable[..., Any]]
#: From the values of those options to where this role's passphrase and keystore are.
Locate = Callable[..., PassphraseSources]


def keystore_group(options: Options, locate: Locate) -> click.Group:
    """The `keystore` commands of one role."""

    @click.group("keystore")
    def group() -> None:
        """Bring the account of this program from elsewhere."""

    @group.command("import")
    @click.argument("source", type=click.Path(exists=True, dir_okay=False, path_type=Path))
    @click.option(
        "--source-passphrase-file",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="What opens SOURCE.  [default: asked for]",
    )
    @click.option(
        "--ask", is_flag=True, help="Choose the new passphrase now, and be asked at every start."
    )
    @click.option(
        "--replace", is_flag=True, help="Even if there is an account; the old file is kept."
    )
    @options
    def import_(
        *,
        source: Path,
        source_passphrase_file: Path | None,
        ask: bool,
        replace: bool,
        **chosen: object,
    ) -> None:
        """Make the key in SOURCE this program's account.

        SOURCE is a version 3 keystore of any Ethereum program, or a file with the 64 hex digits of a
        private key; /dev/stdin reads a pipe. It is encrypted anew with the passphrase that the settings
        name, and SOURCE is left as it is: delete it when the import has worked.
        """
        try:
            sources = locate(**chosen)
            content = read_key_file(source)
            opening = "" if is_hex_key(content) else _opening(source, source_passphrase_file)
            address, kept = asyncio.run(
                import_key(
                    content,
                    opening,
                    sources.keystore.parent,
                    _chosen(sources) if ask else _new_passphrase(sources),
                    replace=replace,
                )
            )
        except LimnerError as error:
            raise click.ClickException(str(error)) from None
        click.echo(checksum(address))
        if kept is not None:
            click.echo(f"The former account is in {kept}.", err=True)
        click.echo("A program that runs now keeps its account until it is restarted.", err=True)

    return group


def ask_if_needed(sources: PassphraseSources) -> str:
    """The passphrase of an existing keystore from the terminal, where nothing else tells it.

    "" where something does, or where nobody can be asked. Call it before the event loop runs.
    """
    if not must_be_asked(sources) or not sys.stdin.isatty():
        return ""
    return _asked(f"Passphrase of {sources.keystore}")


def _opening(source: Path, file: Path | None) -> str:
    return _asked(f"Passphrase of {source}") if file is None else read_passphrase(file)


def _new_passphrase(sources: PassphraseSources) -> str:
    return ask_if_needed(sources) or find_passphrase(sources)


def _chosen(sources: PassphraseSources) -> str:
    if sources.given or sources.file is not None or sources.made.exists():
        raise click.UsageError(
            "--ask is for keystores that nothing else opens: unset keystore.passphrase and "
            f"keystore.passphrase_file, and move {sources.made} away"
        )
    return _asked(f"New passphrase of {sources.keystore}", confirm=True)


def _asked(text: str, *, confirm: bool = False) -> str:
    answer: str = click.prompt(text, hide_input=True, confirmation_prompt=confirm, err=True)
    return answer
