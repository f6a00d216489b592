"""redeemWinningTicket refuses in the order and the words that were measured on the network's own contract."""

from dataclasses import replace

from network.devnet.deployment import ETHER
from network.identity import KeySigner
from network.payments.tickets import CreationRound
from network.units import Wei
from tests.network.devnet.redeeming import RAND, Bench, Redemption

ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141


def flipped(signature: bytes) -> bytes:
    """The other signature by the same key over the same digest, with high s."""
    s = ORDER - int.from_bytes(signature[32:64], "big")
    return signature[:32] + s.to_bytes(32, "big") + bytes([55 - signature[64]])


async def test_row_0_a_paused_system(bench: Bench) -> None:
    ticket = await bench.winner()
    controller = bench.devnet.contracts.contract("Controller").functions
    await bench.devnet.contracts.send(bench.devnet.contracts.owner, controller.pause())
    assert await bench.refusal(ticket) == "system is paused"
    await bench.devnet.contracts.send(bench.devnet.contracts.owner, controller.unpause())
    assert await bench.refusal(ticket) == ""


async def test_row_1_a_round_that_nobody_initialised(bench: Bench) -> None:
    ticket = await bench.winner()
    ticket.fields[0] = "0x" + 40 * "0"  # row 2 comes after
    await bench.devnet.next_round(initialize=False)
    assert await bench.refusal(ticket) == "current round is not initialized"
    controller = bench.devnet.contracts.contract("Controller").functions
    await bench.devnet.contracts.send(bench.devnet.contracts.owner, controller.pause())
    assert await bench.refusal(ticket) == "system is paused"


async def test_rows_2_to_7_come_in_this_order(bench: Bench) -> None:
    """Everything is wrong at first; mending what is refused shows the next refusal."""
    good = await bench.winner()
    now = await bench.creation()
    bad = Redemption(
        ["0x" + 40 * "0", "0x" + 40 * "0", *good.fields[2:5], b"h" * 32, b"x" * 63], b"", RAND
    )
    assert await bench.refusal(bad) == "ticket recipient is null address"
    bad.fields[0] = good.fields[0]
    assert await bench.refusal(bad) == "ticket sender is null address"
    bad.fields[1] = good.fields[1]
    assert await bench.refusal(bad) == "invalid length for ticket auxData: must be 64 bytes"
    bad.fields[6] = CreationRound(now.number + 1, b"z" * 32).aux_data
    assert await bench.refusal(bad) == "ticket creationRound does not have a block hash"
    bad.fields[6] = CreationRound(now.number, b"z" * 32).aux_data
    assert await bench.refusal(bad) == "ticket creationRoundBlockHash invalid for creationRound"
    bad.fields[6] = now.aux_data
    await bench.devnet.next_round(2)
    assert await bench.refusal(bad) == "ticket is expired"
    bad.fields[6] = (await bench.creation()).aux_data
    assert await bench.refusal(bad) == "recipientRand does not match recipientRandHash"


async def test_rows_7_to_15_come_in_this_order(bench: Bench) -> None:
    """A used ticket to a stranger's benefit, badly signed, by a sender that left; mended row by row."""
    devnet, broker = bench.devnet, bench.broker.functions
    stranger, forger = await devnet.account(), KeySigner(b"\1" * 32)
    await devnet.contracts.send(bench.sender, broker.unlock())
    await devnet.next_round()
    used = await bench.winner()
    await bench.redeem(used)
    await devnet.next_round()
    await devnet.contracts.send(bench.sender, broker.withdraw())
    bad = replace(used, signature=b"", rand=RAND + 1)
    assert await bench.refusal(bad) == "recipientRand does not match recipientRandHash"
    bad.rand = RAND
    assert await bench.refusal(bad) == "ticket is used"
    lost = await bench.winner(recipient=stranger, win_prob=0)
    bad.fields = lost.fields
    assert await bench.refusal(bad) == "INVALID_SIGNATURE_LENGTH"
    forged = forger.sign(b"m" * 32)
    bad.signature = forged[:64] + bytes([forged[64] - 27])
    assert await bench.refusal(bad) == "ECDSA: invalid signature 'v' value"
    bad.signature = flipped(forged)
    assert await bench.refusal(bad) == "ECDSA: invalid signature 's' value"
    bad.signature = forged
    assert await bench.refusal(bad) == "invalid signature over ticket hash"
    bad.signature = lost.signature
    assert await bench.refusal(bad) == "ticket did not win"
    bad = await bench.winner(recipient=stranger)
    assert await bench.refusal(bad) == "sender is unlocked"
    await devnet.contracts.send(bench.sender, broker.cancelUnlock())
    assert await bench.refusal(bad) == "sender deposit and reserve are zero"
    await devnet.contracts.send(bench.sender, broker.fundDeposit(), ETHER)
    assert await bench.refusal(bad) == "transcoder must be registered"
    assert await bench.refusal(await bench.winner()) == ""


