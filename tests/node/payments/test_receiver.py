"""What a payment brings, and in which words it is refused (Livepeer wire, 4.6)."""

from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from network.identity import KeySigner, checksum
from network.payments.checks import PARAMS_EXPIRED
from network.payments.tickets import TicketParams
from network.units import Address, Wei
from node.payments.receiver import GRACE_BLOCKS, MOST_NONCES, Receiver, Takings
from tests.node.payments.payers import (
    HEAD,
    RECIPIENT,
    SECRET,
    SIGNER,
    Purse,
    at,
    good_quote,
    quoted,
    receiver,
    spoiled,
)

SENDER = checksum(SIGNER.address)


def test_good_tickets_are_credited_at_their_value() -> None:
    purse = Purse(good_quote())
    takings = receiver().take(purse.offer(1, 2, 3), at())
    assert takings.refusal == ""
    assert takings.credit == 3 * purse.params.expected_value
    assert takings.nonces == (1, 2, 3)


def test_winners_are_kept_with_all_that_redeeming_them_takes() -> None:
    purse = Purse(good_quote())
    takings = receiver().take(purse.offer(*range(1, 41)), at())
    assert takings.winners, "at one in four, forty tickets that all lose are a fault"
    assert len(takings.winners) < 40
    for winner in takings.winners:
        assert winner.params_expiration_block == purse.params.expiration_block
        assert winner.signed.ticket.hash == winner.ticket_hash
        assert winner.signed.ticket.recipient == RECIPIENT


def test_case_2_a_replayed_nonce_brings_nothing_and_no_winner_either() -> None:
    purse, till = Purse(good_quote()), receiver()
    first = till.take(purse.offer(*range(1, 21)), at())
    again = till.take(purse.offer(*range(1, 21)), at())
    assert first.winners
    assert again == Takings(
        SIGNER.address,
        rand_hash=purse.params.recipient_rand_hash,
        expiration_block=purse.params.expiration_block,
        refusal=f"invalid ticket senderNonce: already seen sender={SENDER} nonce=1",
    )


def test_case_2_one_replayed_ticket_stops_the_credit_and_not_the_winners() -> None:
    purse, till = Purse(good_quote()), receiver()
    till.take(purse.offer(2), at())
    takings = till.take(purse.offer(1, 2, *range(3, 30)), at())
    assert takings.credit == purse.params.expected_value
    assert "already seen" in takings.refusal
    assert takings.nonces == (1, *range(3, 30))
    assert takings.winners


def test_case_3_nonces_outlive_the_process() -> None:
    purse = Purse(good_quote())
    first = receiver().take(purse.offer(1, 2), at())
    after = receiver()
    after.remember((first.rand_hash, nonce, first.expiration_block) for nonce in first.nonces)
    takings = after.take(purse.offer(2), at())
    assert "already seen" in takings.refusal
    assert takings.credit == 0


@pytest.mark.parametrize(
    "change",
    [
        {"face_value": Wei(5 * 10**6)},
        {"win_prob": 2**255},
        {"expiration_block": 5000},
        {"seed": b"seee"},
        {"recipient_rand_hash": b"x" * 32},
    ],
)
def test_case_4_whatever_a_payer_changes_of_its_quote_is_refused(
    change: dict[str, object],
) -> None:
    params = replace(good_quote(), **change)  # type: ignore[arg-type]
    takings = receiver().take(Purse(params).offer(1), at())
    assert takings.refusal == "invalid recipientRand for ticket recipientRandHash"
    assert takings.credit == 0
    assert takings.nonces == ()


def test_case_4_a_price_that_was_not_quoted_is_refused() -> None:
    takings = receiver().take(Purse(good_quote(), price=Fraction(1, 2)).offer(1), at())
    assert takings.refusal == "invalid recipientRand for ticket recipientRandHash"


def test_case_4_a_quote_for_somebody_else_is_refused() -> None:
    other = Purse(good_quote(), signer=KeySigner(b"\x44" * 32))
    takings = receiver().take(other.offer(1), at())
    assert takings.refusal == "invalid recipientRand for ticket recipientRandHash"


def test_case_6_a_bad_signature_is_refused_and_spends_no_nonce() -> None:
    purse, till = Purse(good_quote()), receiver()
    takings = till.take(spoiled(purse.offer(1, 2), 0), at())
    assert takings.refusal == "invalid ticket signature"
    assert takings.credit == 0  # what follows a fault is not credited, as at go-livepeer's
    assert takings.nonces == (2,)
    assert till.take(purse.offer(1), at()).refusal == ""


def test_case_7_an_expired_quote_brings_no_credit_but_may_still_pay() -> None:
    purse, till = Purse(good_quote()), receiver()
    takings = till.take(purse.offer(*range(1, 21)), at(purse.params.expiration_block))
    assert takings.refusal == PARAMS_EXPIRED
    assert takings.credit == 0
    assert takings.winners


def test_case_5_tickets_of_a_quote_long_expired_are_not_looked_at() -> None:
    """Its number is known by then: a payer could pick nonces that lose."""
    purse, till = Purse(good_quote()), receiver()
    late = at(purse.params.expiration_block + GRACE_BLOCKS)
    till.take(purse.offer(1), at())
    till.advance(late.l1_block)
    takings = till.take(purse.offer(1, 2), late)
    assert takings == Takings(SIGNER.address, refusal=PARAMS_EXPIRED)


