"""The devnet's own folder: its accounts, its chain, and a node and a gateway that are ready to run.

<folder>/secrets.json     the chain's owner, made at the first start
<folder>/chain.json       the chain, where anvil keeps it
<folder>/network.json     what nodes and gateways have to know of it
<folder>/node, gateway    their data directories
<folder>/node.toml, gateway.toml
"""

import asyncio
import fcntl
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from eth_account import Account
from eth_account.signers.local import LocalAccount

from network.devnet.deployment import account_of
from network.errors import ConfigError
from network.identity import KEY_BYTES
from network.keystore import create_keystore

_OWNER_ONLY: Final = 0o600
_WORDS: Final = 12
_SECRETS: Final = "secrets.json"
#: Light: these keys are worth nothing, and starting them should not take a second.
_SCRYPT_N: Final = 2**12
#: The path of the first account that anvil makes of a mnemonic.
_FIRST_ACCOUNT: Final = "m/44'/60'/0'/0/0"


@dataclass(frozen=True, slots=True)
class Home:
    """One devnet's folder."""

    folder: Path

    @property
    def state_file(self) -> Path:
        return self.folder / "chain.json"

    @property
    def network_file(self) -> Path:
        return self.folder / "network.json"

    @property
    def log_file(self) -> Path:
        return self.folder / "anvil.log"

    def config_file(self, role: str) -> Path:
        return self.folder / f"{role}.toml"

    def known_controller(self) -> str | None:
        """Where an earlier start deployed to; the chain may have forgotten it since."""
        try:
            content = json.loads(self.network_file.read_text())
        except (OSError, json.JSONDecodeError):
            return None
        return str(content["controller"]) if "controller" in content else None

    def reset(self) -> None:
        """Forget the chain; accounts and configuration stay."""
        for path in (self.state_file, self.network_file):
            path.unlink(missing_ok=True)

    def mnemonic(self) -> str:
        """The words that the chain's accounts come from; drawn at the first start.

        Each devnet has its own: a ticket's hash names no chain, so keys must not be shared by two.
        """
        Account.enable_unaudited_hdwallet_features()
        path = self.folder / _SECRETS
        try:
            return str(json.loads(path.read_text())["mnemonic"])
        except FileNotFoundError:
            _, words = Account.create_with_mnemonic(num_words=_WORDS)
            _write(path, json.dumps({"mnemonic": words}))
            return str(words)
        except (OSError, ValueError, KeyError) as error:
            raise ConfigError("devnet", f"{path} cannot be used: {error}; delete it") from error

    def owner(self) -> LocalAccount:
        """Who owns the contracts and has the chain's ether."""
        words = self.mnemonic()
        account: LocalAccount = Account.from_mnemonic(words, account_path=_FIRST_ACCOUNT)
        return account

    async def account(self, role: str) -> LocalAccount:
        """The account of the node or the gateway, in a keystore that either opens by itself."""
        directory = self.folder / role
        keystore, passphrase = directory / "keystore.json", directory / "devnet.passphrase"
        if await asyncio.to_thread(keystore.exists):
            return account_of(await asyncio.to_thread(_decrypted, keystore, passphrase))
        key, words = secrets.token_bytes(KEY_BYTES), secrets.token_urlsafe(24)
        await asyncio.to_thread(directory.mkdir, parents=True, exist_ok=True, mode=0o700)
        await asyncio.to_thread(_write, passphrase, words)
        await create_keystore(keystore, words, key, scrypt_n=_SCRYPT_N)
        return account_of(key)

    def write_config(self, role: str, settings: dict[str, Any], tables: str = "") -> Path:
        """A configuration for `limner-node` or `limner-gateway`; one that is there stays as it is."""
        path = self.config_file(role)
        if not path.exists():
            values = {
                "data_dir": str(self.folder / role),
                "keystore.passphrase_file": str(self.folder / role / "devnet.passphrase"),
                "chain.network": str(self.network_file),
                **settings,
            }
            lines = [f"{key} = {json.dumps(value)}" for key, value in values.items()]
            _write(path, "\n".join(lines) + f"\n{tables}")
        return path


@contextmanager
def open_home(folder: Path) -> Iterator[Home]:
    """Take the folder for this process. Raises ConfigError where another has it."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        file = (folder / "lock").open("w")
    except OSError as error:
        raise ConfigError("data_dir", f"cannot use {folder}: {error.strerror}") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(
                "data_dir", f"another limner-devnet runs on {folder}; give this one its own"
            ) from None
        yield Home(folder)


def remove_home(folder: Path) -> None:
    """Delete a devnet with its accounts. Raises ConfigError for a folder that is something else."""
    if not folder.exists() or not any(folder.iterdir()):
        return
    if not (folder / _SECRETS).exists():
        raise ConfigError(
            "data_dir", f"{folder} is no devnet's and has files in it; name an empty one"
        )
    with open_home(folder):  # refuses while another devnet runs on it
        shutil.rmtree(folder, ignore_errors=True)


def _decrypted(keystore: Path, passphrase: Path) -> bytes:
    try:
        key = Account.decrypt(json.loads(keystore.read_text()), passphrase.read_text().strip())
    except (OSError, ValueError) as error:
        raise ConfigError("devnet", f"cannot open {keystore}: {error}") from error
    return bytes(key)


def _write(path: Path, text: str) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, _OWNER_ONLY)
    with os.fdopen(handle, "w") as file:
        file.write(text)
