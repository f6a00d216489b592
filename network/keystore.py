"""Accounts on disk: Web3 Secret Storage, version 3, as every Ethereum client reads it."""

import asyncio
import contextlib
import re
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import orjson

from network.errors import ConfigError
from network.identity import KEY_BYTES, KeySigner
from network.runtime.secret_file import write_secret
from network.units import Address

#: Opening takes 64 MiB and half a second. Ethereum's usual 2**18 takes 256 MiB, more than
#: the rest of a gateway; keystores made with it are opened all the same.
SCRYPT_N: Final = 2**16

#: In a role's data directory.
KEYSTORE_NAME: Final = "keystore.json"

_HEX_KEY: Final = re.compile(rb"(?:0x)?([0-9a-fA-F]{64})")
_MOST_KEPT: Final = 1000
_MOST_KEYSTORE_BYTES: Final = 64 * 1024
_MOST_SCRYPT_MEMORY: Final = 512 * 1024 * 1024
_MOST_SCRYPT_PASSES: Final = 16
_MOST_PBKDF2_ROUNDS: Final = 10_000_000


async def load_or_create(
    directory: Path, passphrase: str, *, scrypt_n: int = SCRYPT_N
) -> KeySigner:
    """The account of a data directory, made at first start.

    Raises ConfigError if the keystore is unreadable or the passphrase is wrong.
    """
    path = directory / KEYSTORE_NAME
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


async def import_key(
    source: bytes,
    source_passphrase: str,
    directory: Path,
    passphrase: str,
    *,
    replace: bool = False,
    scrypt_n: int = SCRYPT_N,
) -> tuple[Address, Path | None]:
    """Make the key in `source`, a keystore or hex digits, the account of a data directory.

    An account that is there is kept under another name, which is told, if `replace`; without it the
    import is refused. The directory's keystore is encrypted anew with `passphrase`. Raises ConfigError.
    """
    if is_hex_key(source):
        found = _HEX_KEY.fullmatch(source.strip())
        key = bytes.fromhex(found[1].decode()) if found else b""
    else:
        key = await asyncio.to_thread(_decrypt, "the file to import", source, source_passphrase)
    try:
        address = KeySigner(key).address
    except ValueError:  # zero, or not below the curve's order
        raise ConfigError("keystore", "the file to import holds no valid private key") from None
    path = directory / KEYSTORE_NAME
    kept = await asyncio.to_thread(_keep_aside, path) if replace else None
    try:
        content = await asyncio.to_thread(_encrypted, passphrase, key, scrypt_n)
        await asyncio.to_thread(write_secret, path, content, replace=replace)
    except FileExistsError:
        raise ConfigError(
            "keystore", f"{path} is there already; --replace keeps it under another name"
        ) from None
    except OSError as error:
        raise ConfigError("keystore", f"cannot write {path}: {error.strerror}") from error
    return address, kept


def is_hex_key(source: bytes) -> bool:
    """Whether a file holds a bare private key, for which no passphrase is needed."""
    return _HEX_KEY.fullmatch(source.strip()) is not None


def read_key_file(path: Path) -> bytes:
    """The content of a file to import, bounded. Raises ConfigError naming the file."""
    try:
        with path.open("rb") as file:
            return file.read(_MOST_KEYSTORE_BYTES)
    except OSError as error:
        raise ConfigError("keystore", f"cannot read {path}: {error.strerror}") from error


def _keep_aside(path: Path) -> Path | None:
    """A second name for the keystore at `path`, so that replacing it loses nothing."""
    if not path.exists():
        return None
    for number in range(1, _MOST_KEPT):
        kept = path.with_name(f"{path.stem}-{number}{path.suffix}")
        with contextlib.suppress(FileExistsError):
            kept.hardlink_to(path)
            return kept
    raise ConfigError("keystore", f"there are {_MOST_KEPT} former keystores beside {path}")


def _write(path: Path, passphrase: str, private_key: bytes, scrypt_n: int) -> None:
    write_secret(path, _encrypted(passphrase, private_key, scrypt_n))


def _encrypted(passphrase: str, private_key: bytes, scrypt_n: int) -> bytes:
    # Imported when needed: it costs as much memory as the rest of this package.
    from eth_keyfile import create_keyfile_json  # noqa: PLC0415

    content = create_keyfile_json(
        private_key, passphrase.encode(), kdf="scrypt", iterations=scrypt_n
    )
    return orjson.dumps(content)


def _read(path: Path, passphrase: str) -> KeySigner:
    return KeySigner(_decrypt(str(path), read_key_file(path), passphrase))


def _decrypt(where: str, file: bytes, passphrase: str) -> bytes:
    from eth_keyfile import decode_keyfile_json  # noqa: PLC0415  as above

    try:
        content = orjson.loads(file)
        _refuse_costly(content.get("crypto") or content["Crypto"])
        key: bytes = decode_keyfile_json(content, passphrase.encode())
    except ConfigError as error:
        raise ConfigError("keystore", f"cannot open {where}: {error.problem}") from None
    except ValueError as error:
        # The library's word for a wrong passphrase; its other complaints are about the format.
        if "MAC mismatch" in str(error):
            raise ConfigError(
                "keystore", f"cannot open {where}: the passphrase is wrong"
            ) from None
        raise ConfigError("keystore", f"{where} is not a version 3 keystore") from None
    except (AttributeError, KeyError, TypeError, OverflowError, NotImplementedError):
        raise ConfigError("keystore", f"{where} is not a version 3 keystore") from None
    if len(key) != KEY_BYTES:
        raise ConfigError("keystore", f"{where} holds {len(key)} bytes instead of a private key")
    return key


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
