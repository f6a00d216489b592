"""Who the node is: its account, and the secret behind its sessions, both kept across restarts."""

import asyncio
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from network.errors import ConfigError
from network.identity import KeySigner
from network.keystore import load_or_create

_SECRET_BYTES: Final = 32
_OWNER_ONLY: Final = 0o600
_MOST_PASSPHRASE_BYTES: Final = 4096
_PASSPHRASE_FILE: Final = "passphrase"  # noqa: S105  a file name
_SECRET_FILE: Final = "session-secret"  # noqa: S105  a file name

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Identity:
    """The node's account and the HMAC secret of its auth tokens."""

    signer: KeySigner
    session_secret: bytes


async def open_identity(data_dir: Path, passphrase: str, passphrase_file: Path | None) -> Identity:
    """Load the node's identity from its data directory; make what is not there yet.

    Raises ConfigError for an unreadable file or a wrong passphrase.
    """
    if not passphrase:
        passphrase = await asyncio.to_thread(_passphrase, data_dir, passphrase_file)
    signer = await load_or_create(data_dir, passphrase)
    secret = await asyncio.to_thread(_session_secret, data_dir / _SECRET_FILE)
    return Identity(signer, secret)


def _passphrase(data_dir: Path, given: Path | None) -> str:
    path = given or data_dir / _PASSPHRASE_FILE
    try:
        with path.open("rb") as file:
            text = file.read(_MOST_PASSPHRASE_BYTES).decode().strip("\r\n")
    except FileNotFoundError:
        if given is not None:
            raise ConfigError("keystore.passphrase_file", f"{path} does not exist") from None
        return _made_passphrase(path)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError("keystore.passphrase_file", f"cannot read {path}: {error}") from error
    if not text:
        raise ConfigError("keystore.passphrase_file", f"{path} is empty")
    return text


def _made_passphrase(path: Path) -> str:
    text = secrets.token_urlsafe(32)
    _write_new(path, f"{text}\n".encode())
    log.warning(
        "made a passphrase for the node's keystore; back up both, or set one of your own",
        file=str(path),
        setting="keystore.passphrase_file",
    )
    return text


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
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _OWNER_ONLY)
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise ConfigError("data_dir", f"cannot write {path}: {error}") from error
