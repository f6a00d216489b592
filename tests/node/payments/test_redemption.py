"""What is decided for winning tickets, by rule and at random. Numbers: failure cases of the network."""

import dataclasses
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from typing_extensions import override

from network.chain.model import SenderInfo
from network.units import Address, Wei
from node.payments import reverts
from node.payments.gas_policy import GasPolicy, Offer, choose, gas_limit, gas_needed, is_worth
from node.payments.redemption import (
    Candidate,
    Due,
    GiveUp,
    Reason,
    Sifted,
    View,
    Wait,
    claimable_reserve,
    deadline,
    is_late,
    pause_after,
    sift,
)
from node.payments.reverts import Meaning, classify
from tests.node.payments.tickets_of import (
    ALICE,
    BOB,
    ETHER,
    SENDERS,
    candidate,
    funds,
    head,
    view,
    views,
    winners,
)

POLICY = GasPolicy(max_gas_price=Wei(10**10), deadline_blocks=20)


def only(candidates: list[Candidate], at: View) -> Due | Wait | GiveUp:
    (verdict,) = _all(sift(candidates, at, POLICY))
    return verdict


def reason(at: View, ticket: Candidate | None = None) -> str:
    verdict = only([ticket or candidate()], at)
    assert not isinstance(verdict, Due), verdict
    return verdict.reason


def test_case_05_nothing_is_revealed_before_the_parameters_have_expired() -> None:
    ticket = candidate(expiration=750)
    verdict = only([ticket], view(head(750)))
    assert isinstance(verdict, Wait)
    assert verdict.reason is Reason.PARAMS_IN_USE
    assert verdict.check_at == 751
    assert isinstance(only([ticket], view(head(751))), Due)
    # Not even in its last block before it expires.
    late = candidate(expiration=899)
    assert reason(view(head(899)), late) == Reason.PARAMS_IN_USE