async def test_row_6_a_ticket_lives_in_its_round_and_the_next(bench: Bench) -> None:
    ticket = await bench.winner()
    await bench.devnet.next_round()
    assert await bench.refusal(ticket) == ""
    await bench.devnet.next_round()
    assert await bench.refusal(ticket) == "ticket is expired"


async def test_row_8_a_used_ticket_whatever_its_signature(bench: Bench) -> None:
    """Case 1: one redemption for a ticket, however many signatures there are over it."""
    ticket = await bench.winner()
    await bench.redeem(ticket)
    assert await bench.refusal(ticket) == "ticket is used"
    assert await bench.refusal(replace(ticket, signature=b"")) == "ticket is used"


async def test_rows_9_to_11_signatures(bench: Bench) -> None:
    ticket = await bench.winner()
    right = ticket.signature

    async def refused(signature: bytes) -> str:
        return await bench.refusal(replace(ticket, signature=signature))

    assert await refused(right[:64]) == "INVALID_SIGNATURE_LENGTH"
    assert await refused(right + b"\0") == "INVALID_SIGNATURE_LENGTH"
    assert await refused(flipped(right)) == "ECDSA: invalid signature 's' value"
    low_v = right[:64] + bytes([right[64] - 27])
    assert await refused(low_v) == "ECDSA: invalid signature 'v' value"
    stranger = KeySigner(b"\1" * 32).sign(b"m" * 32)
    assert await refused(stranger) == "invalid signature over ticket hash"


async def test_row_12_a_ticket_that_lost(bench: Bench) -> None:
    assert await bench.refusal(await bench.winner(win_prob=0)) == "ticket did not win"
    assert await bench.refusal(await bench.winner(win_prob=1)) == "ticket did not win"


async def test_row_13_a_sender_that_unlocked(bench: Bench) -> None:
    broker = bench.broker.functions
    await bench.devnet.contracts.send(bench.sender, broker.unlock())
    assert await bench.refusal(await bench.winner()) == ""
    await bench.devnet.next_round()
    assert await bench.refusal(await bench.winner()) == ""
    await bench.devnet.next_round()
    assert await bench.refusal(await bench.winner()) == "sender is unlocked"


async def test_row_14_a_sender_without_funds(bench: Bench) -> None:
    penniless = await bench.devnet.account()
    ticket = await replace(bench, sender=penniless).winner()
    assert await bench.refusal(ticket) == "sender deposit and reserve are zero"


async def test_row_15_a_recipient_that_is_not_registered(bench: Bench) -> None:
    stranger = await bench.devnet.account()
    ticket = await bench.winner(recipient=stranger)
    assert await bench.refusal(ticket) == "transcoder must be registered"


async def test_anybody_may_redeem_and_the_recipient_has_the_fee(bench: Bench) -> None:
    stranger = await bench.devnet.account()
    ticket = await bench.winner(face_value=12345)
    receipt = await bench.redeem(ticket, by=stranger)
    assert bench.paid(receipt) == [12345]
    fees = bench.devnet.contracts.contract("BondingManager").functions.pendingFees
    assert await fees(bench.orchestrator.address, 0).call() == 12345
    assert await fees(stranger.address, 0).call() == 0
    assert (await bench.funds())[0] == ETHER - 12345


async def test_case_11_a_ticket_is_used_whether_it_pays_all_or_a_part_or_nothing(
    bench: Bench,
) -> None:
    broker = bench.broker
    first = await bench.redeem(await bench.winner(face_value=3 * ETHER))
    assert bench.paid(first) == [2 * ETHER]  # the deposit, and the whole reserve in a pool of one
    await bench.devnet.contracts.fund_sender(bench.sender, Wei(0), Wei(1))
    # What was claimed counts as reserve for the share, and as taken from it.
    ticket = await bench.winner(face_value=ETHER, nonce=2)
    second = await bench.redeem(ticket)
    assert bench.paid(second) == [1]
    await bench.devnet.orchestrator()  # a second in the pool: the share is claimed already
    await bench.devnet.contracts.fund_sender(bench.sender, Wei(0), Wei(ETHER + 1))
    third = await bench.winner(face_value=ETHER, nonce=3)
    receipt = await bench.redeem(third)
    assert bench.paid(receipt) == []
    assert len(bench.told("TicketBroker", "WinningTicketRedeemed", receipt)) == 1
    hash_ = await broker.functions.getTicketHash(tuple(third.fields)).call()
    assert await broker.functions.usedTickets(hash_).call()


