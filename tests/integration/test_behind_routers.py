"""Nodes and their gateway in network namespaces: nobody can call the nodes, and they serve all the same.

    gateway   bridge 100.64.0.1 -- veth -- 100.64.0.2   node, listening on 192.168.77.2
                                -- veth -- 100.64.0.3   node, listening on 192.168.77.2

As behind a home router, the gateway sees an address that answers no call, and has no route to the other.
"""

import asyncio
import ctypes
import errno
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytest

from network.identity import KeySigner, checksum
from network.keystore import create_keystore
from network.units import fee, parse_price, pixels_of
from scripts.local_network.network import (
    BIN,
    MODEL,
    Gateway,
    Node,
    Settings,
    free_port,
    get_json,
    start_gateway,
    toml,
)
from tests.gateway.identity import make_cheap_identity
from tests.integration.asking import LONG, QUICK, ask, images, session, until_stepping
from tests.integration.journals import (
    assert_nothing_is_paid_twice,
    gateway_requests,
    node_jobs,
    wait_for_every_end,
)

pytestmark = pytest.mark.slow

GATEWAY_KEY = KeySigner(b"\x22" * 32)
SECRETS = [b"\x31" * 32, b"\x32" * 32]
PASSPHRASE = "test"
PRICE = "1000000"
HOME = "192.168.77.2"
HOME_PORT = 8936
SUBNET = "100.64.0"
_CLONE_NEWNET = 0x40000000

T = TypeVar("T")


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True, timeout=20)


def enter(namespace: str) -> None:
    """Take this thread, and whatever it starts, into a namespace."""
    handle = os.open(f"/run/netns/{namespace}", os.O_RDONLY)
    try:
        if ctypes.CDLL(None, use_errno=True).setns(handle, _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"cannot enter {namespace}")
    finally:
        os.close(handle)


class Place:
    """A namespace, and a thread that stays in it: programs end with the thread that started them."""

    def __init__(self, name: str) -> None:
        self.name = name
        ip("netns", "add", name)
        self._thread = ThreadPoolExecutor(1, initializer=enter, initargs=(name,))

    def begin(self, job: Callable[[], T]) -> Future[T]:
        return self._thread.submit(job)

    def run(self, job: Callable[[], T]) -> T:
        return self.begin(job).result()

    def remove(self) -> None:
        self._thread.shutdown()
        subprocess.run(
            ["ip", "netns", "del", self.name], check=False, capture_output=True, timeout=20
        )


class Homes:
    """A gateway's place with a bridge, and two households behind it."""

    def __init__(self, name: str, undo: ExitStack) -> None:
        """`undo` removes whatever was made, also where the rest could not be."""
        self.gateway = self._place(f"{name}g", undo)
        inside = ("-n", self.gateway.name)
        ip(*inside, "link", "set", "lo", "up")
        ip(*inside, "link", "add", "bridge", "type", "bridge")
        ip(*inside, "address", "add", f"{SUBNET}.1/24", "dev", "bridge")
        ip(*inside, "link", "set", "bridge", "up")
        self.nodes = [self._place(f"{name}n{number}", undo) for number in range(2)]
        for number, place in enumerate(self.nodes):
            home, cable = place.name, self.cable(number)
            peer = ("peer", "name", "out", "netns", home)
            ip(*inside, "link", "add", cable, "type", "veth", *peer)
            ip(*inside, "link", "set", cable, "master", "bridge", "up")
            ip("-n", home, "link", "set", "lo", "up")
            ip("-n", home, "address", "add", f"{HOME}/32", "dev", "lo")
            ip("-n", home, "address", "add", f"{SUBNET}.{number + 2}/24", "dev", "out")
            ip("-n", home, "link", "set", "out", "up")

    @staticmethod
    def cable(number: int) -> str:
        """The gateway's end of a household's line."""
        return f"cable{number}"

    def pull(self, number: int, state: str) -> None:
        """Take a line down, or up."""
        ip("-n", self.gateway.name, "link", "set", self.cable(number), state)

    @staticmethod
    def _place(name: str, undo: ExitStack) -> Place:
        place = Place(name)
        undo.callback(place.remove)
        return place


@pytest.fixture(scope="module")
def homes() -> Iterator[Homes]:
    if sys.platform != "linux" or os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("network namespaces need Linux, root and iproute2")
    with ExitStack() as undo:
        try:
            made = Homes(f"limner-{os.getpid()}-", undo)
        except (subprocess.CalledProcessError, OSError) as error:
            why = getattr(error, "stderr", "") or error
            pytest.skip(f"this machine makes no network namespaces: {why}")
        yield made


