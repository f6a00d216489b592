"""Orchestrators: bonding, when one is active, what one may set, and how one leaves."""

from dataclasses import replace
from typing import Any

from network.devnet.deployment import ETHER, Deployment
from network.units import Wei
from tests.devnet import RULES, Devnet
from tests.network.devnet.redeeming import Bench, refusal

URI = "https://127.0.0.1:8936"
NOBODY = "0x" + 40 * "0"


def bonding_of(contracts: Deployment) -> Any:
    return contracts.contract("BondingManager").functions


async def test_who_bonds_is_registered_at_once_and_active_from_the_next_round_on(
    bench: Bench,
) -> None:
    devnet, contracts = bench.devnet, bench.devnet.contracts
    bonding, token = bonding_of(contracts), contracts.contract("LivepeerToken")
    newcomer = await devnet.account()
    bond = bonding.bond(500, newcomer.address)
    assert await refusal(bond, newcomer) == "ERC20: insufficient allowance"
    await contracts.send(newcomer, token.functions.mint(newcomer.address, 500))
    spender = contracts.addresses["BondingManager"]
    await contracts.send(newcomer, token.functions.approve(spender, 500))
    assert await refusal(bonding.bond(500, bench.sender.address), newcomer) == (
        "dev: self-bond only"
    )
    receipt = await contracts.send(newcomer, bond)
    now = await contracts.current_round()
    assert bench.told("BondingManager", "Bond", receipt) == [
        {
            "newDelegate": newcomer.address,
            "oldDelegate": NOBODY,
            "delegator": newcomer.address,
            "additionalAmount": 500,
            "bondedAmount": 500,
        }
    ]
    assert bench.told("BondingManager", "TranscoderActivated", receipt) == [
        {"transcoder": newcomer.address, "activationRound": now + 1}
    ]
    assert await bonding.isRegisteredTranscoder(newcomer.address).call()
    assert await bonding.getTranscoderPoolSize().call() == 2
    assert not await bonding.isActiveTranscoder(newcomer.address).call()
    ticket = await bench.winner(recipient=newcomer)  # registered suffices for the deposit
    assert bench.paid(await bench.redeem(ticket)) == [1000]
    await devnet.next_round()
    assert await bonding.isActiveTranscoder(newcomer.address).call()


async def test_cuts_are_refused_in_the_order_of_the_network(bench: Bench) -> None:
    """Everything is wrong at first; mending what is refused shows the next refusal."""
    devnet, bonding = bench.devnet, bonding_of(bench.devnet.contracts)
    stranger = await devnet.account()
    rounds = devnet.contracts.contract("RoundsManager").functions
    end = await rounds.currentRoundStartBlock().call() + RULES.round_length
    await devnet.mine(end - 1 - await devnet.web3.eth.block_number)
    assert await refusal(bonding.transcoder(10**6 + 1, 10**6 + 1), stranger) == (
        "can't update transcoder params, current round is locked"
    )
    await devnet.next_round()
    assert await refusal(bonding.transcoder(10**6 + 1, 10**6 + 1), stranger) == (
        "invalid rewardCut percentage"
    )
    assert await refusal(bonding.transcoder(10**6, 10**6 + 1), stranger) == (
        "invalid feeShare percentage"
    )
    assert await refusal(bonding.transcoder(10**6, 0), stranger) == "transcoder must be registered"
    assert await refusal(bonding.transcoder(10**6, 0), bench.orchestrator) == (
        "caller can't be active or must have already called reward for the current round"
    )
    await devnet.contracts.send(bench.orchestrator, bonding.reward())
    receipt = await devnet.contracts.send(bench.orchestrator, bonding.transcoder(10**6, 0))
    assert bench.told("BondingManager", "TranscoderUpdate", receipt) == [
        {"transcoder": bench.orchestrator.address, "rewardCut": 10**6, "feeShare": 0}
    ]


async def test_a_reward_is_for_the_active_and_once_a_round(bench: Bench) -> None:
    devnet, bonding = bench.devnet, bonding_of(bench.devnet.contracts)
    newcomer = await devnet.orchestrator()
    assert await refusal(bonding.reward(), newcomer) == "caller must be an active transcoder"
    before = await bonding.transcoderTotalStake(bench.orchestrator.address).call()
    receipt = await devnet.contracts.send(bench.orchestrator, bonding.reward())
    (told,) = bench.told("BondingManager", "Reward", receipt)
    assert told == {"transcoder": bench.orchestrator.address, "amount": ETHER}
    assert await bonding.transcoderTotalStake(bench.orchestrator.address).call() == before + ETHER
    assert await refusal(bonding.reward(), bench.orchestrator) == (
        "caller has already called reward for the current round"
    )
    last_reward_round = (await bonding.getTranscoder(bench.orchestrator.address).call())[0]
    assert last_reward_round == await devnet.contracts.current_round()
    await devnet.next_round()
    assert await refusal(bonding.reward(), bench.orchestrator) == ""


