"""Winning tickets become income on a real chain, whatever happens on the way.

The numbers in names are those of the network's failure cases.
"""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from network.chain.model import ChainError
from network.devnet.deployment import ETHER
from network.identity import KeySigner
from node.payments.redemption import Reason
from node.payments.redemptions import State, by_sender
from tests.devnet import Devnet
from tests.node.payments.redeeming import FINAL_AFTER, IMPATIENT, PACE, Bench, bench_on

FACE = ETHER // 10


@pytest.fixture
async def bench(devnet: Devnet, tmp_path: Path) -> AsyncIterator[Bench]:
    async with bench_on(devnet, tmp_path) as made:
        yield made


async def test_case_05_a_winner_is_redeemed_once_its_parameters_have_expired(bench: Bench) -> None:
    winner = await bench.win(await bench.sender(), lifetime=2)
    await bench.step(2)
    assert bench.reason(winner) == Reason.PARAMS_IN_USE
    assert await bench.states(winner) == []
    await bench.step()
    assert await bench.states(winner) == ["sent", "mined"]
    record = await bench.record(winner)
    assert record.income == FACE
    assert record.cost > 0
    assert bench.pending.of(winner.signed.ticket.sender) == 0
    bench.clock.ahead = FINAL_AFTER
    await bench.step()
    assert await bench.states(winner) == ["sent", "mined", "final"]


async def test_case_16_several_winners_go_in_one_transaction(bench: Bench) -> None:
    sender = await bench.sender()
    winners = [await bench.win(sender) for _ in range(3)]
    await bench.step()
    records = [await bench.record(winner) for winner in winners]
    assert {record.state for record in records} == {State.MINED}
    assert len({record.last.transaction_hash for record in records}) == 1
    assert records[0].last.purpose.startswith("redeem-batch:")


async def test_case_01_a_batch_with_a_ticket_used_meanwhile_books_each_by_its_event(
    bench: Bench,
) -> None:
    sender = await bench.sender()
    winners = [await bench.win(sender) for _ in range(3)]
    await bench.mine()
    sending = await bench.redeemer.plan()
    assert sending is not None
    await bench.by_stranger(winners[1])
    await bench.redeemer.carry_out(sending)
    records = [await bench.record(winner) for winner in winners]
    assert [record.income for record in records] == [FACE] * 3
    hashes = [record.last.transaction_hash for record in records]
    assert hashes[0] == hashes[2] != hashes[1]
    assert records[1].last.reason == "redeemed by somebody else"


