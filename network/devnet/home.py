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
_LOCK: Final = "lock"
_ROLES: Final = ("node", "gateway")
#: Light: these keys are worth nothing, and starting them should not take a second.
_SCRYPT_N: Final = 2**12
#: Where wallets look for the first account of a mnemonic.
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

    @property
    def secrets_file(self) -> Path:
        return self.folder / "secrets.json"

    def prepare(self, *, uses_anvil: bool, reset: bool) -> None:
        """Begin anew when told so, and where no chain was kept: books of one that is gone would contradict the next.

        Raises ConfigError where anvil kept one that this start, without anvil, would end.
        """
        if self.state_file.exists() and not uses_anvil and not reset:
            raise ConfigError(
                "data_dir",
                f"{self.folder} keeps a chain of anvil's; start with anvil to go on with it, give "
                "another --data-dir, or begin anew with --reset",
            )
        if reset or not self.state_file.exists():
            self.reset()

    def reset(self) -> None:
        """Delete the chain, the accounts and the configurations, and nothing else that is here.

        Raises ConfigError for a folder with files in it that no devnet made.
        """
        if not self.secrets_file.exists():
            if any(path.name != _LOCK for path in self.folder.iterdir()):
                raise ConfigError(
                    "data_dir",
                    f"{self.folder} has files in it and is no devnet's; name an empty folder",
                )
            return
        self._words()  # what another program calls secrets.json is not ours to delete
        for role in _ROLES:
            shutil.rmtree(self.folder / role, ignore_errors=True)
            self.config_file(role).unlink(missing_ok=True)
        for path in (self.state_file, self.network_file, self.log_file, self.secrets_file):
            path.unlink(missing_ok=True)

    def mnemonic(self) -> str:
        """The words that the owner's account comes from; drawn at the first start.

        Each devnet has its own: a ticket's hash names no chain, so keys must not be shared by two.
        """
        Account.enable_unaudited_hdwallet_features()
        if self.secrets_file.exists():
            return self._words()
        _, words = Account.create_with_mnemonic(num_words=_WORDS)
        _write(self.secrets_file, json.dumps({"mnemonic": words}))
        return str(words)

    def owner(self) -> LocalAccount:
        """Who owns the contracts and has the chain's ether."""
        words = self.mnemonic()
        account: LocalAccount = Account.from_mnemonic(words, account_path=_FIRST_ACCOUNT)
        return account

    def _words(self) -> str:
        path = self.secrets_file
        try:
            return str(json.loads(path.read_text())["mnemonic"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(
                "data_dir", f"{path} holds no devnet's words ({error!r}); choose another folder"
            ) from error

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
        file = (folder / _LOCK).open("w")
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