@pytest.mark.parametrize(
    ("at", "expected"),
    [
        (view(head(paused=True)), Reason.PAUSED),
        (view(head(initialized=False)), Reason.ROUND_NOT_INITIALIZED),
        (view(senders={}), Reason.UNREAD),
        (view(senders={ALICE: funds(withdraw=7)}), Reason.UNLOCKED),
        (view(registered=False, active=False), Reason.NOT_REGISTERED),
        (view(senders={ALICE: funds(0)}), Reason.NO_FUNDS),
        (view(senders={ALICE: funds(ETHER // 2)}), Reason.SHORT),
        (view(senders={ALICE: funds(0, 9 * ETHER)}, active=False), Reason.NOT_ACTIVE),
        (view(head(gas_price=10**10 + 1)), Reason.GAS_ABOVE_TARGET),
        (view(head(900)), reverts.EXPIRED),
    ],
    ids=lambda value: value.name if isinstance(value, Reason) else "",
)
def test_each_obstacle_has_its_reason(at: View, expected: str) -> None:
    """Cases 8, 12, 13, 16 and 30: the reasons of everything that is waited for."""
    assert reason(at) == expected


def test_case_08_a_ticket_that_waits_holds_up_no_other() -> None:
    stuck = candidate(BOB, number=1, creation=6)
    good = candidate(ALICE, number=2)
    at = view(senders={ALICE: funds(), BOB: funds(0)})
    found = sift([stuck, good], at, POLICY)
    assert [due.candidate for due in found.due] == [good]
    assert [wait.candidate for wait in found.waiting] == [stuck]


def test_case_11_partial_payouts_are_taken_only_when_time_or_the_sender_runs_out() -> None:
    poor = {ALICE: funds(ETHER // 4)}
    assert reason(view(head(850), senders=poor)) == Reason.SHORT
    late = only([candidate()], view(head(890), senders=poor))
    assert isinstance(late, Due)
    assert late.payout == ETHER // 4
    leaving = only([candidate()], view(senders={ALICE: funds(ETHER // 4, withdraw=9)}))
    assert isinstance(leaving, Due)
    assert leaving.payout == ETHER // 4


def test_case_11_a_ticket_that_would_pay_nothing_is_never_used_up() -> None:
    assert reason(view(head(899), senders={ALICE: funds(0)})) == Reason.NO_FUNDS


def test_case_12_tickets_of_unlocking_senders_go_first() -> None:
    early = candidate(ALICE, number=1, creation=6)
    leaving = candidate(BOB, number=2, creation=7)
    at = view(senders={ALICE: funds(), BOB: funds(withdraw=8)})
    found = sift([early, leaving], at, POLICY)
    assert [due.candidate for due in found.due] == [leaving, early]
    assert found.due[0].is_pressing
    assert deadline(leaving.ticket, at) == 800, "the funds come free before the ticket expires"


def test_case_16_near_its_deadline_a_ticket_goes_whatever_the_target() -> None:
    dear = 10**12
    assert reason(view(head(850, gas_price=dear))) == Reason.GAS_ABOVE_TARGET
    verdict = only([candidate()], view(head(880, gas_price=dear)))
    assert isinstance(verdict, Due)
    assert verdict.is_pressing


def test_a_ticket_whose_transaction_failed_pauses_unless_it_is_late() -> None:
    failed = dataclasses.replace(candidate(), retry_at=100.0)
    assert reason(view(now=99.0), failed) == Reason.PAUSE
    assert isinstance(only([failed], view(now=100.0)), Due)
    assert isinstance(only([failed], view(head(890), now=99.0)), Due)
    assert [pause_after(tries) for tries in (1, 2, 7, 100)] == [60, 120, 3600, 3600]


def test_the_share_of_a_reserve_is_the_contracts_but_never_below_zero() -> None:
    info = SenderInfo(Wei(0), 0, reserve_remaining=Wei(70), reserve_claimed_in_round=Wei(31))
    assert claimable_reserve(info, Wei(0), 2, is_active=True) == 50
    assert claimable_reserve(info, Wei(31), 2, is_active=True) == 19
    assert claimable_reserve(info, Wei(31), 4, is_active=True) == 0, "the pool grew: it reverts"
    assert claimable_reserve(info, Wei(0), 2, is_active=False) == 0
    assert claimable_reserve(info, Wei(0), 0, is_active=True) == 0


@given(winners(), views())
def test_every_ticket_gets_one_verdict_and_no_wei_is_counted_twice(
    tickets: list[Candidate], at: View
) -> None:
    """Cases 5, 8 and 10: each ticket once; none revealed early; funds shared."""
    found = sift(tickets, at, POLICY)
    judged = [verdict.candidate.ticket_hash for verdict in _all(found)]
    assert Counter(judged) == Counter(ticket.ticket_hash for ticket in tickets)
    for wait in found.waiting:
        assert wait.check_at > at.head.l1_block
    for end in found.given_up:
        assert classify(end.reason) is Meaning.PERMANENT
    _check_due(found, at)


def _all(found: Sifted) -> tuple[Due | Wait | GiveUp, ...]:
    every: list[Due | Wait | GiveUp] = [*found.due, *found.waiting, *found.given_up]
    return tuple(every)


def _check_due(found: Sifted, at: View) -> None:
    paid: Counter[Address] = Counter()
    for due in found.due:
        ticket = due.candidate.ticket
        assert due.candidate.winner.params_expiration_block < at.head.l1_block
        assert at.head.current_round < ticket.creation.number + 2
        assert 0 < due.payout <= ticket.face_value
        assert due.is_pressing or due.payout == ticket.face_value
        assert due.is_pressing or at.head.gas_price <= POLICY.max_gas_price
        paid[ticket.sender] += due.payout
    for sender, amount in paid.items():
        info = at.senders[sender]
        share = claimable_reserve(info, Wei(0), at.head.pool_size, is_active=True)
        assert amount <= info.deposit + share


offers = st.lists(
    st.builds(
        lambda payout, gas: (payout, gas), st.integers(1, 10**15), st.integers(21_000, 400_000)
    ),
    max_size=30,
).map(
    lambda pairs: [
        Offer(index.to_bytes(32, "big"), Wei(payout), gas)
        for index, (payout, gas) in enumerate(pairs)
    ]
)


@given(offers, st.integers(1, 10**11), st.integers(0, 10**17))
def test_case_16_no_transaction_costs_more_than_it_pays(
    made: list[Offer], price: int, balance: int
) -> None:
    choice = choose(made, Wei(price), Wei(balance), POLICY)
    parts = (*choice.members, *choice.uneconomic, *choice.unaffordable, *choice.in_line)
    assert Counter(parts) == Counter(offer.ticket_hash for offer in made)
    members = [offer for offer in made if offer.ticket_hash in choice.members]
    assert len(members) <= POLICY.largest_batch
    if members:
        assert is_worth(members, gas_needed(members), Wei(price))
        assert gas_limit(members) * price <= balance
    elif balance >= 10**17:
        assert not any(o.payout > o.gas * price for o in made), "one was worth it, and affordable"


def test_case_16_several_go_together_where_alone_none_would_pay() -> None:
    made = [Offer(bytes([i]) * 32, Wei(150_000), 200_000) for i in range(3)]
    assert len(choose(made, Wei(1), Wei(10**9), POLICY).members) == 3
    assert choose(made[:1], Wei(1), Wei(10**9), POLICY).uneconomic == (bytes(32),)
    assert len(choose(made, Wei(1), Wei(100), POLICY).in_line) == 0


def test_without_ether_for_gas_tickets_wait_for_it() -> None:
    made = [Offer(bytes(32), Wei(ETHER), 200_000)]
    assert choose(made, Wei(1), Wei(0), POLICY).unaffordable == (bytes(32),)


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("system is paused", Meaning.WAIT),
        ("current round is not initialized", Meaning.WAIT),
        ("ticket recipient is null address", Meaning.PERMANENT),
        ("ticket sender is null address", Meaning.PERMANENT),
        ("invalid length for ticket auxData: must be 64 bytes", Meaning.PERMANENT),
        ("ticket creationRound does not have a block hash", Meaning.WAIT),
        ("ticket creationRoundBlockHash invalid for creationRound", Meaning.PERMANENT),
        ("ticket is expired", Meaning.PERMANENT),
        ("recipientRand does not match recipientRandHash", Meaning.PERMANENT),
        ("ticket is used", Meaning.USED),
        ("INVALID_SIGNATURE_LENGTH", Meaning.PERMANENT),
        ("ECDSA: invalid signature 'v' value", Meaning.PERMANENT),
        ("ECDSA: invalid signature 's' value", Meaning.PERMANENT),
        ("invalid signature over ticket hash", Meaning.PERMANENT),
        ("ticket did not win", Meaning.PERMANENT),
        ("sender is unlocked", Meaning.WAIT),
        ("sender deposit and reserve are zero", Meaning.WAIT),
        ("transcoder must be registered", Meaning.WAIT),
        ("", Meaning.RETRY),
        ("something new after an upgrade", Meaning.RETRY),
    ],
)
def test_case_08_every_refusal_has_a_meaning(text: str, meaning: Meaning) -> None:
    assert classify(text) is meaning


class TicketLives(RuleBasedStateMachine):
    """Cases 8 and 20: whatever the chain does, each ticket is paid, or ends with a permanent reason.

    The chain here is the rule of the contracts, small: a redemption pays from the deposit, once.
    """

    @initialize(
        tickets=winners(), deposits=st.lists(st.integers(0, 5 * ETHER), min_size=3, max_size=3)
    )
    def begin(self, tickets: list[Candidate], deposits: list[int]) -> None:
        self.block = 700
        self.open = {ticket.ticket_hash: ticket for ticket in tickets}
        self.all = dict(self.open)
        self.deposits = dict(zip(SENDERS, deposits, strict=True))
        self.withdraw = dict.fromkeys(SENDERS, 0)
        self.paid: dict[bytes, int] = {}
        self.written_off: dict[bytes, str] = {}
        self.is_paused, self.is_initialized, self.gas_price = False, True, 1
        self.verdicts: Sifted = Sifted((), (), ())

    @rule(blocks=st.integers(1, 40))
    def mine(self, blocks: int) -> None:
        self.block += blocks

    @rule(
        paused=st.booleans(), initialized=st.booleans(), gas=st.sampled_from([1, 10**10, 10**12])
    )
    def weather(self, *, paused: bool, initialized: bool, gas: int) -> None:
        self.is_paused, self.is_initialized, self.gas_price = paused, initialized, gas

    @rule(sender=st.sampled_from(SENDERS), amount=st.integers(0, ETHER))
    def fund(self, sender: Address, amount: int) -> None:
        self.deposits[sender] += amount
        self.withdraw[sender] = 0

    @rule(sender=st.sampled_from(SENDERS))
    def unlock(self, sender: Address) -> None:
        self.withdraw[sender] = self.withdraw[sender] or self.block // 100 + 2

    @rule(sender=st.sampled_from(SENDERS))
    def pay_another(self, sender: Address) -> None:
        self.deposits[sender] //= 2

    @rule()
    def redeem(self) -> None:
        at = self.now()
        self.verdicts = sift(list(self.open.values()), at, POLICY)
        for end in self.verdicts.given_up:
            self.written_off[end.candidate.ticket_hash] = end.reason
            del self.open[end.candidate.ticket_hash]
        offers = [
            Offer(due.candidate.ticket_hash, due.payout, 200_000) for due in self.verdicts.due
        ]
        choice = choose(offers, at.head.gas_price, Wei(10**24), POLICY)
        for due in self.verdicts.due:
            ticket = due.candidate.ticket
            if due.candidate.ticket_hash not in choice.members:
                continue
            amount = min(ticket.face_value, self.deposits[ticket.sender])
            # More where a ticket before it was counted on and not chosen.
            assert amount >= due.payout, "it pays what was expected"
            self.deposits[ticket.sender] -= amount
            self.paid[due.candidate.ticket_hash] = amount
            del self.open[due.candidate.ticket_hash]
        left = {*choice.uneconomic, *choice.in_line}
        waiting = {wait.candidate.ticket_hash for wait in self.verdicts.waiting}
        assert set(self.open) == left | waiting, "each that is left has a reason"

    def now(self) -> View:
        at = head(
            self.block,
            gas_price=self.gas_price,
            initialized=self.is_initialized,
            paused=self.is_paused,
        )
        senders = {
            sender: funds(deposit, withdraw=self.withdraw[sender])
            for sender, deposit in self.deposits.items()
        }
        return view(at, senders=senders)

    @invariant()
    def every_ticket_is_somewhere(self) -> None:
        assert set(self.all) == {*self.open, *self.paid, *self.written_off}
        assert not set(self.paid) & set(self.written_off)
        assert len(self.open) + len(self.paid) + len(self.written_off) == len(self.all)

    @override
    def teardown(self) -> None:
        """In the end the weather is fair: what is left is redeemed, or expires and says so."""
        self.is_paused, self.is_initialized, self.gas_price = False, True, 1
        for _ in range(30):
            self.block += 10
            self.redeem()
        assert not self.open
        for why in self.written_off.values():
            assert classify(why) is Meaning.PERMANENT


TestTicketLives = TicketLives.TestCase


def test_late_is_two_hours_or_half_a_round() -> None:
    policy = GasPolicy()
    ticket = candidate().ticket
    assert not is_late(ticket, view(head(849)), policy)
    assert is_late(ticket, view(head(850)), policy), "half of a round that is shorter than that"
