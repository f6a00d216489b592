"""Deposits and reserves: how they grow, are locked and left, and what a reserve gives to whom."""

from typing import Any

import pytest

from network.devnet.deployment import ETHER
from network.units import Wei
from tests.network.devnet.redeeming import Bench, refusal

SPLIT = "msg.value does not equal sum of deposit amount and reserve amount"


async def test_a_payment_is_split_as_told_and_nothing_else(bench: Bench) -> None:
    broker, sender = bench.broker.functions, bench.sender
    for call in (
        broker.fundDepositAndReserve(2, 3),
        broker.fundDepositAndReserveFor(sender.address, 2, 3),
    ):
        assert await refusal(call, sender, value=6) == SPLIT
        assert await refusal(call, sender, value=5) == ""


async def test_funding_tells_of_deposit_and_reserve_even_of_nothing(bench: Bench) -> None:
    send, address = bench.devnet.contracts.send, bench.sender.address
    receipt = await send(bench.sender, bench.broker.functions.fundDepositAndReserve(0, 7), 7)
    assert bench.told("TicketBroker", "DepositFunded", receipt) == [
        {"sender": address, "amount": 0}
    ]
    assert bench.told("TicketBroker", "ReserveFunded", receipt) == [
        {"reserveHolder": address, "amount": 7}
    ]
    assert await bench.funds() == (ETHER, 0, ETHER + 7, 0)


async def test_the_minter_holds_the_ether(bench: Bench) -> None:
    minter = bench.devnet.contracts.addresses["Minter"]
    assert await bench.devnet.web3.eth.get_balance(
        bench.devnet.web3.to_checksum_address(minter)
    ) == (2 * ETHER)


async def test_who_has_nothing_cannot_unlock_and_nobody_can_twice(bench: Bench) -> None:
    broker = bench.broker.functions
    stranger = await bench.devnet.account()
    assert await refusal(broker.unlock(), stranger) == "sender deposit and reserve are zero"
    assert await refusal(broker.cancelUnlock(), bench.sender) == "no unlock request in progress"
    assert await refusal(broker.withdraw(), stranger) == "sender deposit and reserve are zero"
    assert await refusal(broker.withdraw(), bench.sender) == "no unlock request in progress"
    receipt = await bench.devnet.contracts.send(bench.sender, broker.unlock())
    now = await bench.devnet.contracts.current_round()
    assert bench.told("TicketBroker", "Unlock", receipt) == [
        {"sender": bench.sender.address, "startRound": now, "endRound": now + 2}
    ]
    assert await broker.isUnlockInProgress(bench.sender.address).call()
    assert await refusal(broker.unlock(), bench.sender) == "unlock already initiated"
    assert await refusal(broker.withdraw(), bench.sender) == "account is locked"
    await bench.devnet.next_round()
    assert await refusal(broker.withdraw(), bench.sender) == "account is locked"
    await bench.devnet.next_round()
    assert await refusal(broker.withdraw(), bench.sender) == ""


async def test_an_unlock_is_cancelled_by_oneself_or_by_ones_own_money(bench: Bench) -> None:
    send, broker = bench.devnet.contracts.send, bench.broker.functions
    ways: list[tuple[Any, int]] = [
        (broker.cancelUnlock(), 0),
        (broker.fundDeposit(), 1),
        (broker.fundReserve(), 1),
        (broker.fundDepositAndReserve(1, 1), 2),
    ]
    for call, value in ways:
        await send(bench.sender, broker.unlock())
        receipt = await send(bench.sender, call, value)
        assert bench.told("TicketBroker", "UnlockCancelled", receipt) == [
            {"sender": bench.sender.address}
        ]
        assert not await broker.isUnlockInProgress(bench.sender.address).call()


async def test_case_12_a_strangers_money_cancels_no_unlock(bench: Bench) -> None:
    send, broker = bench.devnet.contracts.send, bench.broker.functions
    await send(bench.sender, broker.unlock())
    withdraw_round = (await bench.funds())[1]
    gift = broker.fundDepositAndReserveFor(bench.sender.address, 1, 1)
    receipt = await send(await bench.devnet.account(), gift, 2)
    assert bench.told("TicketBroker", "UnlockCancelled", receipt) == []
    assert await bench.funds() == (ETHER + 1, withdraw_round, ETHER + 1, 0)


