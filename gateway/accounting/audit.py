"""Who changed what: one line for each thing an operator did, only ever appended.

Each line holds the hash of the one before it, so that a line that was changed or taken out shows.
A file of its own, because it has to be writable where the database is away, and beside a gateway that runs.
"""

import fcntl
import hashlib
import os
import pwd
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

import orjson

from network.errors import LimnerError
from network.runtime.log import is_secret

FILE_NAME: Final = "audit.jsonl"
#: The hash before the first line.
_BEGINNING: Final = "0" * 64
#: Bytes; no line is longer.
_LONGEST_LINE: Final = 16 * 1024


class AuditError(LimnerError):
    """The log cannot be written or read; nothing an operator does may go unrecorded."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that was done."""

    #: Unix seconds.
    at: float
    #: The user of the operating system, and who that was before `sudo`.
    who: str
    #: In the past tense: "key made".
    action: str
    about: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Record:
    """The whole log. `broken_at` is the first line (from 1) that does not follow from those before it."""

    entries: tuple[Entry, ...]
    broken_at: int | None


class AuditLog:
    """Several processes may append at the same time. Every call blocks."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE_NAME

    def check(self) -> None:
        """Raise AuditError unless lines can be appended: to be known before anything is done."""
        try:
            with self._opened():
                pass
        except OSError as error:
            raise self._failed(error) from error

    def append(self, entry: Entry) -> None:
        """Return when the line is on disk. Raises AuditError, ValueError for a secret's name."""
        secret = [name for name in entry.about if is_secret(name)]
        if secret:
            raise ValueError(f"{secret[0]} must not be written down")
        told = {"at": entry.at, "who": entry.who, "action": entry.action, **entry.about}
        try:
            with self._opened() as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                line = orjson.dumps({**told, "before": _last_hash(file)}, default=str) + b"\n"
                if len(line) > _LONGEST_LINE:
                    raise ValueError(f"a line of {len(line)} bytes is too long for the audit log")
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise self._failed(error) from error

    def read(self) -> Record:
        """Raises AuditError."""
        try:
            lines = self._path.read_bytes().splitlines()
        except FileNotFoundError:
            lines = []
        except OSError as error:
            raise self._failed(error) from error
        return _read(lines)

    def _opened(self) -> BinaryIO:
        handle = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        return os.fdopen(handle, "a+b")

    def _failed(self, error: OSError) -> AuditError:
        return AuditError(
            f"the audit log {self._path} cannot be used: {error.strerror}; what an operator does "
            "is not done unrecorded"
        )


def os_user(environment: Mapping[str, str]) -> str:
    """Whoever runs this process."""
    try:
        name = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        name = str(os.getuid())
    before = environment.get("SUDO_USER", "")
    return f"{name} (sudo by {before})" if before and before.isprintable() else name


def _read(lines: Sequence[bytes]) -> Record:
    entries: list[Entry] = []
    before = _BEGINNING
    broken_at: int | None = None
    for number, line in enumerate(lines, 1):
        try:
            told = orjson.loads(line)
            follows = told.pop("before") == before
            entries.append(Entry(told.pop("at"), told.pop("who"), told.pop("action"), told))
        except (ValueError, KeyError, TypeError, AttributeError):
            follows = False
        if not follows and broken_at is None:
            broken_at = number
        before = _hash(line)
    return Record(tuple(entries), broken_at)


def _last_hash(file: BinaryIO) -> str:
    size = file.seek(0, os.SEEK_END)
    if not size:
        return _BEGINNING
    file.seek(max(0, size - 2 * _LONGEST_LINE))
    return _hash(file.read().rstrip(b"\n").rpartition(b"\n")[2])


def _hash(line: bytes) -> str:
    return hashlib.sha256(line).hexdigest()
