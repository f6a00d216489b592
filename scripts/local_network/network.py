"""Configuration and life of nodes and a gateway on this machine; everything is bound to 127.0.0.1."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from scripts.local_network.processes import Program, ProgramError

BIN = Path(sys.executable).parent
MODEL = "limner/shapes"
ROOT = Path(__file__).resolve().parents[2]
#: Wei per pixel; about 0.0000014 ETH for an image of 1024 x 576 pixels.
DEFAULT_PRICE = "2400000"

Settings: TypeAlias = Mapping[str, str | int | float | bool | list[str]]


def free_port() -> int:
    """A port that is free now; used where a program must come back on the same one."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def toml(values: Mapping[str, Any], tables: Sequence[tuple[str, Settings]] = ()) -> str:
    """A TOML text; keys may be dotted. Strings, numbers and flags are written as JSON writes them."""
    lines = [f"{key} = {json.dumps(value)}" for key, value in values.items()]
    for name, table in tables:
        lines += ["", f"[[{name}]]", *(f"{key} = {json.dumps(v)}" for key, v in table.items())]
    return "\n".join(lines) + "\n"


def get_json(url: str, seconds: float = 5) -> Any:
    """GET without a proxy; raises OSError when there is no answer or no 200."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=seconds) as answer:
        return json.load(answer)


@dataclass(slots=True)
class _Kept:
    """A program with its folder: can be killed and started again on the same data and port."""

    folder: Path
    command: list[str]
    program: Program = field(init=False)

    @property
    def data_dir(self) -> Path:
        return Path(self.command[3])

    def start(self, seconds: float = 60) -> None:
        self.program = Program.start(self.command, log=self.folder / "log", seconds=seconds)

    def run_tool(self, *arguments: str) -> str:
        """Run another command of the same program on the same data; returns its stdout."""
        command = [self.command[0], *arguments, *self.command[2:4]]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        if done.returncode:
            message = f"{' '.join(command)} ended with {done.returncode}: {done.stderr.strip()}"
            raise ProgramError(message)
        return done.stdout


@dataclass(slots=True)
class Node(_Kept):
    """A running `limner-node`."""

    @property
    def url(self) -> str:
        return self.program.ready.url

    @property
    def admin_url(self) -> str:
        return self.program.ready.admin_url

    def jobs(self) -> list[dict[str, Any]]:
        """The journal as `limner-node jobs` tells it."""
        found: list[dict[str, Any]] = json.loads(self.run_tool("jobs", "--json"))
        return found


@dataclass(slots=True)
class Gateway(_Kept):
    """A running `limner-gateway` and a key to it."""

    key: str = ""

    @property
    def url(self) -> str:
        return self.program.ready.url

    @property
    def admin_url(self) -> str:
        return self.program.ready.admin_url

    def wait_for_model(
        self, model: str = MODEL, *, orchestrators: int = 1, seconds: float = 120
    ) -> None:
        """Wait until so many orchestrators offer `model` warm."""

        def offered() -> bool:
            status = get_json(f"{self.admin_url}/status")
            warm = [o for o in status["orchestrators"] if _offers_warm(o, model)]
            return len(warm) >= orchestrators

        _wait(offered, self.program, seconds)

    def create_key(self, name: str, *options: str) -> str:
        """A new key by `limner-gateway keys create`."""
        said = json.loads(self.run_tool("keys", "create", name, "--json", *options))
        key: str = said["key"]
        return key

    def usage(self) -> list[dict[str, Any]]:
        """The journal as `limner-gateway usage` tells it."""
        found: list[dict[str, Any]] = json.loads(self.run_tool("usage", "--json"))
        return found


def _offers_warm(orchestrator: dict[str, Any], model: str) -> bool:
    return orchestrator["state"] == "ready" and any(
        m["id"] == model and m["warm"] for m in orchestrator["models"]
    )


def _wait(condition: Any, program: Program, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not program.is_running:
            raise ProgramError(f"a program ended by itself; see {program.log}")
        try:
            if condition():
                return
        except OSError:
            pass
        time.sleep(0.05)
    raise ProgramError(f"not ready within {seconds:.0f} s; see {program.log}")


@dataclass(frozen=True, slots=True)
class NodePlan:
    """What a node is like: `price` in wei per pixel; `settings` are keys of `node.toml`, dotted."""

    price: str = DEFAULT_PRICE
    capacity: int = 2
    scheme: str = "https"
    settings: Settings = field(default_factory=dict)
    #: None: in the folder that the node is started in.
    data_dir: Path | None = None


def start_node(folder: Path, plan: NodePlan | None = None) -> Node:
    """Start a node with the built-in model; returns once it serves, its model may still load."""
    plan = plan or NodePlan()
    folder.mkdir(parents=True, exist_ok=True)
    values = {
        "listen": f"{plan.scheme}://127.0.0.1:{free_port()}",
        "admin_listen": f"127.0.0.1:{free_port()}",
        **plan.settings,
    }
    model: dict[str, str | int | float | bool] = {
        "id": MODEL,
        "price": plan.price,
        "capacity": plan.capacity,
    }
    if override := os.environ.get("LIMNER_SHAPES"):
        model["path"] = override
    config = folder / "node.toml"
    config.write_text(toml(values, [("models", model)]))
    data_dir = plan.data_dir or folder / "data"
    command = [str(BIN / "limner-node"), "run", "--data-dir", str(data_dir)]
    node = Node(folder, [*command, "--config", str(config), "--json-ready"])
    node.start()
    return node


def start_gateway(
    folder: Path,
    *,
    orchestrators: Sequence[str],
    settings: Settings | None = None,
    log_level: str = "info",
    data_dir: Path | None = None,
) -> Gateway:
    """Start a gateway that buys from `orchestrators`, and make a key for it."""
    folder.mkdir(parents=True, exist_ok=True)
    values = {
        "listen": f"127.0.0.1:{free_port()}",
        "admin_listen": f"127.0.0.1:{free_port()}",
        "log.level": log_level,
        "routing.refresh_seconds": 1,
        **(settings or {}),
    }
    config = folder / "gateway.toml"
    tables: list[tuple[str, Settings]] = [("orchestrators", {"uri": uri}) for uri in orchestrators]
    # The built-in model's own bound, so that the gateway refuses what the node would.
    loras = ["limner/night", "limner/outlines"]
    tables.append(("models", {"id": MODEL, "size_multiple": 32, "loras": loras}))
    config.write_text(toml(values, tables))
    data_dir = data_dir or folder / "data"
    command = [str(BIN / "limner-gateway"), "run", "--data-dir", str(data_dir)]
    gateway = Gateway(folder, [*command, "--config", str(config), "--json-ready"])
    gateway.start()
    gateway.key = gateway.create_key("local")
    return gateway


@dataclass(slots=True)
class LocalNetwork:
    """Nodes and the gateway that buys from them."""

    nodes: list[Node]
    gateway: Gateway

    def stop(self) -> None:
        for kept in (self.gateway, *self.nodes):
            kept.program.stop()


class NetworkFactory(Protocol):
    """Starts a network; keyword arguments are keys of `gateway.toml` with `__` for the dot."""

    def __call__(self, *nodes: NodePlan, **settings: str | float | bool) -> LocalNetwork: ...


def open_network(
    folder: Path, plans: Sequence[NodePlan], settings: Mapping[str, str | float | bool]
) -> LocalNetwork:
    """Start the nodes, then the gateway, and wait until it knows all of them with warm models."""
    nodes: list[Node] = []
    try:
        for number, plan in enumerate(plans):
            nodes.append(start_node(folder / f"node-{number}", plan))
        dotted = {key.replace("__", "."): value for key, value in settings.items()}
        uris = [node.url for node in nodes]
        gateway = start_gateway(folder / "gateway", orchestrators=uris, settings=dotted)
        gateway.wait_for_model(orchestrators=len(nodes))
    except ProgramError:
        for node in nodes:
            node.program.stop()
        raise
    return LocalNetwork(nodes, gateway)
