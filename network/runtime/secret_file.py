"""Files that only their owner reads, and that are there whole or not at all."""

import os
import secrets
from pathlib import Path
from typing import Final

_OWNER_ONLY: Final = 0o600
_OTHERS: Final = 0o077


def write_secret(path: Path, content: bytes, *, replace: bool = False) -> None:
    """Put `content` on disk at `path`, durably. Raises OSError, FileExistsError unless `replace`."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # Complete and on disk under another name first: a half-written key is a lost account.
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _OWNER_ONLY)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if replace:
            draft.replace(path)
        else:
            path.hardlink_to(draft)
    finally:
        draft.unlink(missing_ok=True)


def is_open_to_others(path: Path) -> bool:
    """Whether anybody but its owner may read or write the file. Raises OSError."""
    return bool(path.stat().st_mode & _OTHERS)
