"""Balances against a model of the books of a node."""

from fractions import Fraction

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from gateway.payments.balances import Account, Balances, Stake
from network.units import Address, ModelId, Wei

HERE = Account(Address(b"\x01" * 20), "http://one", ModelId("m"))
ELSEWHERE = HERE._replace(node="http://two")
#: Ticket values that are no whole wei, as those of real tickets.
VALUES = st.fractions(Fraction(1), Fraction(50), max_denominator=7)
FEES = st.integers(0, 200).map(Wei)


@pytest.mark.parametrize(
    ("existing", "least", "value", "tickets", "credit"),
    [
        (Fraction(2), 2, Fraction(2), 0, 0),
        (Fraction(1), 5, Fraction(1), 4, 4),
        (Fraction(1, 4), 2, Fraction(1), 2, 2),
        (Fraction(-5), 2, Fraction(1), 7, 7),
        (Fraction(0), 2, Fraction(1), 2, 2),
        # At least one ticket's value is kept.
        (Fraction(0), 4, Fraction(5), 1, 5),
        (Fraction(0), 10, Fraction(5), 2, 10),
    ],
)
def test_tickets_and_credit_are_those_of_livepeers_gateways(
    existing: Fraction, least: int, value: Fraction, tickets: int, credit: int
) -> None:
    balances = Balances()
    balances.restore(HERE, existing)
    assert balances.take("a", HERE, Wei(least), value) == Stake(
        HERE, existing, tickets, Fraction(credit)
    )
    balances.undo("a")
    assert balances.available(HERE) == existing


def test_an_attempt_takes_only_what_it_needs() -> None:
    balances = Balances()
    balances.restore(HERE, Fraction(100))
    stakes = [balances.take(str(n), HERE, Wei(30), Fraction(8)) for n in range(4)]
    assert [stake.taken for stake in stakes] == [30, 30, 30, 10]
    assert [stake.tickets for stake in stakes] == [0, 0, 0, 3]


def test_a_balance_that_was_denied_is_given_up_but_for_what_was_credited() -> None:
    balances = Balances()
    balances.restore(HERE, Fraction(100))
    balances.take("a", HERE, Wei(30), Fraction(8))
    assert balances.distrust(HERE) == 70
    assert balances.confirm("a", Fraction(8), Wei(0), is_balance_known=False) == 30
    assert balances.available(HERE) == 8
    assert balances.confirm("a", Fraction(8), Wei(0)) is None


def test_nothing_below_zero_is_believed() -> None:
    balances = Balances()
    balances.take("a", HERE, Wei(1), Fraction(1))
    with pytest.raises(ValueError, match="below 0"):
        balances.confirm("a", Fraction(-1), Wei(0))
    assert balances.stake("a") is not None


class BothSides(RuleBasedStateMachine):
    """Attempts that overlap, and a node of ours that credits, charges and tells."""

    attempts: Bundle[str] = Bundle("attempts")
    closed: Bundle[str] = Bundle("closed")

    def __init__(self) -> None:
        super().__init__()
        self.balances = Balances()
        self.books = {HERE: Fraction(0), ELSEWHERE: Fraction(0)}
        #: Credit that a node may have and we do not count on any more.
        self.given_up = {HERE: Fraction(0), ELSEWHERE: Fraction(0)}
        self.fees: dict[str, Wei] = {}
        self.count = 0

    @rule(target=attempts, account=st.sampled_from([HERE, ELSEWHERE]), fee=FEES, value=VALUES)
    def begin(self, account: Account, fee: Wei, value: Fraction) -> str:
        self.count += 1
        attempt_id = str(self.count)
        before = self.balances.available(account)
        stake = self.balances.take(attempt_id, account, fee, value)
        # It has enough, takes nothing that is not there, and no ticket too many.
        least = max(Fraction(fee), value)
        assert stake.taken + stake.credit >= least
        assert stake.tickets == 0 or stake.taken + stake.credit - value < least
        assert 0 <= stake.taken <= before
        assert self.balances.take(attempt_id, account, fee, value) == stake
        self.fees[attempt_id] = fee
        return attempt_id

    @rule(
        attempt_id=consumes(attempts), charge=st.booleans(), part=st.integers(0, 4), target=closed
    )
    def told(self, attempt_id: str, part: int, *, charge: bool) -> str:
        """It delivered, or refused after crediting some of the tickets."""
        stake = self.balances.stake(attempt_id)
        assert stake is not None
        share = min(part, stake.tickets)
        credited = (
            stake.credit if charge or not stake.tickets else stake.credit * share / stake.tickets
        )
        charged = self.fees[attempt_id] if charge else Wei(0)
        self.books[stake.account] += credited - charged
        assert self.balances.confirm(attempt_id, credited, charged) == 0
        return attempt_id

    @rule(attempt_id=consumes(attempts), target=closed)
    def unsent(self, attempt_id: str) -> str:
        assert self.balances.undo(attempt_id)
        return attempt_id

    @rule(attempt_id=consumes(attempts), target=closed, was_charged=st.booleans())
    def lost(self, attempt_id: str, *, was_charged: bool) -> str:
        """The node credited, may have delivered, and does not tell."""
        stake = self.balances.stake(attempt_id)
        assert stake is not None
        charged = self.fees[attempt_id] if was_charged else 0
        self.books[stake.account] += stake.credit - charged
        given_up = self.balances.lose(attempt_id)
        assert given_up == stake.taken
        self.given_up[stake.account] += given_up + stake.credit - charged
        return attempt_id

    @rule(attempt_id=closed, fee=FEES)
    def again(self, attempt_id: str, fee: Wei) -> None:
        """Whatever is repeated changes nothing."""
        before = dict(self.balances._available)
        assert self.balances.confirm(attempt_id, Fraction(5), fee) is None
        assert self.balances.lose(attempt_id) is None
        assert not self.balances.undo(attempt_id)
        assert self.balances._available == before

    @invariant()
    def both_sides_agree(self) -> None:
        for account, amount in self.books.items():
            held = sum(
                stake.taken for stake in self.balances._stakes.values() if stake.account == account
            )
            ours = self.balances.available(account) + held
            assert ours == amount - self.given_up[account]
            assert self.balances.available(account) >= 0
        assert self.balances.total == sum(self.books.values()) - sum(self.given_up.values())


TestBothSides = BothSides.TestCase
