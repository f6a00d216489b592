"""Where the passphrase of a keystore comes from: a setting, a file, one made here, or a person.

A passphrase is never an argument of a command: the list of processes shows those to everybody.
"""

import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from network.errors import ConfigError
from network.runtime.secret_file import is_open_to_others, write_secret

_MOST_BYTES: Final = 4096
_MADE_BYTES: Final = 32

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class PassphraseSources:
    """Where one role looks, in this order; `given` is "" where the settings name none."""

    given: str
    file: Path | None
    #: Made at first start where nothing else is named.
    made: Path
    #: What the passphrase opens.
    keystore: Path


def must_be_asked(sources: PassphraseSources) -> bool:
    """Whether only a person can tell the passphrase: there is a keystore and nothing to open it."""
    is_named = bool(sources.given) or sources.file is not None or sources.made.exists()
    return not is_named and sources.keystore.exists()


def find_passphrase(sources: PassphraseSources) -> str:
    """The passphrase; for a new keystore one is made and kept, readable by its owner only.

    Reads and writes files. Raises ConfigError that says which file is wrong, or that none is named.
    """
    if sources.given:
        return sources.given
    if sources.file is not None:
        return read_passphrase(sources.file.expanduser())
    # Looked for in this order, because whoever makes both makes the passphrase first.
    has_keystore = sources.keystore.exists()
    if sources.made.exists():
        return read_passphrase(sources.made)
    if has_keystore:
        # A made one could not open it, and would hide from the operator that one is missing.
        raise ConfigError(
            "keystore",
            f"nothing opens {sources.keystore}: set keystore.passphrase_file, or give the "
            "passphrase in the environment, or start on a terminal to be asked",
        )
    return _make(sources.made)


def read_passphrase(path: Path) -> str:
    """The first and only line of `path`. Raises ConfigError naming the file."""
    try:
        with path.open("rb") as file:
            text = file.read(_MOST_BYTES + 1).decode().strip("\r\n")
    except FileNotFoundError:
        raise ConfigError("keystore.passphrase_file", f"{path} does not exist") from None
    except UnicodeDecodeError:
        # Not chained: the decoder's error carries the bytes.
        raise ConfigError("keystore.passphrase_file", f"{path} is no UTF-8 text") from None
    except OSError as error:
        raise ConfigError(
            "keystore.passphrase_file", f"cannot read {path}: {error.strerror}"
        ) from error
    if not text:
        raise ConfigError("keystore.passphrase_file", f"{path} is empty")
    if len(text.encode()) > _MOST_BYTES or "\n" in text:
        raise ConfigError("keystore.passphrase_file", f"{path} is more than one line")
    if is_open_to_others(path):
        _log.warning("passphrase_file_is_open_to_others", file=str(path), advice="chmod 600")
    return text


def _make(path: Path) -> str:
    text = secrets.token_urlsafe(_MADE_BYTES)
    try:
        write_secret(path, f"{text}\n".encode())
    except FileExistsError:
        # Another process starts on the same new directory, and was first.
        return read_passphrase(path)
    except OSError as error:
        raise ConfigError("data_dir", f"cannot write {path}: {error.strerror}") from error
    _log.warning(
        "made_a_passphrase_for_the_keystore",
        file=str(path),
        advice="back up both, or set keystore.passphrase_file",
    )
    return text
