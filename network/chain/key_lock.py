"""One process at a time sends transactions of an account: two would use the same nonces."""

import fcntl
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from network.errors import ConfigError
from network.identity import checksum
from network.units import Address

_MOST_OWNER_BYTES: Final = 200


@contextmanager
def hold_key(account: Address, chain_id: int, folders: Sequence[Path]) -> Iterator[None]:
    """Hold the account on that chain for the length of the block; the system lets go if we die.

    A lock file lies in each of `folders`: a data directory is shared by the commands of one
    program, and the user's own folder by every program with a copy of the key. Blocks shortly.
    Raises ConfigError that tells who holds it.
    """
    with ExitStack() as held:
        for folder in dict.fromkeys(folder.resolve() for folder in folders):
            held.enter_context(_hold(folder / f"{checksum(account)}.{chain_id}.lock", account))
        yield


def user_folder() -> Path:
    """Where programs of this user find one another's locks."""
    named = os.environ.get("XDG_STATE_HOME")
    return (Path(named) if named else Path.home() / ".local" / "state") / "limner"


@contextmanager
def _hold(path: Path, account: Address) -> Iterator[None]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise ConfigError("keystore", f"cannot write {path}: {error.strerror}") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.read(descriptor, _MOST_OWNER_BYTES).decode(errors="replace").strip()
            raise ConfigError(
                "keystore",
                f"account {checksum(account)} is in use by {owner or 'another process'}; "
                f"stop that one first, or use another account (lock: {path})",
            ) from None
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{Path(sys.argv[0]).name}, process {os.getpid()}".encode())
        yield
    finally:
        # The file stays: removing it would let two processes lock two files of one name.
        os.close(descriptor)
