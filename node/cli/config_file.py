"""Adds a model to a settings file without touching anything else in it."""

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import tomlkit
from tomlkit.exceptions import TOMLKitError
from tomlkit.items import AoT

from network.errors import ConfigError
from network.runtime.settings import load
from node.config.settings import ENVIRONMENT_PREFIX, NodeSettings

_MODELS: Final = "models"


def model_entry(fields: Mapping[str, object]) -> str:
    """Return a `[[models]]` table as it stands in a settings file."""
    document = tomlkit.document()
    document.append(_MODELS, _tables(fields))
    return tomlkit.dumps(document)


def append_model(path: Path, fields: Mapping[str, object]) -> None:
    """Append the table to a file, which is made if there is none.

    What the file holds stays as it is, comments and all. The new content takes the old one's place
    at once, and only if a node can start from it. Raises ConfigError.
    """
    try:
        text = path.read_text() if path.exists() else ""
        document = tomlkit.parse(text)
    except (OSError, UnicodeDecodeError, TOMLKitError) as error:
        raise ConfigError("", f"cannot use {path}: {error}") from error
    present = document.get(_MODELS)
    if isinstance(present, AoT):
        if any(table.get("id") == fields["id"] for table in present):
            raise ConfigError(_MODELS, f"{fields['id']} is in {path} already")
        ending = present.as_string()
        table = tomlkit.item(dict(fields))
        if ending.endswith("\n\n"):
            table.add(tomlkit.nl())  # a blank line stood before the next table, and should again
        else:
            table.trivia.indent = "\n" if ending.endswith("\n") else "\n\n"
        present.append(table)
    elif present is None:
        if text and not text.endswith("\n\n"):
            document.add(tomlkit.nl())
        document.append(_MODELS, _tables(fields))
    else:
        raise ConfigError(_MODELS, f"is no list of tables in {path}; add the model by hand")
    _replace(path, tomlkit.dumps(document))


def _tables(fields: Mapping[str, object]) -> AoT:
    tables = tomlkit.aot()
    tables.append(tomlkit.item(dict(fields)))
    return tables


def _replace(path: Path, text: str) -> None:
    target = path.resolve()
    try:
        descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    except OSError as error:
        raise ConfigError("", f"cannot write to {target.parent}: {error.strerror}") from error
    written = Path(name)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        load(NodeSettings, written, ENVIRONMENT_PREFIX, {}, {})
        if target.exists():
            written.chmod(target.stat().st_mode & 0o7777)
        written.replace(target)
    finally:
        written.unlink(missing_ok=True)
