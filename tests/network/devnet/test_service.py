"""A devnet while it runs: its chain's process, its port, and what a later start may change."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from web3 import AsyncHTTPProvider, AsyncWeb3
from web3.types import RPCEndpoint

from network.devnet.anvil import AnvilError, AnvilOptions, free_port, running_anvil
from network.devnet.deployment import Rules
from network.devnet.home import Home
from network.devnet.service import Devnet, Options, open_devnet
from network.errors import ConfigError
from network.runtime.clock import SystemClock

pytestmark = pytest.mark.usefixtures("anvil_program")
URI = "https://127.0.0.1:8936"


def home_in(folder: Path) -> Home:
    folder.mkdir(exist_ok=True)
    return Home(folder)


def files_in(folder: Path) -> list[Path]:
    return list(folder.iterdir())


@asynccontextmanager
async def running(folder: Path, *, rounds: int = 40, uri: str = URI) -> AsyncIterator[Devnet]:
    options = Options(free_port(), Rules(round_length=rounds), uri)
    async with open_devnet(home_in(folder), options, SystemClock()) as devnet:
        yield devnet


async def test_a_devnet_whose_chain_ended_says_so(tmp_path: Path) -> None:
    async with running(tmp_path) as devnet:
        await devnet.check()
        assert devnet.anvil is not None
        os.kill(devnet.anvil.pid, signal.SIGKILL)
        await asyncio.to_thread(devnet.anvil.stop)
        with pytest.raises(AnvilError, match="ended by itself"):
            await devnet.check()


async def test_keys_are_not_in_the_list_of_processes(tmp_path: Path) -> None:
    async with running(tmp_path) as devnet:
        assert devnet.anvil is not None
        command = await asyncio.to_thread(Path(f"/proc/{devnet.anvil.pid}/cmdline").read_text)
    home = Home(tmp_path)
    words = await asyncio.to_thread(home.mnemonic)
    owner = await asyncio.to_thread(home.owner)
    assert owner.address == devnet.contracts.owner.address
    assert "--port" in command
    assert words not in command.replace("\0", " ")
    for account in (owner, devnet.node, devnet.gateway):
        assert account.key.hex() not in command


async def test_a_chain_leaves_nothing_in_the_users_home(
    anvil_program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Left alone, anvil writes the states of all but the last 500 blocks there for good."""
    home = home_in(tmp_path / "home").folder
    monkeypatch.setenv("HOME", str(home))
    running = running_anvil(anvil_program, AnvilOptions(free_port(), 1), tmp_path / "log")
    anvil = await asyncio.to_thread(running.__enter__)
    try:
        web3 = AsyncWeb3(AsyncHTTPProvider(anvil.url))
        for _ in range(6):  # many at once take much longer
            await web3.provider.make_request(RPCEndpoint("anvil_mine"), [hex(100)])
        assert await web3.eth.block_number == 600
        await web3.provider.disconnect()
        assert files_in(home) == []
    finally:
        await asyncio.to_thread(running.__exit__, None, None, None)


async def test_a_port_that_another_program_has_is_named(tmp_path: Path) -> None:
    """Its chain would pass for ours."""
    async with running(tmp_path / "one") as first:
        port = int(first.url.rpartition(":")[2])
        other = home_in(tmp_path / "other")
        with pytest.raises(ConfigError, match="--port"):
            async with open_devnet(other, Options(port), SystemClock()):
                pass
        assert not other.network_file.exists()


async def test_a_later_start_changes_round_length_and_service_uri(tmp_path: Path) -> None:
    async with running(tmp_path) as devnet:
        controller = devnet.contracts.controller
    async with running(tmp_path, rounds=25, uri="https://127.0.0.1:9999") as devnet:
        assert devnet.contracts.controller == controller
        rounds = devnet.contracts.contract("RoundsManager").functions
        assert await rounds.roundLength().call() == 25
        assert await rounds.currentRoundInitialized().call()
        for name in ("ServiceRegistry", "AIServiceRegistry"):
            registry = devnet.contracts.contract(name).functions
            uri = await registry.getServiceURI(devnet.node.address).call()
            assert uri == "https://127.0.0.1:9999"


async def test_a_program_that_is_not_there_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANVIL", str(tmp_path / "missing"))
    with pytest.raises(AnvilError, match=r"missing.*--no-anvil"):
        async with running(tmp_path):
            pass