@dataclass
class World:
    homes: Homes
    gateway: Gateway
    nodes: list[Node]

    def links(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = get_json(f"{self.gateway.admin_url}/status")["links"]
        return found

    def run(self, test: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run a test beside the gateway, where its ports are."""
        self.homes.gateway.run(lambda: asyncio.run(test()))


async def make_keystore(data: Path, secret: bytes) -> None:
    await create_keystore(data / "keystore.json", PASSPHRASE, secret, scrypt_n=2)


def start_at_home(folder: Path, url: str, secret: bytes) -> Node:
    """A node that listens where nobody reaches it, and dials `url`."""
    asyncio.run(make_keystore(folder / "data", secret))
    values = {
        "listen": f"https://{HOME}:{HOME_PORT}",
        "allowed_gateways": [checksum(GATEWAY_KEY.address)],
        "keystore.passphrase": PASSPHRASE,
        "queue.max_waiting": 0,
    }
    tables: list[tuple[str, Settings]] = [
        ("models", {"id": MODEL, "price": PRICE, "capacity": 1}),
        ("gateways", {"url": url, "address": checksum(GATEWAY_KEY.address)}),
    ]
    config = folder / "node.toml"
    config.write_text(toml(values, tables))
    command = [str(BIN / "limner-node"), "run", "--data-dir", str(folder / "data")]
    node = Node(folder, [*command, "--config", str(config), "--json-ready"])
    node.start()
    return node


@pytest.fixture(scope="module")
def world(homes: Homes, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("homes")
    asyncio.run(make_cheap_identity(folder / "gateway" / "data"))
    settings: dict[str, Any] = {
        "links.listen": f"{SUBNET}.1:{free_port()}",
        "links.nodes": [checksum(KeySigner(secret).address) for secret in SECRETS],
        "links.silence_seconds": 2,
    }
    url = f"wss://{settings['links.listen']}/link"
    with ExitStack() as running:
        gateway = homes.gateway.run(
            lambda: start_gateway(folder / "gateway", orchestrators=[], settings=settings)
        )
        running.callback(gateway.program.stop)
        starting = [
            place.begin(partial(start_at_home, folder / f"node-{number}", url, SECRETS[number]))
            for number, place in enumerate(homes.nodes)
        ]
        nodes = []
        for one in starting:
            node = one.result()
            running.callback(node.program.stop)
            nodes.append(node)
        homes.gateway.run(lambda: gateway.wait_for_model(orchestrators=2))
        yield World(homes, gateway, nodes)


def call(host: str) -> str:
    """What a call comes to; in a process of its own, as tests call nobody but loopback."""
    code = (
        "import socket, sys\n"
        f"try: socket.create_connection(({host!r}, {HOME_PORT}), timeout=3)\n"
        "except OSError as error: print(type(error).__name__, error.errno)\n"
        "else: print('connected')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=20
    )
    return done.stdout.strip()


def uri_of(number: int) -> str:
    return f"link://0x{KeySigner(SECRETS[number]).address.hex()}"


def test_nobody_can_call_them_and_both_serve(world: World) -> None:
    world.run(partial(both_serve, world))


async def both_serve(world: World) -> None:
    assert call(HOME) == f"OSError {errno.ENETUNREACH}"
    for host in (f"{SUBNET}.2", f"{SUBNET}.3"):
        assert call(host) == f"ConnectionRefusedError {errno.ECONNREFUSED}"
    async with session() as http:
        answers = await asyncio.gather(*(ask(http, world.gateway) for _ in range(8)))
        assert {answer.status for answer in answers} == {200}
        for answer in answers:
            ((_, png),) = await images(http, answer)
            assert png.startswith(b"\x89PNG")
    used = {a.orchestrator for r in gateway_requests(world.gateway) for a in r.attempts}
    assert used == {uri_of(0), uri_of(1)}
    assert all(link["linked"] for link in world.links())


def test_a_cable_pulled_in_mid_job_costs_the_client_nothing_but_time(world: World) -> None:
    world.run(partial(a_cable_is_pulled, world))


async def a_cable_is_pulled(world: World) -> None:
    # Long enough to be at it still when the silence on the line is noticed.
    wish = {**LONG, "num_inference_steps": 60, "seed": 99}
    request_id = uuid.uuid4().hex
    before = [len(node_jobs(node)) for node in world.nodes]
    async with session() as http:
        async with asyncio.TaskGroup() as group:
            asking = group.create_task(ask(http, world.gateway, wish, request_id=request_id))
            await until_stepping(http, world.gateway, request_id)
            now = [len(node_jobs(node)) for node in world.nodes]
            victim = 0 if now[0] > before[0] else 1
            world.homes.pull(victim, "down")
        ((seed, png),) = await images(http, asking.result())
        assert seed == 99
        assert png.startswith(b"\x89PNG")
        request = gateway_requests(world.gateway)[-1]
        assert [(a.orchestrator, a.state) for a in request.attempts] == [
            (uri_of(victim), "failed"),
            (uri_of(1 - victim), "succeeded"),
        ]
        assert request.fee == fee(pixels_of(1024, 1024, 1), parse_price(PRICE))
        # The cable is mended, and the node comes back by itself.
        world.homes.pull(victim, "up")
        await asyncio.to_thread(world.gateway.wait_for_model, orchestrators=2)
        assert (await ask(http, world.gateway, QUICK)).status == 200
    network: Any = world
    await asyncio.to_thread(wait_for_every_end, network)
    lost = node_jobs(world.nodes[victim])[now[victim] - 1]
    assert (lost.state, lost.charged) == ("cancelled", 0)
    requests = gateway_requests(world.gateway)
    assert_nothing_is_paid_twice(requests)
    for number, node in enumerate(world.nodes):
        bought = sum(
            a.fee for r in requests for a in r.attempts if a.orchestrator == uri_of(number)
        )
        assert bought == sum(job.charged for job in node_jobs(node))