async def test_a_withdrawal_pays_all_of_it_out(bench: Bench) -> None:
    send, broker, eth = bench.devnet.contracts.send, bench.broker.functions, bench.devnet.web3.eth
    await send(bench.sender, broker.unlock())
    await bench.devnet.next_round(2)
    before = await eth.get_balance(bench.sender.address)
    receipt = await send(bench.sender, broker.withdraw())
    assert bench.told("TicketBroker", "Withdrawal", receipt) == [
        {"sender": bench.sender.address, "deposit": ETHER, "reserve": ETHER}
    ]
    gas = receipt["gasUsed"] * receipt["effectiveGasPrice"]
    assert await eth.get_balance(bench.sender.address) == before - gas + 2 * ETHER
    assert await refusal(broker.withdraw(), bench.sender) == "sender deposit and reserve are zero"


async def test_nobody_funds_or_leaves_a_paused_broker(bench: Bench) -> None:
    """Case 30: what is paused waits."""
    broker, contracts = bench.broker.functions, bench.devnet.contracts
    await contracts.send(contracts.owner, contracts.contract("Controller").functions.pause())
    calls: list[Any] = [
        broker.fundDeposit(),
        broker.fundReserve(),
        broker.fundDepositAndReserve(0, 0),
        broker.fundDepositAndReserveFor(bench.sender.address, 0, 0),
        broker.unlock(),
        broker.cancelUnlock(),
        broker.withdraw(),
        broker.batchRedeemWinningTickets([], [], []),
    ]
    for call in calls:
        assert await refusal(call, bench.sender) == "system is paused", call.fn_name


async def test_what_was_claimed_counts_until_the_round_is_over(bench: Bench) -> None:
    """A share is of what is left and of what was claimed in this round, less one's own claims."""
    other = await bench.devnet.orchestrator()
    await bench.devnet.next_round()
    claimable = bench.broker.functions.claimableReserve
    receipt = await bench.redeem(await bench.winner(face_value=ETHER + ETHER // 4))
    assert bench.told("TicketBroker", "ReserveClaimed", receipt) == [
        {
            "reserveHolder": bench.sender.address,
            "claimant": bench.orchestrator.address,
            "amount": ETHER // 4,
        }
    ]
    address = bench.sender.address
    assert await claimable(address, bench.orchestrator.address).call() == ETHER // 4
    assert await claimable(address, other.address).call() == ETHER // 2
    info = await bench.broker.functions.getReserveInfo(address).call()
    assert tuple(info) == (3 * ETHER // 4, ETHER // 4)
    await bench.devnet.next_round()
    for one in (bench.orchestrator, other):
        assert await claimable(address, one.address).call() == 3 * ETHER // 8
    assert await bench.funds() == (0, 0, 3 * ETHER // 4, 0)


async def test_a_pool_that_grew_after_a_claim_refuses_until_the_next_round(
    bench: Bench,
) -> None:
    """The share is smaller than what was claimed of it: the difference is below zero."""
    await bench.redeem(await bench.winner(face_value=2 * ETHER))
    await bench.devnet.orchestrator()
    ticket = await bench.winner(face_value=ETHER, nonce=2)
    await bench.devnet.contracts.fund_sender(bench.sender, Wei(1), Wei(0))
    assert "panic" in (await bench.refusal(ticket)).lower()
    await bench.devnet.next_round()
    assert bench.paid(await bench.redeem(ticket)) == [1]


@pytest.mark.parametrize("setting", ["setUnlockPeriod", "setTicketValidityPeriod"])
async def test_only_the_owner_changes_the_rules(bench: Bench, setting: str) -> None:
    call = bench.broker.functions[setting](5)
    assert await refusal(call, bench.sender) == "caller must be Controller owner"
    receipt = await bench.devnet.contracts.send(bench.devnet.contracts.owner, call)
    name = setting[3].lower() + setting[4:]
    assert bench.told("TicketBroker", "ParameterUpdate", receipt) == [{"param": name}]
    assert await bench.broker.functions[name]().call() == 5
