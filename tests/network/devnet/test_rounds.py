"""Rounds: how they are counted, who begins them, and what holds between."""

import asyncio
from typing import Any

from eth_account.signers.local import LocalAccount

from network.devnet.deployment import ETHER, Deployment
from tests.devnet import RULES, Devnet
from tests.network.devnet.redeeming import Bench, refusal


def rounds_of(devnet: Devnet) -> Any:
    return devnet.contracts.contract("RoundsManager").functions


async def test_anybody_initialises_a_round_and_only_once(bench: Bench) -> None:
    devnet, rounds = bench.devnet, rounds_of(bench.devnet)
    assert await refusal(rounds.initializeRound(), bench.sender) == "round already initialized"
    number = await devnet.next_round(initialize=False)
    assert not await rounds.currentRoundInitialized().call()
    assert await rounds.lastInitializedRound().call() == number - 1
    receipt = await devnet.contracts.send(await devnet.account(), rounds.initializeRound())
    before = await devnet.web3.eth.get_block(receipt["blockNumber"] - 1)
    (told,) = bench.told("RoundsManager", "NewRound", receipt)
    assert told == {"round": number, "blockHash": before["hash"]}
    assert await rounds.blockHashForRound(number).call() == before["hash"]
    assert await rounds.currentRoundInitialized().call()
    assert not await devnet.contracts.initialize_round()


async def test_two_who_initialise_a_round_at_once_are_both_content(devnet: Devnet) -> None:
    await devnet.next_round(initialize=False)
    first, second = devnet.contracts, replace_owner(devnet, await devnet.account())
    done = await asyncio.gather(first.initialize_round(), second.initialize_round())
    assert sorted(done) == [False, True]


def replace_owner(devnet: Devnet, owner: LocalAccount) -> Deployment:
    was = devnet.contracts
    return Deployment(was.web3, owner, was.controller, was.addresses)


async def test_a_round_that_nobody_initialised_has_no_hash(bench: Bench) -> None:
    rounds = rounds_of(bench.devnet)
    skipped = await bench.devnet.next_round(initialize=False)
    later = await bench.devnet.next_round()
    assert later == skipped + 1
    assert await rounds.blockHashForRound(skipped).call() == bytes(32)
    assert await rounds.blockHashForRound(later).call() != bytes(32)
    assert await rounds.lastInitializedRound().call() == later


async def test_case_8_nothing_goes_on_between_a_rounds_boundary_and_its_beginning(
    bench: Bench,
) -> None:
    await bench.devnet.next_round(initialize=False)
    bonding = bench.devnet.contracts.contract("BondingManager").functions
    calls: list[Any] = [
        bonding.bond(1, bench.orchestrator.address),
        bonding.unbond(1),
        bonding.transcoder(0, 0),
        bonding.reward(),
        bonding.withdrawFees(bench.orchestrator.address, 0),
        bench.broker.functions.batchRedeemWinningTickets([], [], []),
    ]
    for call in calls:
        told = await refusal(call, bench.orchestrator)
        assert told == "current round is not initialized", call.fn_name
    assert await refusal(bench.broker.functions.fundDeposit(), bench.sender, value=ETHER) == ""


async def test_rounds_are_counted_from_where_their_length_changed_last(bench: Bench) -> None:
    devnet, rounds = bench.devnet, rounds_of(bench.devnet)
    assert await refusal(rounds.setRoundLength(7), bench.sender) == (
        "caller must be Controller owner"
    )
    number, start = (
        await devnet.contracts.current_round(),
        await rounds.currentRoundStartBlock().call(),
    )
    await devnet.contracts.set_round_length(7)
    await devnet.mine(30)
    assert await rounds.lastRoundLengthUpdateRound().call() == number
    assert await rounds.lastRoundLengthUpdateStartBlock().call() == start
    passed = await rounds.blockNum().call() - start
    assert await rounds.currentRound().call() == number + passed // 7
    assert await rounds.currentRoundStartBlock().call() == start + passed // 7 * 7


async def test_the_last_tenth_of_a_round_is_locked(bench: Bench) -> None:
    devnet, rounds = bench.devnet, rounds_of(bench.devnet)
    start = await rounds.currentRoundStartBlock().call()
    free = RULES.round_length - RULES.round_length * RULES.round_lock // 1_000_000
    # A call is answered as in the block that is newest.
    await devnet.mine(start + free - 1 - await devnet.web3.eth.block_number)
    assert not await rounds.currentRoundLocked().call()
    await devnet.mine()
    assert await rounds.currentRoundLocked().call()


async def test_hashes_can_be_asked_of_the_last_blocks(bench: Bench) -> None:
    rounds = rounds_of(bench.devnet)
    newest = await bench.devnet.web3.eth.get_block("latest")
    earlier = await bench.devnet.web3.eth.get_block(newest["number"] - 1)
    assert await rounds.blockHash(newest["number"] - 1).call() == earlier["hash"]
    told = await refusal(rounds.blockHash(newest["number"] + 1), bench.sender)
    assert told == "can only retrieve past block hashes"


async def test_only_the_owner_rewrites_a_rounds_hash(bench: Bench) -> None:
    call = rounds_of(bench.devnet).setBlockHashForRound(1, bytes(32))
    assert await refusal(call, bench.sender) == "caller must be Controller owner"
