"""Real nodes that dial a real gateway, on loopback sockets, with a line between them that can be cut."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from gateway.orchestrators.connecting import link_uri
from network.identity import KeySigner, checksum
from network.keystore import create_keystore
from node.app import RunningNode
from tests.gateway.test_app import Stage, serving
from tests.gateway.test_app import settings_for as gateway_settings
from tests.gateway.waiting import until_async
from tests.node.fakes import MODEL, FakeEngine
from tests.node.nodes import PASSPHRASE, running_node

#: The key of `make_cheap_identity`.
GATEWAY_KEY = KeySigner(b"\x22" * 32)
NODE_KEYS = [KeySigner(bytes([0x11]) * 32), KeySigner(bytes([0x33]) * 32)]
URIS = [link_uri(key.address) for key in NODE_KEYS]


def taking_links(folder: Path, **others: Any) -> Any:
    """Settings of a gateway that both nodes may dial; nobody else is known to it."""
    links = {
        "listen": "127.0.0.1:0",
        "nodes": [checksum(key.address) for key in NODE_KEYS],
        "silence_seconds": 1,
    }
    return gateway_settings(folder, **{"links": links, "default_model": MODEL, **others})


@asynccontextmanager
async def linked_node(
    folder: Path, url: str, engine: FakeEngine, *, number: int = 0, **overrides: Any
) -> AsyncIterator[RunningNode]:
    """A node that dials `url`."""
    data = folder / "data"
    if not data.exists():
        key = bytes([0x11, 0x33][number : number + 1]) * 32
        (folder / "model").mkdir(parents=True)
        (folder / "model" / "model_index.json").write_text("{}")
        await create_keystore(data / "keystore.json", PASSPHRASE, key, scrypt_n=2)
    gateways = [{"url": url, "address": checksum(GATEWAY_KEY.address)}]
    async with running_node(folder, engine, **{"gateways": gateways, **overrides}) as node:
        yield node


async def state_of(stage: Stage, number: int = 0) -> dict[str, Any]:
    """What the gateway says of a node."""
    found = [o for o in (await stage.status())["orchestrators"] if o["uri"] == URIS[number]]
    state: dict[str, Any] = found[0]
    return state


async def until_offered(stage: Stage, number: int = 0, *, free: int | None = None) -> None:
    """Return once the gateway knows what a node offers, and so many places if they are named."""

    async def offered() -> bool:
        state = await state_of(stage, number)
        models = state["models"]
        return state["state"] == "ready" and bool(models) and free in {None, models[0]["free"]}

    await until_async(offered)


async def link_of(stage: Stage, number: int = 0) -> dict[str, Any]:
    """What the gateway says of a node's link."""
    found = [one for one in (await stage.status())["links"] if one["uri"] == URIS[number]]
    link: dict[str, Any] = found[0]
    return link


async def until_linked_anew(stage: Stage, former: dict[str, Any], number: int = 0) -> None:
    """Return once the node has another link than it `former`ly had, and is known again."""

    async def linked_anew() -> bool:
        link = await link_of(stage, number)
        return bool(link["linked"]) and link["since"] != former["since"]

    await until_async(linked_anew)
    await until_offered(stage, number)


@dataclass
class Line:
    """A TCP line between a node and a gateway."""

    port: int
    host: str
    target: int
    writers: set[asyncio.StreamWriter] = field(default_factory=set)
    made: int = 0
    is_frozen: bool = False
    is_down: bool = False

    @property
    def url(self) -> str:
        return f"wss://{self.host}:{self.port}/link"

    def cut(self) -> None:
        """As a router that was switched off and says so: both ends hear it."""
        for writer in self.writers:
            writer.transport.abort()

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.made += 1
        if self.is_down:
            writer.transport.abort()
            return
        there, back = await asyncio.open_connection(self.host, self.target)
        self.writers |= {writer, back}
        try:
            await asyncio.gather(self._pump(reader, back), self._pump(there, writer))
        except OSError:
            pass
        finally:
            writer.transport.abort()
            back.transport.abort()
            self.writers -= {writer, back}

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(16 * 1024):
            while self.is_frozen:  # noqa: ASYNC110  a dead line has no event
                await asyncio.sleep(0.01)
            writer.write(data)
            await writer.drain()
        writer.transport.abort()


@asynccontextmanager
async def line_to(url: str) -> AsyncIterator[Line]:
    """A line that leads to the gateway at `url`."""
    parts = urlsplit(url)
    line = Line(0, parts.hostname or "", parts.port or 0)
    server = await asyncio.start_server(line.carry, "127.0.0.1", 0, limit=16 * 1024)
    line.port = server.sockets[0].getsockname()[1]
    try:
        yield line
    finally:
        line.is_frozen = False
        line.cut()
        server.close()
        await server.wait_closed()


@dataclass
class World:
    """A gateway, and nodes with their lines."""

    stage: Stage
    lines: list[Line]
    nodes: list[RunningNode]
    engines: list[FakeEngine]


@asynccontextmanager
async def world(
    folder: Path,
    count: int = 1,
    engine: Callable[[], FakeEngine] = FakeEngine,
    gateway: dict[str, Any] | None = None,
    **overrides: Any,
) -> AsyncIterator[World]:
    """`count` nodes that are linked and known to the gateway."""
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        stage = await enter(serving(taking_links(folder / "gateway", **(gateway or {}))))
        made = World(stage, [], [], [])
        for number in range(count):
            line = await enter(line_to(stage.gateway.link_url))
            one = engine()
            place = folder / f"node-{number}"
            node = await enter(linked_node(place, line.url, one, number=number, **overrides))
            made.lines.append(line)
            made.engines.append(one)
            made.nodes.append(node)
        for number in range(count):
            await until_offered(stage, number)
        yield made