async def test_case_01_what_a_stranger_redeemed_is_our_income_by_its_event(bench: Bench) -> None:
    """Case 33, too: the event is looked for when the node comes back, not only when it happens."""
    winner = await bench.win(await bench.sender(deposit=FACE // 3))
    await bench.by_stranger(winner)
    await bench.mine(3)
    await bench.restart()
    await bench.step()
    record = await bench.record(winner)
    assert [entry.state for entry in record.entries] == [State.MINED]
    assert record.income == FACE // 3
    assert record.loss == FACE - FACE // 3
    assert record.cost == 0


async def test_case_11_a_partial_payout_is_booked_as_paid_and_the_rest_written_off(
    bench: Bench,
) -> None:
    sender = await bench.sender(deposit=FACE // 4)
    winner = await bench.win(sender)
    await bench.step()
    assert bench.reason(winner) == Reason.SHORT
    await bench.devnet.next_round()
    await bench.step(15)
    record = await bench.record(winner)
    assert (record.income, record.loss) == (FACE // 4, FACE - FACE // 4)
    (line,), total = by_sender(await bench.books.all())
    assert line.redeemed == total.redeemed == FACE // 4
    assert line.written_off == FACE - FACE // 4


async def test_case_11_a_payout_of_nothing_is_no_income(bench: Bench) -> None:
    """Our share of the reserve went to another ticket of ours between the plan and the block."""
    await bench.devnet.orchestrator()
    sender = await bench.sender(deposit=0, reserve=2 * FACE)
    winners = [await bench.win(sender) for _ in range(2)]
    await bench.mine()
    sending = await bench.redeemer.plan()
    assert sending is not None
    (chosen,) = sending.records
    (other,) = (winner for winner in winners if winner != chosen.winner)
    assert bench.reason(other) == Reason.NO_FUNDS
    await bench.by_stranger(other)
    await bench.redeemer.carry_out(sending)
    record = await bench.record(chosen.winner)
    assert record.state is State.MINED
    assert (record.income, record.loss) == (0, FACE)
    await bench.step()
    assert (await bench.record(other)).income == FACE


async def test_case_10_funds_for_one_are_not_counted_on_for_two(bench: Bench) -> None:
    sender = await bench.sender(deposit=FACE)
    winners = [await bench.win(sender) for _ in range(2)]
    await bench.step()
    records = [await bench.record(winner) for winner in winners]
    assert sorted(record.state.value for record in records) == ["mined", "queued"]
    assert bench.pending.of(sender.address) == FACE


async def test_case_14_a_reorganisation_takes_income_back_and_it_is_earned_again(
    bench: Bench,
) -> None:
    # Whoever sends transactions does not notice before we do.
    bench.pace = replace(PACE, settled_poll_seconds=1000.0)
    await bench.restart()
    winner = await bench.win(await bench.sender())
    await bench.step()
    assert (await bench.record(winner)).income == FACE
    await bench.devnet.reorganize(1)
    assert not await bench.chain.is_used(winner.ticket_hash)
    await bench.mine()
    assert await bench.redeemer.plan() is None
    assert (await bench.record(winner)).income == 0
    assert bench.pending.of(winner.signed.ticket.sender) == FACE
    bench.pace = PACE
    await bench.restart()
    async with asyncio.timeout(20):
        while (await bench.record(winner)).state is not State.MINED:
            await asyncio.sleep(0.05)
            await bench.step()
    assert (await bench.states(winner))[:3] == ["sent", "mined", "sent"]
    bench.clock.ahead = FINAL_AFTER
    await bench.step()
    assert (await bench.states(winner))[-1] == "final"


async def test_case_15_an_outage_delays_and_loses_nothing(bench: Bench) -> None:
    await bench.stop()
    bench.timeout = 0.3
    await bench.start()
    winner = await bench.win(await bench.sender())
    await bench.mine()
    sending = await bench.redeemer.plan()
    assert sending is not None
    os.kill(bench.devnet.chain.pid, signal.SIGSTOP)
    try:
        with pytest.raises(ChainError):
            await bench.redeemer.carry_out(sending)
        with pytest.raises(ChainError):
            await bench.redeemer.step()
        assert await bench.states(winner) == ["sent"]
    finally:
        os.kill(bench.devnet.chain.pid, signal.SIGCONT)
    await bench.restart()
    await bench.step()
    assert await bench.states(winner) == ["sent", "mined"]


async def test_case_16_a_gas_spike_is_waited_out(bench: Bench) -> None:
    winner = await bench.win(await bench.sender())
    await _spike(bench, 500 * 10**9)
    await bench.redeemer.step()
    assert bench.reason(winner) == Reason.GAS_ABOVE_TARGET
    await _spike(bench, 1000)
    await bench.redeemer.step()
    assert (await bench.record(winner)).income == FACE


async def test_case_16_before_its_deadline_a_ticket_goes_at_any_price_below_its_payout(
    bench: Bench,
) -> None:
    sender = await bench.sender()
    small = await bench.win(sender, face=10**16)
    large = await bench.win(sender, face=ETHER // 2)
    await bench.devnet.next_round()
    await bench.devnet.mine(14)
    await _spike(bench, 500 * 10**9)
    await bench.redeemer.step()
    assert (await bench.record(large)).income == ETHER // 2
    assert bench.reason(small) == Reason.UNECONOMIC
    assert bench.redeemer.late == 1, "the operator is told"


async def test_case_16_a_transaction_that_gas_left_behind_is_lifted_near_the_deadline(
    bench: Bench,
) -> None:
    bench.pace = IMPATIENT
    await bench.restart()
    winner = await bench.win(await bench.sender(), face=ETHER // 2)
    await bench.devnet.next_round()
    await bench.mine()
    sending = await bench.redeemer.plan()
    assert sending is not None
    manual, automatic = (False,), (True,)
    await bench.devnet.rpc("evm_setAutomine", *manual)
    carrying = asyncio.ensure_future(bench.redeemer.carry_out(sending))
    try:
        async with asyncio.timeout(20):
            while not bench.transactions.under_way:
                await bench.mine(0)
            await _mine_dearly(bench, 8)
            assert bench.reason(winner) == Reason.UNDER_WAY
            assert bench.redeemer.late == 0
            await _mine_dearly(bench, 5)
            assert bench.redeemer.late == 1
            while _offered(bench) <= bench.policy.max_gas_price:
                await bench.mine(0)
            await bench.mine()
            await carrying
    finally:
        carrying.cancel()
        await asyncio.gather(carrying, return_exceptions=True)
        await bench.devnet.rpc("anvil_dropAllTransactions")
        await bench.devnet.rpc("evm_setAutomine", *automatic)
    assert (await bench.record(winner)).income == ETHER // 2


def _offered(bench: Bench) -> int:
    (flight,) = bench.transactions._flights.unsettled()
    return flight.transaction.newest.fees.max_fee


async def _mine_dearly(bench: Bench, blocks: int) -> None:
    """Blocks in which gas costs 500 gwei, fifty times what is wished for."""
    for _ in range(blocks):
        await bench.devnet.set_base_fee(500 * 10**9)
        await bench.mine()
    await bench.redeemer.plan()


async def test_case_08_an_expired_ticket_is_written_off_after_a_second_look(bench: Bench) -> None:
    sender = await bench.sender(deposit=0, reserve=0)
    winner = await bench.win(sender)
    await bench.step()
    assert bench.reason(winner) == Reason.NO_FUNDS
    await bench.devnet.next_round(2)
    await bench.step()
    assert await bench.states(winner) == []
    assert bench.reason(winner) == "ticket is expired"
    await bench.step(3)
    record = await bench.record(winner)
    assert (record.state, record.loss, record.last.reason) == (
        State.WRITTEN_OFF,
        FACE,
        "ticket is expired",
    )
    assert bench.pending.of(sender.address) == 0


async def test_case_08_nothing_is_sent_while_the_round_is_not_initialised(bench: Bench) -> None:
    winner = await bench.win(await bench.sender())
    await bench.devnet.next_round(initialize=False)
    await bench.step()
    assert bench.reason(winner) == Reason.ROUND_NOT_INITIALIZED
    await bench.devnet.contracts.initialize_round()
    await bench.step()
    assert (await bench.record(winner)).income == FACE


async def test_case_12_tickets_of_a_sender_that_unlocks_go_first(bench: Bench) -> None:
    bench.policy = replace(bench.policy, largest_batch=1)
    await bench.restart()
    staying = await bench.win(await bench.sender(), face=ETHER // 2)
    account = await bench.devnet.sender(ETHER, 0)
    leaving = await bench.win(KeySigner(account.key))
    unlock = bench.devnet.contracts.contract("TicketBroker").functions.unlock()
    await bench.devnet.contracts.send(account, unlock)
    await bench.step()
    assert await bench.states(leaving) == ["sent", "mined"]
    assert bench.reason(staying) == Reason.IN_LINE
    await bench.step()
    assert await bench.states(staying) == ["sent", "mined"]


async def test_case_13_a_recipient_that_is_not_active_waits_for_what_only_a_reserve_pays(
    bench: Bench,
) -> None:
    bench.orchestrator = await bench.devnet.orchestrator()
    winner = await bench.win(await bench.sender(deposit=0, reserve=ETHER))
    await bench.step()
    assert bench.reason(winner) == Reason.NOT_ACTIVE
    await bench.devnet.next_round()
    await bench.step()
    assert (await bench.record(winner)).income == FACE


async def test_case_13_a_recipient_that_is_not_registered_waits(bench: Bench) -> None:
    bench.orchestrator = await bench.devnet.account()
    winner = await bench.win(await bench.sender())
    await bench.step()
    assert bench.reason(winner) == Reason.NOT_REGISTERED


async def test_case_29_shares_are_the_recipients_whoever_sends_the_transaction(
    bench: Bench,
) -> None:
    bench.account = await bench.devnet.account()
    await bench.restart()
    assert bench.transactions.account != bench.recipient
    winner = await bench.win(await bench.sender(deposit=0, reserve=ETHER))
    await bench.step()
    assert (await bench.record(winner)).income == FACE


async def test_case_30_a_paused_broker_is_waited_for(bench: Bench) -> None:
    winner = await bench.win(await bench.sender())
    controller = bench.devnet.contracts.contract("Controller").functions
    await bench.devnet.contracts.send(bench.devnet.contracts.owner, controller.pause())
    await bench.step()
    assert bench.reason(winner) == Reason.PAUSED
    await bench.devnet.contracts.send(bench.devnet.contracts.owner, controller.unpause())
    await bench.step()
    assert (await bench.record(winner)).income == FACE


async def test_case_18_a_crash_before_the_transaction_was_made_sends_it_at_the_next_start(
    bench: Bench,
) -> None:
    winner = await bench.win(await bench.sender())
    await bench.mine()
    assert await bench.redeemer.plan() is not None
    await bench.restart()
    await bench.step()
    assert await bench.states(winner) == ["sent", "mined"]


async def test_case_18_a_crash_after_it_was_sent_sends_nothing_twice(bench: Bench) -> None:
    sender = await bench.sender()
    winners = [await bench.win(sender) for _ in range(2)]
    await bench.mine()
    sending = await bench.redeemer.plan()
    assert sending is not None
    # It is sent, and the process dies before anything is booked.
    calls = await bench.chain.calls()
    call = calls.redeem_batch([record.winner.signed for record in sending.records])
    await bench.transactions.send(call, sending.purpose)
    await bench.restart()
    await bench.step()
    assert [await bench.states(winner) for winner in winners] == [["sent", "mined"]] * 2
    nonce = await bench.devnet.web3.eth.get_transaction_count(bench.orchestrator.address)
    await bench.step()
    assert nonce == await bench.devnet.web3.eth.get_transaction_count(bench.orchestrator.address)


async def test_case_20_every_senders_tickets_are_redeemed_after_a_restart(bench: Bench) -> None:
    winners = [await bench.win(await bench.sender()) for _ in range(2)]
    await bench.restart()
    bench.pending.restore([])
    await bench.step()
    assert [(await bench.record(winner)).income for winner in winners] == [FACE, FACE]


async def test_it_redeems_by_itself_as_heads_come_in(bench: Bench) -> None:
    winner = await bench.win(await bench.sender())
    running = asyncio.ensure_future(bench.redeemer.run())
    try:
        async with asyncio.timeout(20):
            while (await bench.record(winner)).state is not State.MINED:
                await bench.mine()
                await asyncio.sleep(0.05)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_a_ticket_that_the_contract_refuses_for_good_is_written_off_and_the_rest_go_on(
    bench: Bench,
) -> None:
    """Case 8: the signature is of another ticket, and the others are redeemed all the same."""
    sender = await bench.sender()
    good = await bench.win(sender)
    bad = await bench.win(sender, spoilt=True)
    await bench.step()
    assert (await bench.record(good)).income == FACE
    assert bench.reason(bad) == "invalid signature over ticket hash"
    await bench.step(3)
    record = await bench.record(bad)
    assert (record.state, record.loss) == (State.WRITTEN_OFF, FACE)


async def _spike(bench: Bench, wei: int) -> None:
    await bench.devnet.set_base_fee(wei)
    await bench.mine()