async def test_case_10_a_deposit_is_whoever_comes_first_and_a_reserve_is_shared(
    bench: Bench,
) -> None:
    other = await bench.devnet.orchestrator()
    await bench.devnet.next_round()
    claimable = bench.broker.functions.claimableReserve
    for one in (bench.orchestrator, other):
        assert await claimable(bench.sender.address, one.address).call() == ETHER // 2
    first = await bench.redeem(await bench.winner(face_value=3 * ETHER))
    assert bench.paid(first) == [ETHER + ETHER // 2]
    ticket = await bench.winner(face_value=3 * ETHER, recipient=other)
    assert bench.paid(await bench.redeem(ticket)) == [ETHER // 2]
    assert await bench.funds() == (0, 0, 0, ETHER)
    claimed = bench.broker.functions.claimedReserve
    assert await claimed(bench.sender.address, other.address).call() == ETHER // 2
    await bench.devnet.next_round()
    assert await claimed(bench.sender.address, other.address).call() == 0


async def test_case_13_who_is_not_active_yet_gets_no_reserve_but_dilutes_it(bench: Bench) -> None:
    newcomer = await bench.devnet.orchestrator()
    active = bench.devnet.contracts.contract("BondingManager").functions.isActiveTranscoder
    assert not await active(newcomer.address).call()
    claimable = bench.broker.functions.claimableReserve
    assert await claimable(bench.sender.address, newcomer.address).call() == 0
    assert await claimable(bench.sender.address, bench.orchestrator.address).call() == ETHER // 2
    await bench.devnet.next_round()
    assert await active(newcomer.address).call()


async def test_a_batch_passes_over_what_cannot_be_redeemed(bench: Bench) -> None:
    used = await bench.winner(nonce=1)
    await bench.redeem(used)
    tickets = [used, *[await bench.winner(nonce=nonce) for nonce in (2, 3)]]
    call = bench.broker.functions.batchRedeemWinningTickets(
        [tuple(one.fields) for one in tickets],
        [one.signature for one in tickets],
        [one.rand for one in tickets],
    )
    receipt = await bench.devnet.contracts.send(bench.orchestrator, call, gas=1_000_000)
    assert receipt["status"] == 1
    assert bench.paid(receipt) == [1000, 1000]


async def test_a_batch_passes_over_what_its_gas_does_not_reach(bench: Bench) -> None:
    """An estimate finds the least gas at which nothing fails, and nothing ever fails in a batch."""
    tickets = [await bench.winner(nonce=nonce) for nonce in (1, 2, 3)]
    call = bench.broker.functions.batchRedeemWinningTickets(
        [tuple(one.fields) for one in tickets],
        [one.signature for one in tickets],
        [one.rand for one in tickets],
    )
    estimate = await call.estimate_gas({"from": bench.orchestrator.address})
    receipt = await bench.devnet.contracts.send(bench.orchestrator, call, gas=estimate)
    assert receipt["status"] == 1
    assert len(bench.paid(receipt)) < 3


async def test_case_12_only_the_senders_own_money_locks_it_again(bench: Bench) -> None:
    """After a withdrawal a stranger's money leaves every ticket worthless."""
    devnet, broker = bench.devnet, bench.broker.functions
    await devnet.contracts.send(bench.sender, broker.unlock())
    await devnet.next_round(2)
    await devnet.contracts.send(bench.sender, broker.withdraw())
    deposit, withdraw, reserve, _ = await bench.funds()
    assert (deposit, reserve) == (0, 0)
    assert withdraw > 0
    stranger = await devnet.account()
    gift = broker.fundDepositAndReserveFor(bench.sender.address, ETHER, ETHER)
    await devnet.contracts.send(stranger, gift, 2 * ETHER)
    assert (await bench.funds())[:2] == (ETHER, withdraw)
    assert await bench.refusal(await bench.winner()) == "sender is unlocked"
    await devnet.contracts.send(bench.sender, broker.fundDeposit(), 1)
    assert (await bench.funds())[:2] == (ETHER + 1, 0)
    assert await bench.refusal(await bench.winner()) == ""


async def test_case_8_a_round_whose_hash_was_stored_as_zero(bench: Bench) -> None:
    rounds = bench.devnet.contracts.contract("RoundsManager").functions
    now = await bench.creation()
    before = CreationRound(
        now.number - 1, bytes(await rounds.blockHashForRound(now.number - 1).call())
    )
    await bench.devnet.contracts.send(
        bench.devnet.contracts.owner, rounds.setBlockHashForRound(now.number, bytes(32))
    )
    lost = await bench.winner(creation=CreationRound(now.number, bytes(32)))
    assert await bench.refusal(lost) == "ticket creationRound does not have a block hash"
    assert await bench.refusal(await bench.winner(creation=before)) == ""


async def test_case_32_a_stolen_key_signs_away_deposit_and_reserve_and_no_more(
    bench: Bench,
) -> None:
    """What the hot key's account holds besides is out of the broker's reach."""
    balance = bench.devnet.web3.eth.get_balance
    before = await balance(bench.devnet.web3.to_checksum_address(bench.sender.address))
    lost = 0
    for nonce in range(1, 4):
        ticket = await bench.winner(face_value=10**6 * ETHER, nonce=nonce)
        if not await bench.refusal(ticket):
            lost += sum(bench.paid(await bench.redeem(ticket)))
    assert lost == 2 * ETHER
    assert await balance(bench.devnet.web3.to_checksum_address(bench.sender.address)) == before
