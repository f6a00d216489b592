"""A whole node redeems what it won, says so to its operator, and calls its rewards."""

import asyncio
import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from eth_account.signers.local import LocalAccount

from network.devnet.deployment import ETHER, account_of
from network.runtime.database import open_database
from network.units import Wei
from node.__main__ import main
from node.accounting.journal import MIGRATIONS
from node.accounting.tables import winning_tickets
from node.config.settings import NodeSettings, database_url
from node.payments.rewards import RewardCaller
from node.payments.till import _row
from tests.devnet import CHAIN_ID, Devnet
from tests.node.nodes import Buyer, running_node, settings_for
from tests.node.payments.redeeming import Bench, bench_on

FACE = ETHER // 10


async def _node_account(devnet: Devnet) -> LocalAccount:
    account = account_of(b"\x11" * 32)
    await devnet.rpc("anvil_setBalance", account.address, hex(100 * ETHER))
    await devnet.contracts.register_orchestrator(account, Wei(ETHER), "https://127.0.0.1:1")
    await devnet.next_round()
    return account


async def _has_won(bench: Bench, settings: NodeSettings) -> None:
    """The books of a node that was stopped before it could redeem."""
    winner = await bench.win(await bench.sender())
    await bench.devnet.mine()
    async with open_database(database_url(settings), MIGRATIONS) as database:
        await database.append([(winning_tickets, _row(winner, "attempt", 0.0))])


async def test_case_20_a_node_redeems_at_its_start_and_tells_its_operator(
    devnet: Devnet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    account = await _node_account(devnet)
    bench = Bench(devnet, tmp_path / "bench", account)
    network = tmp_path / "network.json"
    save = devnet.contracts.save
    await asyncio.to_thread(save, network, CHAIN_ID, devnet.chain.url, "anvil")
    chain = {"network": str(network), "poll_seconds": 0.1}
    settings = await settings_for(tmp_path, chain=chain)
    await bench.start()
    await _has_won(bench, settings)
    await bench.stop()
    async with running_node(tmp_path, chain=chain) as node, Buyer(node) as buyer:
        async with asyncio.timeout(30):
            while True:
                async with buyer.http.get(f"{node.admin_url}/status") as answer:
                    tickets = (await answer.json())["tickets"]
                if tickets["total"]["redeemed"] == str(FACE):
                    break
                await devnet.mine()
                await asyncio.sleep(0.1)
        assert tickets["total"]["pending"] == "0"
        async with buyer.http.get(f"{node.admin_url}/metrics") as answer:
            metrics = await answer.text()
    assert f'limner_node_tickets_wei{{state="redeemed"}} {float(FACE)}' in metrics
    assert "limner_node_tickets_late 0.0" in metrics
    await _read_by_command(settings.data_dir)


async def _read_by_command(data_dir: Path) -> None:
    words = ["redemptions", "--json", "--data-dir", str(data_dir)]
    for by in ("sender", "ticket"):
        result = await asyncio.to_thread(CliRunner().invoke, main, [*words, "--by", by])
        assert result.exit_code == 0, result.output
        found = json.loads(result.stdout)
        assert found["total"]["redeemed"] == str(FACE)
        assert len(found["lines"]) == 1
    shown = await asyncio.to_thread(CliRunner().invoke, main, [*words[:1], *words[2:]])
    assert "0.1 ETH" in shown.output


async def test_rewards_are_called_once_a_round_where_gas_is_cheap(
    devnet: Devnet, tmp_path: Path
) -> None:
    async with bench_on(devnet, tmp_path) as bench:
        caller = RewardCaller(bench.chain, bench.watch, bench.transactions, Wei(10**10))
        await bench.mine()
        assert await caller.step()
        round_ = await devnet.contracts.current_round()
        assert await bench.chain.last_reward_round(bench.recipient) == round_
        assert not await caller.step()
        await devnet.next_round()
        thrifty = RewardCaller(bench.chain, bench.watch, bench.transactions, Wei(0))
        await bench.mine()
        assert not await thrifty.step(), "gas costs more than it is worth"
        assert await caller.step()
