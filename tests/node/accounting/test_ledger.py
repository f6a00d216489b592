from fractions import Fraction

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from network.units import Address, JobId, Wei
from node.accounting.ledger import Accepted, Account, HoldState, Insufficient, Ledger, Repeated

ALICE = Address(b"\xaa" * 20)
BOB = Address(b"\xbb" * 20)
JOB = JobId("job")


def test_a_settled_job_is_charged_once_and_the_rest_is_free_again() -> None:
    ledger = Ledger(overdraft=None)
    assert ledger.reserve(JOB, ALICE, Wei(10)) == Accepted()
    assert ledger.accounts[ALICE].held == 10
    assert ledger.settle(JOB, Wei(7)) == Accepted()
    assert isinstance(ledger.settle(JOB, Wei(7)), Repeated)
    assert isinstance(ledger.release(JOB), Repeated)
    assert ledger.accounts[ALICE] == Account(Fraction(0), Wei(0), Wei(7))


def test_a_released_job_costs_nothing_and_cannot_be_settled_later() -> None:
    ledger = Ledger(overdraft=None)
    ledger.reserve(JOB, ALICE, Wei(10))
    ledger.release(JOB)
    repeated = ledger.settle(JOB, Wei(10))
    assert isinstance(repeated, Repeated)
    assert repeated.hold.state is HoldState.RELEASED
    assert ledger.accounts[ALICE] == Account()


def test_a_repeated_reservation_holds_nothing_more() -> None:
    ledger = Ledger(overdraft=None)
    ledger.reserve(JOB, ALICE, Wei(10))
    assert isinstance(ledger.reserve(JOB, BOB, Wei(99)), Repeated)
    assert ledger.accounts[ALICE].held == 10
    assert BOB not in ledger.accounts


def test_a_payer_without_overdraft_spends_what_was_paid_in_and_no_more() -> None:
    ledger = Ledger(overdraft=Wei(0))
    assert ledger.reserve(JOB, ALICE, Wei(10)) == Insufficient(Wei(10))
    ledger.credit(ALICE, Fraction(15))
    assert ledger.reserve(JOB, ALICE, Wei(10)) == Accepted()
    assert ledger.reserve(JobId("next"), ALICE, Wei(10)) == Insufficient(Wei(5))


def test_a_charge_above_the_reservation_is_refused() -> None:
    ledger = Ledger(overdraft=None)
    ledger.reserve(JOB, ALICE, Wei(10))
    with pytest.raises(ValueError, match="more than the 10 held"):
        ledger.settle(JOB, Wei(11))


def test_an_open_hold_is_never_forgotten() -> None:
    ledger = Ledger(overdraft=None)
    ledger.reserve(JOB, ALICE, Wei(10))
    ledger.forget(JOB)
    assert ledger.hold(JOB) is not None
    ledger.settle(JOB, Wei(10))
    ledger.forget(JOB)
    assert ledger.hold(JOB) is None
    assert ledger.accounts[ALICE].charged == 10


class LedgerMachine(RuleBasedStateMachine):
    """Conserves money: what came in is free, held or charged, whatever is repeated in any order."""

    @initialize(overdraft=st.one_of(st.none(), st.integers(0, 50)))
    def begin(self, overdraft: int | None) -> None:
        self.ledger = Ledger(None if overdraft is None else Wei(overdraft))
        self.paid = Fraction(0)
        self.open: dict[JobId, int] = {}
        self.charged: dict[JobId, int] = {}
        self.seen: list[JobId] = []

    @rule(payer=st.sampled_from([ALICE, BOB]), amount=st.fractions(0, 10**20))
    def credit(self, payer: Address, amount: Fraction) -> None:
        self.ledger.credit(payer, amount)
        self.paid += amount

    @rule(number=st.integers(0, 8), payer=st.sampled_from([ALICE, BOB]), amount=st.integers(0, 99))
    def reserve(self, number: int, payer: Address, amount: int) -> None:
        job_id = JobId(str(number))
        outcome = self.ledger.reserve(job_id, payer, Wei(amount))
        if isinstance(outcome, Accepted):
            assert job_id not in self.seen
            self.seen.append(job_id)
            self.open[job_id] = amount
        elif isinstance(outcome, Repeated):
            assert job_id in self.seen

    @rule(pick=st.integers(0, 8), part=st.integers(0, 100))
    def settle(self, pick: int, part: int) -> None:
        if not self.seen:
            return
        job_id = self.seen[pick % len(self.seen)]
        amount = self.open.get(job_id, 0) * part // 100
        if isinstance(self.ledger.settle(job_id, Wei(amount)), Accepted):
            del self.open[job_id]
            assert job_id not in self.charged
            self.charged[job_id] = amount

    @rule(pick=st.integers(0, 8))
    def release(self, pick: int) -> None:
        if self.seen:
            job_id = self.seen[pick % len(self.seen)]
            if isinstance(self.ledger.release(job_id), Accepted):
                del self.open[job_id]

    @invariant()
    def nothing_is_lost_or_made(self) -> None:
        self.ledger.validate()
        accounts = self.ledger.accounts.values()
        assert sum(account.credited for account in accounts) == self.paid
        assert sum(account.held for account in accounts) == sum(self.open.values())
        assert sum(account.charged for account in accounts) == sum(self.charged.values())
        assert sum(account.available for account in accounts) == self.paid - sum(
            self.open.values()
        ) - sum(self.charged.values())


TestLedgerMachine = LedgerMachine.TestCase
TestLedgerMachine.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