async def test_anybody_writes_an_address_and_each_registry_has_its_own(bench: Bench) -> None:
    contracts, stranger = bench.devnet.contracts, await bench.devnet.account()
    registry, other = (
        contracts.contract(name).functions for name in ("ServiceRegistry", "AIServiceRegistry")
    )
    receipt = await contracts.send(stranger, registry.setServiceURI(URI))
    assert bench.told("ServiceRegistry", "ServiceURIUpdate", receipt) == [
        {"addr": stranger.address, "serviceURI": URI}
    ]
    assert await registry.getServiceURI(stranger.address).call() == URI
    assert await other.getServiceURI(stranger.address).call() == ""


async def test_fees_are_withdrawn_by_whom_they_belong_to(bench: Bench) -> None:
    devnet, bonding = bench.devnet, bonding_of(bench.devnet.contracts)
    await bench.redeem(await bench.winner(face_value=700))
    purse = await devnet.account(ether=0)
    withdraw = bonding.withdrawFees(purse.address, 700)
    assert await refusal(withdraw, bench.sender) == "insufficient fees to withdraw"
    receipt = await devnet.contracts.send(bench.orchestrator, withdraw)
    assert bench.told("BondingManager", "WithdrawFees", receipt) == [
        {"delegator": bench.orchestrator.address, "recipient": purse.address, "amount": 700}
    ]
    assert await devnet.web3.eth.get_balance(purse.address) == 700
    assert await bonding.pendingFees(bench.orchestrator.address, 0).call() == 0


async def test_who_unbonds_is_unregistered_at_once_and_active_to_the_rounds_end(
    bench: Bench,
) -> None:
    """Case 13: a ticket whose recipient left cannot be redeemed."""
    devnet, bonding = bench.devnet, bonding_of(bench.devnet.contracts)
    leaver = bench.orchestrator
    stake = await bonding.transcoderTotalStake(leaver.address).call()
    receipt = await devnet.contracts.send(leaver, bonding.unbond(stake))
    now = await devnet.contracts.current_round()
    assert bench.told("BondingManager", "TranscoderDeactivated", receipt) == [
        {"transcoder": leaver.address, "deactivationRound": now + 1}
    ]
    assert await bonding.isActiveTranscoder(leaver.address).call()
    assert await bench.refusal(await bench.winner()) == "transcoder must be registered"
    await devnet.next_round()
    assert not await bonding.isActiveTranscoder(leaver.address).call()
    assert await refusal(bonding.withdrawStake(0), leaver) == (
        "withdraw round must be before or equal to the current round"
    )
    assert await refusal(bonding.withdrawStake(1), leaver) == "invalid unbonding lock ID"
    await devnet.next_round(6)
    await devnet.contracts.send(leaver, bonding.withdrawStake(0))
    token = devnet.contracts.contract("LivepeerToken").functions
    assert await token.balanceOf(leaver.address).call() == stake


async def test_a_full_pool_keeps_the_largest_stakes(devnet: Devnet) -> None:
    """Whoever is pushed out is told so, and is active to the round's end."""
    contracts = await Deployment.deploy(
        devnet.web3, devnet.contracts.owner, replace(RULES, pool_size=2)
    )
    bonding = bonding_of(contracts)
    small, large, larger, least = [await devnet.account() for _ in range(4)]
    for account, stake in ((small, 10), (large, 20)):
        await contracts.register_orchestrator(account, Wei(stake), URI)
    small_devnet = replace(devnet, contracts=contracts)
    await small_devnet.next_round()
    await contracts.register_orchestrator(least, Wei(10), URI)  # as much as the last is too little
    assert await walked(bonding) == [large.address, small.address]
    await contracts.register_orchestrator(larger, Wei(30), URI)
    assert await walked(bonding) == [larger.address, large.address]
    assert await bonding.isActiveTranscoder(small.address).call()
    await small_devnet.next_round()
    assert not await bonding.isActiveTranscoder(small.address).call()
    for account in (large, larger):
        assert await bonding.isActiveTranscoder(account.address).call()
    now = await contracts.current_round()
    deactivated = contracts.contract("BondingManager").events.TranscoderDeactivated()
    found = await deactivated.get_logs(from_block=0)
    assert [dict(one["args"]) for one in found] == [
        {"transcoder": small.address, "deactivationRound": now}
    ]


async def walked(bonding: Any) -> list[str]:
    """The pool as readers of the chain walk it."""
    found, address = [], await bonding.getFirstTranscoderInPool().call()
    while address != NOBODY:
        found.append(address)
        address = await bonding.getNextTranscoderInPool(address).call()
    return found


async def test_only_the_other_contracts_credit_fees_and_stakes(bench: Bench) -> None:
    bonding, by = bonding_of(bench.devnet.contracts), bench.orchestrator
    fees = bonding.updateTranscoderWithFees(by.address, 1, 1)
    assert await refusal(fees, by) == "caller must be TicketBroker"
    stake = bonding.setCurrentRoundTotalActiveStake()
    assert await refusal(stake, by) == "caller must be RoundsManager"
