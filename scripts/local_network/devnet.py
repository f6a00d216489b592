"""A devnet beside the node and the gateway: the chain that they pay each other on."""

import json
import sqlite3
import urllib.request
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.local_network.network import BIN, Settings, free_port
from scripts.local_network.processes import Program


@dataclass(slots=True)
class Devnet:
    """A running `limner-devnet`; `folder` holds the node's and the gateway's data directories."""

    folder: Path
    program: Program
    engine: str

    @property
    def url(self) -> str:
        return self.program.ready.url

    def settings(self, role: str) -> Settings:
        """What makes a node or a gateway pay on this chain, as keys of its configuration."""
        return {
            "keystore.passphrase_file": str(self.folder / role / "devnet.passphrase"),
            "chain.network": str(self.folder / "network.json"),
            "chain.poll_seconds": 0.5,
        }

    def data_dir(self, role: str) -> Path:
        return self.folder / role

    def mine(self, blocks: int) -> None:
        """Empty blocks at once, as if time had passed."""
        self.rpc("anvil_mine", hex(blocks))

    def rpc(self, method: str, *parameters: object) -> Any:
        """A JSON-RPC call; raises RuntimeError for an error."""
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": parameters})
        request = urllib.request.Request(  # noqa: S310 - our own loopback address
            self.url, data=body.encode(), headers={"Content-Type": "application/json"}
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=60) as answer:
            told = json.load(answer)
        if "error" in told:
            raise RuntimeError(f"{method}: {told['error']}")
        return told["result"]


def start_devnet(
    folder: Path, service_uri: str, *, options: Sequence[str] = (), round_length: int = 100
) -> Devnet:
    """Start a chain with a bonded node whose address is `service_uri`, and a funded gateway."""
    command = [str(BIN / "limner-devnet"), "run", "--data-dir", str(folder)]
    command += ["--port", str(free_port()), "--round-length", str(round_length)]
    command += ["--service-uri", service_uri, "--json-ready", *options]
    folder.parent.mkdir(parents=True, exist_ok=True)
    program = Program.start(command, log=folder.parent / "devnet.log", seconds=120)
    engine = json.loads((folder / "network.json").read_text()).get("engine", "")
    return Devnet(folder, program, engine)


def rows(database: Path, query: str) -> list[tuple[Any, ...]]:
    """Read a program's database as an auditor would."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=20)) as connection:
        return connection.execute(query).fetchall()