def test_case_5_while_they_are_looked_at_nonces_are_remembered() -> None:
    purse, till = Purse(good_quote()), receiver()
    late = at(purse.params.expiration_block + GRACE_BLOCKS - 1)
    till.take(purse.offer(1), at())
    till.advance(late.l1_block)
    assert "already seen" in till.take(purse.offer(1), late).refusal


def test_case_5_a_lagging_endpoint_does_not_bring_an_expired_quote_back() -> None:
    purse, till = Purse(good_quote()), receiver()
    till.advance(purse.params.expiration_block)
    takings = till.take(purse.offer(1), at(HEAD.l1_block))
    assert (takings.refusal, takings.credit) == (PARAMS_EXPIRED, Fraction(0))


def test_case_25_tickets_for_free_work_bring_nothing_and_leave_no_trace() -> None:
    params = quoted(price=Fraction(0))
    assert isinstance(params, TicketParams)
    purse, till = Purse(params, price=Fraction(0)), receiver()
    for _ in range(2):
        assert till.take(purse.offer(1, 2), at()) == Takings(SIGNER.address)


def test_case_12_a_sender_that_leaves_soon_pays_nothing() -> None:
    purse = Purse(good_quote())
    for withdraw_round in (1, HEAD.last_initialized_round + 1):
        takings = receiver().take(purse.offer(1), at(withdraw_round=withdraw_round))
        assert takings.refusal == (
            f"deposit and reserve for sender {SENDER} is set to unlock soon"
        )
        assert takings.nonces == ()
    later = at(withdraw_round=HEAD.last_initialized_round + 2)
    assert receiver().take(purse.offer(1), later).refusal == ""


def test_a_ticket_for_somebody_else_is_refused() -> None:
    till = Receiver(SECRET, Address(b"o" * 20), max_tickets=100)
    takings = till.take(Purse(good_quote()).offer(1), at())
    assert takings.refusal == "invalid ticket recipient"


def test_case_26_more_tickets_than_are_looked_at_cost_no_signature() -> None:
    takings = receiver(max_tickets=5).take(Purse(good_quote()).offer(*range(1, 7)), at())
    assert takings.refusal == "6 tickets in a payment; at most 5"
    assert takings.nonces == ()


def test_case_26_a_quote_is_good_for_so_many_tickets() -> None:
    purse, till = Purse(good_quote()), receiver(max_tickets=MOST_NONCES + 1)
    takings = till.take(purse.offer(*range(1, MOST_NONCES + 2)), at())
    assert takings.refusal == f"invalid ticket senderNonce: too many values sender={SENDER}"
    assert takings.credit == MOST_NONCES * purse.params.expected_value


class ReceiverMachine(RuleBasedStateMachine):
    """However tickets come, spoiled, late, again or after a restart: each is credited at most once."""

    @initialize()
    def begin(self) -> None:
        self.till = receiver()
        self.block = HEAD.l1_block
        self.purses = [Purse(good_quote(seed=bytes([number]))) for number in range(3)]
        self.stored: list[tuple[bytes, int, int]] = []
        self.credited: dict[tuple[bytes, int], Fraction] = {}
        self.total = self.accepted = Fraction(0)
        self.won: list[bytes] = []

    @rule(
        which=st.integers(0, 2),
        nonces=st.lists(st.integers(1, 12), min_size=1, max_size=6),
        spoil=st.none() | st.integers(0, 5),
    )
    def pay(self, which: int, nonces: list[int], spoil: int | None) -> None:
        purse = self.purses[which]
        offered = purse.offer(*nonces)
        if spoil is not None and spoil < len(nonces):
            offered = spoiled(offered, spoil)
        takings = self.till.take(offered, at(self.block))
        self.total += takings.credit
        self.accepted += self._worth(purse, nonces, spoil)
        self.won += [winner.ticket_hash for winner in takings.winners]
        for nonce in takings.nonces:
            key = (takings.rand_hash, nonce)
            assert key not in self.credited, "a ticket was taken twice"
            self.credited[key] = purse.params.expected_value
            self.stored.append((*key, takings.expiration_block))
        if purse.params.expiration_block <= self.block:
            assert takings.credit == 0

    def _worth(self, purse: Purse, nonces: list[int], spoil: int | None) -> Fraction:
        """By its own count: good tickets up to the first that is spoiled, late or known."""
        known = {
            nonce for hash_, nonce in self.credited if hash_ == purse.params.recipient_rand_hash
        }
        worth = Fraction(0)
        for index, nonce in enumerate(nonces):
            if index == spoil or nonce in known or purse.params.expiration_block <= self.block:
                break
            known.add(nonce)
            worth += purse.params.expected_value
        return worth

    @rule()
    def restart(self) -> None:
        self.till = receiver()
        self.till.remember(self.stored)

    @rule(blocks=st.integers(1, 30))
    def time_passes(self, blocks: int) -> None:
        self.block += blocks
        self.till.advance(self.block)

    @invariant()
    def what_is_credited_is_the_worth_of_what_was_accepted(self) -> None:
        assert self.total == self.accepted
        assert self.total <= sum(self.credited.values(), Fraction(0))
        assert len(self.won) == len(set(self.won))


ReceiverMachine.TestCase.settings = settings(max_examples=25, stateful_step_count=20)
test_receiver_machine = ReceiverMachine.TestCase
