"""An identity whose keystore opens at once: a real one takes a second of scrypt by design."""

import asyncio
from pathlib import Path

from network.keystore import create_keystore

_PASSPHRASE = "test"


async def make_cheap_identity(data: Path) -> None:
    """Write a keystore and its passphrase file into the data directory, unless one is there."""
    if await asyncio.to_thread(_make_folder, data):
        await create_keystore(data / "keystore.json", _PASSPHRASE, b"\x22" * 32, scrypt_n=2)


def _make_folder(data: Path) -> bool:
    if data.exists():
        return False
    data.mkdir(mode=0o700, parents=True)
    file = data / "keystore.passphrase"
    file.touch(0o600)
    file.write_text(_PASSPHRASE)
    return True
