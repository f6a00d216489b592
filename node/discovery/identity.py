"""Who the node is: its account, and the secret behind its sessions, both kept across restarts."""

import asyncio
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from network.errors import ConfigError
from network.identity import KeySigner
from network.keystore import KEYSTORE_NAME, load_or_create
from network.passphrase import PassphraseSources, find_passphrase
from network.runtime.secret_file import write_secret

_SECRET_BYTES: Final = 32
_PASSPHRASE_FILE: Final = "passphrase"  # noqa: S105  a file name
_SECRET_FILE: Final = "session-secret"  # noqa: S105  a file name


@dataclass(frozen=True, slots=True)
class Identity:
    """The node's account and the HMAC secret of its auth tokens."""

    signer: KeySigner
    session_secret: bytes


async def open_identity(data_dir: Path, passphrase: str, passphrase_file: Path | None) -> Identity:
    """Load the node's identity from its data directory; make what is not there yet.

    Raises ConfigError for an unreadable file or a wrong passphrase.
    """
    sources = passphrase_sources(data_dir, passphrase, passphrase_file)
    signer = await load_or_create(data_dir, await asyncio.to_thread(find_passphrase, sources))
    secret = await asyncio.to_thread(_session_secret, data_dir / _SECRET_FILE)
    return Identity(signer, secret)


def passphrase_sources(data_dir: Path, given: str, file: Path | None) -> PassphraseSources:
    """Where the passphrase of the node's account is looked for."""
    return PassphraseSources(
        given=given,
        file=file,
        made=data_dir / _PASSPHRASE_FILE,
        keystore=data_dir / KEYSTORE_NAME,
    )


def _session_secret(path: Path) -> bytes:
    # Kept across restarts: gateways hold tokens for half an hour, and suspend a node that
    # suddenly knows none of them.
    try:
        secret = path.read_bytes()
    except FileNotFoundError:
        secret = secrets.token_bytes(_SECRET_BYTES)
        _write_new(path, secret)
    except OSError as error:
        raise ConfigError("data_dir", f"cannot read {path}: {error}") from error
    if len(secret) != _SECRET_BYTES:
        raise ConfigError("data_dir", f"{path} is damaged; delete it to have a new one made")
    return secret


def _write_new(path: Path, content: bytes) -> None:
    try:
        write_secret(path, content)
    except OSError as error:
        raise ConfigError("data_dir", f"cannot write {path}: {error}") from error
