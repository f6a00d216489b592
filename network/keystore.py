"""Accounts on disk: Web3 Secret Storage, version 3, as every Ethereum client reads it."""

import asyncio
import contextlib
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import orjson

from network.errors import ConfigError
from network.identity import KEY_BYTES, KeySigner

#: Opening takes 64 MiB and half a second. Ethereum's usual 2**18 takes 256 MiB, more than
#: the rest of a gateway; keystores made with it are opened all the same.
SCRYPT_N: Final = 2**16

_KEYSTORE_NAME: Final = "keystore.json"
_MOST_KEYSTORE_BYTES: Final = 64 * 1024
_MOST_SCRYPT_MEMORY: Final = 512 * 1024 * 1024
_MOST_SCRYPT_PASSES: Final = 16
_MOST_PBKDF2_ROUNDS: Final = 10_000_000
_OWNER_ONLY: Final = 0o600


async def load_or_create(
    directory: Path, passphrase: str, *, scrypt_n: int = SCRYPT_N
) -> KeySigner:
    """The account of a data directory, made at first start.

    Raises ConfigError if the keystore is unreadable or the passphrase is wrong.
    """
    path = directory / _KEYSTORE_NAME
    if not await asyncio.to_thread(path.exists):
        key = secrets.token_bytes(KEY_BYTES)
        # Two processes may start on one new directory: the first file written wins for both.
        with contextlib.suppress(FileExistsError):
            await create_keystore(path, passphrase, key, scrypt_n=scrypt_n)
            return KeySigner(key)
    return await open_keystore(path, passphrase)


async def create_keystore(
    path: Path, passphrase: str, private_key: bytes, *, scrypt_n: int = SCRYPT_N
) -> None:
    """Write `private_key` as a keystore that only the owner can read.

    Never overwrites: raises FileExistsError. Takes half a second, off the event loop.
    """
    await asyncio.to_thread(_write, path, passphrase, private_key, scrypt_n)


async def open_keystore(path: Path, passphrase: str) -> KeySigner:
    """The signer in a keystore, ours or another program's.

    Takes half a second, off the event loop. Raises ConfigError naming the file.
    """
    return await asyncio.to_thread(_read, path, passphrase)


def _write(path: Path, passphrase: str, private_key: bytes, scrypt_n: int) -> None:
    # Imported when needed: it costs as much memory as the rest of this package.
    from eth_keyfile import create_keyfile_json  # noqa: PLC0415

    content = create_keyfile_json(
        private_key, passphrase.encode(), kdf="scrypt", iterations=scrypt_n
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    # Complete and on disk under another name first: a half-written key is a lost account.
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _OWNER_ONLY)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(orjson.dumps(content))
            file.flush()
            os.fsync(file.fileno())
        path.hardlink_to(draft)
    finally:
        draft.unlink()


def _read(path: Path, passphrase: str) -> KeySigner:
    from eth_keyfile import decode_keyfile_json  # noqa: PLC0415  as above

    try:
        with path.open("rb") as file:
            content = orjson.loads(file.read(_MOST_KEYSTORE_BYTES))
    except (OSError, orjson.JSONDecodeError) as error:
        raise ConfigError("keystore", f"cannot read {path}: {error}") from error
    try:
        _refuse_costly(content.get("crypto") or content["Crypto"])
        key: bytes = decode_keyfile_json(content, passphrase.encode())
    except ConfigError as error:
        raise ConfigError("keystore", f"cannot open {path}: {error.problem}") from None
    except ValueError as error:
        # The library's word for a wrong passphrase; its other complaints are about the format.
        if "MAC mismatch" in str(error):
            raise ConfigError("keystore", f"cannot open {path}: the passphrase is wrong") from None
        raise ConfigError("keystore", f"{path} is not a version 3 keystore") from error
    except (AttributeError, KeyError, TypeError, OverflowError, NotImplementedError) as error:
        raise ConfigError("keystore", f"{path} is not a version 3 keystore") from error
    return KeySigner(key)


def _refuse_costly(crypto: Mapping[str, Any]) -> None:
    """A file must not ask for all memory or time before its passphrase is even checked."""
    params = crypto["kdfparams"]
    if crypto["kdf"] == "pbkdf2":
        if int(params["c"]) > _MOST_PBKDF2_ROUNDS:
            raise ConfigError("keystore", f"it asks for more than {_MOST_PBKDF2_ROUNDS} rounds")
        return
    n, r, p = int(params["n"]), int(params["r"]), int(params["p"])
    if 128 * n * r > _MOST_SCRYPT_MEMORY or p > _MOST_SCRYPT_PASSES:
        raise ConfigError("keystore", "opening it would take more than 512 MiB or 16 passes")
