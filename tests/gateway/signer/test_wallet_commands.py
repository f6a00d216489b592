"""`limner-gateway wallet|fund|unlock|withdraw` on a real chain with the contracts' own rules."""

import asyncio
import json
import os
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from network.devnet.deployment import ETHER
from scripts.local_network.network import BIN
from tests.devnet import Devnet
from tests.gateway.signer.operator import Operator, operator_on

_YES, _NO = True, False
FUND = ("fund", "--deposit", "0.5 eth", "--reserve", "0.25 eth")


@pytest.fixture
async def operator(devnet: Devnet, tmp_path: Path) -> Operator:
    return await operator_on(devnet, tmp_path, await devnet.account(ether=2))


async def succeed(operator: Operator, *command: str) -> str:
    said = await operator.run(*command, "--yes")
    assert said.status == 0, said.err
    assert "Done in block" in said.out
    return said.err


async def refused(operator: Operator, *command: str, status: int = 1) -> str:
    said = await operator.run(*command, "--yes")
    assert said.status == status, said.out
    assert "Traceback" not in said.err
    return said.err


async def test_money_goes_in_and_after_its_rounds_comes_out(
    devnet: Devnet, operator: Operator
) -> None:
    shown = await succeed(operator, *FUND)
    assert "0.75 ETH" in shown
    assert operator.account.address in shown
    assert devnet.contracts.addresses["TicketBroker"] in shown
    assert f"chain {await devnet.web3.eth.chain_id}" in shown
    told = await operator.wallet()
    assert told["deposit"] == str(ETHER // 2)
    assert told["reserve"] == str(ETHER // 4)
    assert told["state"].startswith("locked")
    spent = 2 * ETHER - ETHER * 3 // 4 - int(told["ether"])
    assert 0 < spent < ETHER // 100, "only gas"

    noted = json.loads((await operator.run("audit", "--json")).out)
    assert [one["action"] for one in noted] == ["transaction begun", "transaction done"]
    assert noted[0]["sends_wei"] == str(ETHER * 3 // 4)
    assert noted[1]["transaction"].startswith("0x")

    assert "no unlock request in progress" in await refused(operator, "withdraw")
    await succeed(operator, "unlock")
    told = await operator.wallet()
    first = told["withdraw_round"]
    assert first == told["round"] + 2
    assert "unlock already initiated" in await refused(operator, "unlock")
    assert f"account is locked until round {first}" in await refused(operator, "withdraw")
    await devnet.next_round(2)
    await succeed(operator, "withdraw")
    told = await operator.wallet()
    assert (told["deposit"], told["reserve"]) == ("0", "0")
    assert int(told["ether"]) > 2 * ETHER - ETHER // 100
    for command in ("withdraw", "unlock"):
        said = await refused(operator, command)
        assert "sender deposit and reserve are zero" in said


async def test_funding_oneself_ends_an_unlock_and_its_refund_trap(
    devnet: Devnet, operator: Operator
) -> None:
    """Case 12: after a withdrawal only the account's own money makes its tickets good again."""
    await succeed(operator, *FUND)
    await succeed(operator, "unlock")
    await succeed(operator, "unlock", "--cancel")
    assert (await operator.wallet())["withdraw_round"] == 0
    assert "no unlock request in progress" in await refused(operator, "unlock", "--cancel")
    await succeed(operator, "unlock")
    await devnet.next_round(2)
    await succeed(operator, "withdraw")
    broker = devnet.contracts.contract("TicketBroker").functions
    third = broker.fundDepositAndReserveFor(operator.account.address, ETHER, ETHER)
    await devnet.contracts.send(devnet.contracts.owner, third, 2 * ETHER)
    assert (await operator.wallet())["state"].startswith("unlocked since round")
    shown = await succeed(operator, "fund", "--deposit", "1")
    assert "unlock under way is cancelled" in shown
    assert (await operator.wallet())["state"].startswith("locked")


async def test_nothing_is_sent_that_was_not_confirmed(operator: Operator) -> None:
    said = await operator.run(*FUND, answer="n\n")
    assert said.status == 1
    assert "nothing was sent" in said.err
    assert "0.75 ETH" in said.err
    assert (await operator.wallet())["deposit"] == "0"
    said = await operator.run(*FUND, answer="y\n")
    assert said.status == 0, said.err
    assert (await operator.wallet())["deposit"] == str(ETHER // 2)


async def test_a_command_that_was_killed_after_sending_is_not_done_twice(
    devnet: Devnet, operator: Operator
) -> None:
    """Case 17: repeated before it is mined, the command waits for the transaction that was sent."""
    await devnet.rpc("evm_setAutomine", _NO)
    try:
        command = [str(BIN / "limner-gateway"), *FUND, "--yes", *operator.options]
        process = await asyncio.create_subprocess_exec(
            *command, env={**os.environ, **operator.environment}, stderr=subprocess.DEVNULL
        )
        assert await until(lambda: pending(devnet), 1)
        process.kill()
        await process.wait()
        repeated = asyncio.ensure_future(operator.run(*FUND, "--yes"))
        await asyncio.sleep(1)
        assert await pending(devnet) == 1
    finally:
        await devnet.rpc("evm_setAutomine", _YES)
    await devnet.mine()
    said = await repeated
    assert said.status == 0, said.err
    assert (await operator.wallet())["deposit"] == str(ETHER // 2)
    shown = await succeed(operator, *FUND)
    assert "Paid in:   deposit 0.5 ETH" in shown
    assert (await operator.wallet())["deposit"] == str(ETHER)


async def pending(devnet: Devnet) -> int:
    return int((await devnet.rpc("txpool_status"))["pending"], 16)


async def until(count: Callable[[], Awaitable[int]], wanted: int) -> bool:
    for _ in range(600):
        if await count() == wanted:
            return True
        await asyncio.sleep(0.05)
    return False


async def test_an_account_that_cannot_pay_is_told_by_how_much(operator: Operator) -> None:
    said = await refused(operator, "fund", "--deposit", "3 eth")
    assert "not enough ether: 3 ETH are to be sent, the account has 2 ETH" in said
    assert "gas may cost" in await refused(operator, "fund", "--deposit", "2 eth")
    assert "nothing to fund" in await refused(operator, "fund")
    assert "no amount" in await refused(operator, "fund", "--deposit", "much", status=2)


async def test_a_paused_broker_is_named(devnet: Devnet, operator: Operator) -> None:
    """Case 30."""
    controller = devnet.contracts.contract("Controller").functions
    await devnet.contracts.send(devnet.contracts.owner, controller.pause())
    assert "system is paused" in await refused(operator, *FUND)
    assert (await operator.wallet())["paused"] is True


async def test_a_wrong_chain_is_refused_before_anything_else(
    devnet: Devnet, tmp_path: Path
) -> None:
    operator = await operator_on(devnet, tmp_path, await devnet.account(), chain_id=42161)
    for command in (("wallet",), (*FUND, "--yes"), ("signer",)):
        said = await operator.run(*command)
        assert said.status == 1
        assert "serves chain 412346, but chain 42161 is configured" in said.err


async def test_without_a_chain_there_is_no_wallet(devnet: Devnet, tmp_path: Path) -> None:
    operator = await operator_on(devnet, tmp_path, await devnet.account())
    for command in ("wallet", "signer"):
        said = await operator.run(command, LIMNER_GATEWAY__CHAIN__NETWORK="offchain")
        assert said.status == 2
        assert "chain.network: this gateway is off-chain" in said.err
