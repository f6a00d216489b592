"""`limner-devnet run`, as a newcomer starts it: with anvil and without."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from click.testing import CliRunner
from web3 import AsyncHTTPProvider, AsyncWeb3

from network.chain.contracts import open_chain
from network.chain.profiles import Profile, profile_of
from network.devnet.__main__ import main
from network.devnet.anvil import free_port
from network.devnet.deployment import ETHER, account_of, find_deployment
from network.devnet.home import Home
from network.identity import KeySigner, parse_address
from network.payments.signing import TicketSeries
from network.payments.tickets import CERTAIN, TicketParams, rand_hash, ticket_of
from network.runtime.clock import SystemClock
from network.units import Wei
from scripts.local_network.processes import Program

COMMAND = str(Path(sys.executable).parent / "limner-devnet")


def _stop(program: Program) -> None:
    assert program.stop() == 0


@contextmanager
def running(
    folder: Path, *options: str, how: Callable[[Program], None] = _stop
) -> Iterator[Program]:
    """A devnet that ends as `how` ends it; it has to end well unless it is killed."""
    command = [COMMAND, "run", "--data-dir", str(folder), "--port", str(free_port())]
    command += ["--round-length", "40", "--json-ready", *options]
    program = Program.start(command, log=folder.parent / "log", seconds=60)
    try:
        yield program
    finally:
        how(program)


async def profile(folder: Path) -> Profile:
    found = await asyncio.to_thread(profile_of, str(folder / "network.json"))
    assert found is not None
    return found


async def rpc(url: str, method: str, *parameters: Any) -> Any:
    web3 = AsyncWeb3(AsyncHTTPProvider(url))
    try:
        answer = await web3.provider.make_request(method, list(parameters))
    finally:
        await web3.provider.disconnect()
    assert "error" not in answer, answer
    return answer["result"]


async def block_hash(url: str, number: str) -> str:
    with_transactions = False
    block = await rpc(url, "eth_getBlockByNumber", number, with_transactions)
    return str(block["hash"])


@pytest.mark.slow
@pytest.mark.usefixtures("anvil_program")
@pytest.mark.parametrize("engine", ["anvil", "py-evm"])
async def test_a_node_and_a_gateway_can_pay_each_other_at_once(
    tmp_path: Path, engine: str
) -> None:
    folder = tmp_path / "devnet"
    options = () if engine == "anvil" else ("--no-anvil",)
    with running(folder, *options) as program:
        assert json.loads((folder / "network.json").read_text())["engine"] == engine
        url, clock = program.ready.url, SystemClock()
        home = Home(folder)
        node, gateway = await home.account("node"), await home.account("gateway")
        async with open_chain(await profile(folder), (url,), clock) as chain:
            head = await chain.head()
            recipient, sender = parse_address(node.address), parse_address(gateway.address)
            assert await chain.is_active(recipient)
            info = await chain.sender_info(sender)
            assert (info.deposit, info.reserve_remaining) == (10 * ETHER, 10 * ETHER)
            assert await chain.service_uri(recipient) == "https://127.0.0.1:8936"
            assert head.is_round_initialized
            params = TicketParams(
                recipient, Wei(1234), CERTAIN, rand_hash(9), b"", 1, head.creation
            )
            signer = KeySigner(bytes(gateway.key))
            signature = TicketSeries(params, sender).sign(signer, 1)
            await _redeem(url, folder, ticket_of(params, sender, 1), signature, bytes(node.key))
            assert await chain.is_used(ticket_of(params, sender, 1).hash)
            assert (await chain.sender_info(sender)).deposit == 10 * ETHER - 1234
        await rpc(url, "anvil_mine", hex(50))
        for _ in range(100):
            async with open_chain(await profile(folder), (url,), clock) as chain:
                later = await chain.head()
            if later.current_round > head.current_round and later.is_round_initialized:
                break
            await asyncio.sleep(0.1)
        else:
            pytest.fail("nobody initialises rounds")
    for role in ("node", "gateway"):
        assert str(folder / "network.json") in (folder / f"{role}.toml").read_text()


@pytest.mark.slow
@pytest.mark.usefixtures("anvil_program")
async def test_anvils_chain_is_still_there_after_a_restart(tmp_path: Path) -> None:
    folder = tmp_path / "devnet"
    with running(folder) as program:
        newest = await rpc(program.ready.url, "eth_blockNumber")
        before = await block_hash(program.ready.url, newest)
    with running(folder, how=Program.kill) as program:
        assert await block_hash(program.ready.url, newest) == before
    await _wait_until_nobody_answers(program.ready.url)
    with running(folder, how=_interrupt) as program:
        assert await block_hash(program.ready.url, newest) == before
        gateway = await Home(folder).account("gateway")
        async with open_chain(await profile(folder), (program.ready.url,), SystemClock()) as chain:
            info = await chain.sender_info(parse_address(gateway.address))
        assert (info.deposit, info.reserve_remaining) == (10 * ETHER, 10 * ETHER)


def _interrupt(program: Program) -> None:
    """As Ctrl-C does."""
    os.kill(program.pid, signal.SIGINT)
    assert program.stop() == 0


async def _wait_until_nobody_answers(url: str) -> None:
    """The chain ends with a command that was killed; it may write its state before."""
    where = urlsplit(url)
    for _ in range(300):
        try:
            _, writer = await asyncio.open_connection(where.hostname, where.port)
        except OSError:
            return
        writer.close()
        await asyncio.sleep(0.1)
    pytest.fail("the chain outlived the command that started it")


def test_a_second_devnet_on_the_same_folder_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "devnet"
    with running(folder, "--no-anvil"):
        result = CliRunner().invoke(main, ["run", "--data-dir", str(folder)])
    assert result.exit_code == 1
    assert "another limner-devnet runs on" in result.output


def test_a_folder_that_is_something_else_is_not_removed(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    result = CliRunner().invoke(main, ["run", "--data-dir", str(tmp_path), "--reset"])
    assert result.exit_code == 1
    assert "is no devnet's; name an empty folder" in result.output
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_case_28_each_devnet_has_keys_of_its_own(tmp_path: Path) -> None:
    homes = [Home(tmp_path / name) for name in ("one", "other")]
    for home in homes:
        home.folder.mkdir()
    one, other = (home.mnemonic() for home in homes)
    assert one != other
    assert homes[0].mnemonic() == one
    assert homes[0].owner().address != homes[1].owner().address


async def _redeem(url: str, folder: Path, ticket: Any, signature: bytes, key: bytes) -> None:
    web3 = AsyncWeb3(AsyncHTTPProvider(url))
    try:
        controller = json.loads((folder / "network.json").read_text())["controller"]
        contracts = await find_deployment(web3, account_of(key), controller)
        assert contracts is not None
        fields = (
            web3.to_checksum_address(ticket.recipient),
            web3.to_checksum_address(ticket.sender),
            ticket.face_value,
            ticket.win_prob,
            ticket.sender_nonce,
            ticket.recipient_rand_hash,
            ticket.creation.aux_data,
        )
        call = contracts.contract("TicketBroker").functions.redeemWinningTicket(
            fields, signature, 9
        )
        await contracts.send(account_of(key), call)
    finally:
        await web3.provider.disconnect()
