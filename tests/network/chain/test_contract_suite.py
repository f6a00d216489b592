"""What payments ask of a chain has the same answers on our fake one and on the real contracts."""

import pytest

from network.chain.contracts import LivepeerChain
from tests.devnet import Devnet
from tests.network.chain.fake_chain import NO_HASH
from tests.network.chain.worlds import DevnetWorld, FakeWorld, World, refusal, winner


@pytest.fixture(params=["fake", "devnet"])
def world(request: pytest.FixtureRequest, devnet: Devnet, chain: LivepeerChain) -> World:
    return FakeWorld() if request.param == "fake" else DevnetWorld(devnet, chain)


async def test_a_head_tells_round_block_and_what_new_tickets_carry(world: World) -> None:
    before = await world.chain.head()
    await world.next_round()
    after = await world.chain.head()

    assert before.is_round_initialized
    assert before.creation.number == before.last_initialized_round == before.current_round
    assert after.current_round == before.current_round + 1
    assert after.l1_block > before.l1_block
    assert after.creation.number == after.current_round
    assert after.creation.block_hash not in (NO_HASH, before.creation.block_hash)
    assert (after.ticket_validity_period, after.is_paused) == (2, False)
    assert after.gas_price > 0


async def test_a_round_that_nobody_initialised_shows(world: World) -> None:
    before = await world.chain.head()
    await world.next_round(initialize=False)
    head = await world.chain.head()

    assert not head.is_round_initialized
    assert head.last_initialized_round == before.last_initialized_round
    assert head.creation == before.creation


async def test_a_round_without_a_hash_leaves_tickets_to_the_one_before_case_8(
    world: World,
) -> None:
    before = await world.chain.head()
    await world.next_round()
    await world.lose_round_hash()
    head = await world.chain.head()

    assert head.last_initialized_round == before.current_round + 1
    assert head.creation == before.creation


async def test_a_pause_shows_and_stops_redemptions_case_30(world: World) -> None:
    recipient = await world.orchestrator()
    sender = await world.sender(1000, 1000)
    await world.next_round()
    ticket = await winner(world.chain, sender, recipient.address, 10)
    await world.pause()

    assert (await world.chain.head()).is_paused
    assert await refusal(world, ticket) == "system is paused"


async def test_an_orchestrator_is_registered_at_once_and_active_a_round_later(
    world: World,
) -> None:
    stranger = await world.sender(1, 1)
    pool = (await world.chain.head()).pool_size
    orchestrator = (await world.orchestrator()).address

    assert await world.chain.is_registered(orchestrator)
    assert not await world.chain.is_active(orchestrator)
    assert (await world.chain.head()).pool_size == pool + 1
    await world.next_round()
    assert await world.chain.is_active(orchestrator)
    assert not await world.chain.is_registered(stranger.address)
    assert not await world.chain.is_active(stranger.address)


async def test_a_sender_is_told_with_deposit_reserve_and_unlocking(world: World) -> None:
    sender = await world.sender(700, 300)
    funded = await world.chain.sender_info(sender.address)
    await world.unlock(sender)
    unlocking = await world.chain.sender_info(sender.address)

    assert (funded.deposit, funded.reserve_remaining, funded.withdraw_round) == (700, 300, 0)
    current = (await world.chain.head()).current_round
    assert unlocking.withdraw_round == current + 2
    assert (await world.chain.balance(sender.address)) > 0


async def test_nobody_knows_a_stranger(world: World) -> None:
    stranger = (await world.orchestrator()).address
    info = await world.chain.sender_info(stranger)
    assert (info.deposit, info.reserve_remaining, info.withdraw_round) == (0, 0, 0)
    assert await world.chain.claimed_reserve(stranger, stranger) == 0


async def test_a_ticket_is_paid_by_the_deposit_and_then_by_a_share_of_the_reserve(
    world: World,
) -> None:
    recipient, _other = await world.orchestrator(), await world.orchestrator()
    sender = await world.sender(100, 1000)
    await world.next_round()
    pool = (await world.chain.head()).pool_size
    ticket = await winner(world.chain, sender, recipient.address, 5000)
    assert not await world.chain.is_used(ticket.ticket.hash)

    payout = await world.redeem(ticket)

    share = 1000 // pool
    assert payout.ticket_hash == ticket.ticket.hash
    assert payout.amount == 100 + share
    assert await world.chain.is_used(ticket.ticket.hash)
    info = await world.chain.sender_info(sender.address)
    assert (info.deposit, info.reserve_remaining) == (0, 1000 - share)
    assert info.reserve_claimed_in_round == share
    # By the recipient, although somebody else sent the transaction.
    assert await world.chain.claimed_reserve(sender.address, recipient.address) == share
    await world.next_round()
    assert await world.chain.claimed_reserve(sender.address, recipient.address) == 0


async def test_a_redemption_may_pay_nothing_and_uses_the_ticket_all_the_same(world: World) -> None:
    recipient, _other = await world.orchestrator(), await world.orchestrator()
    sender = await world.sender(100, 1000)
    await world.next_round()
    await world.redeem(await winner(world.chain, sender, recipient.address, 5000))
    second = await winner(world.chain, sender, recipient.address, 5000, nonce=2)

    payout = await world.redeem(second)

    assert payout.amount == 0
    assert await world.chain.is_used(second.ticket.hash)
    assert await refusal(world, second) == "ticket is used"


async def test_tickets_of_an_unlocked_sender_are_refused(world: World) -> None:
    recipient = await world.orchestrator()
    sender = await world.sender(100, 100)
    await world.unlock(sender)
    await world.next_round()
    paid = await world.redeem(await winner(world.chain, sender, recipient.address, 10))
    await world.next_round()
    late = await winner(world.chain, sender, recipient.address, 10, nonce=2)

    assert paid.amount == 10
    assert await refusal(world, late) == "sender is unlocked"


async def test_tickets_expire_with_their_round(world: World) -> None:
    recipient = await world.orchestrator()
    sender = await world.sender(100, 100)
    await world.next_round()
    ticket = await winner(world.chain, sender, recipient.address, 10)
    await world.next_round()
    head = await world.chain.head()
    assert head.oldest_valid_round == ticket.ticket.creation.number
    await world.next_round()

    head = await world.chain.head()
    assert head.oldest_valid_round == ticket.ticket.creation.number + 1
    assert await refusal(world, ticket) == "ticket is expired"
