"""A gateway's operator on the tests' own chain: data directory, settings, commands."""

import asyncio
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from click.testing import CliRunner
from eth_account.signers.local import LocalAccount

from gateway.__main__ import main
from network.keystore import create_keystore
from scripts.local_network.network import toml
from tests.devnet import CHAIN_ID, Devnet

PASSPHRASE = "correct-horse-battery"


@dataclass(frozen=True)
class Said:
    status: int
    out: str
    err: str


@dataclass(frozen=True)
class Operator:
    """Whoever runs a gateway with one account."""

    folder: Path
    account: LocalAccount

    @property
    def options(self) -> tuple[str, ...]:
        return ("--config", str(self.folder / "gateway.toml"))

    @property
    def environment(self) -> dict[str, str]:
        """The passphrase, and a state folder that no other test's locks are in."""
        return {
            "LIMNER_GATEWAY__KEYSTORE__PASSPHRASE": PASSPHRASE,
            "XDG_STATE_HOME": str(self.folder / "state"),
        }

    async def run(self, *command: str, answer: str = "", **environment: str) -> Said:
        """One command of `limner-gateway`, in this process, on a thread."""
        clean: dict[str, str | None] = {
            name: None for name in os.environ if name.startswith("LIMNER_")
        }
        result = await asyncio.to_thread(
            CliRunner().invoke,
            main,
            (*command, *self.options),
            input=answer,
            env={**clean, **self.environment, **environment},
        )
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert PASSPHRASE not in result.output
        assert bytes(self.account.key).hex() not in result.output
        return Said(result.exit_code, result.stdout, result.stderr)

    async def wallet(self) -> dict[str, Any]:
        said = await self.run("wallet", "--json")
        assert said.status == 0, said.err
        told: dict[str, Any] = json.loads(said.out)
        return told


async def operator_on(
    devnet: Devnet, folder: Path, account: LocalAccount, **network: Any
) -> Operator:
    """`network` changes what network.json says of the chain."""
    await create_keystore(
        folder / "data" / "keystore.json", PASSPHRASE, bytes(account.key), scrypt_n=2
    )
    described = {
        "chain_id": CHAIN_ID,
        "controller": devnet.contracts.controller,
        "ai_service_registry": devnet.contracts.addresses["AIServiceRegistry"],
        "rpc": devnet.chain.url,
        **network,
    }
    await asyncio.to_thread(_write, folder, described)
    return Operator(folder, account)


def _write(folder: Path, described: dict[str, Any]) -> None:
    network = folder / "network.json"
    network.write_text(json.dumps(described))
    settings = {
        "data_dir": str(folder / "data"),
        "chain.network": str(network),
        "chain.poll_seconds": 0.1,
    }
    (folder / "gateway.toml").write_text(toml(settings))
