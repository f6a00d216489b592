"""What is spent and held never exceeds a limit, and periods begin anew."""

from datetime import UTC, datetime
from fractions import Fraction
from itertools import product
from math import ceil
from operator import itemgetter
from typing import ClassVar

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from typing_extensions import override

from gateway.payments.allowance import (
    Allowance,
    Allowances,
    Exceeded,
    Limit,
    Period,
    Spent,
    Unit,
    Unvalued,
)
from network.dollars import AttoUsd, parse_usd
from network.units import Wei

DAY = 86_400.0
ETH = Wei(10**18)
NOON = datetime(2026, 11, 24, 12, tzinfo=UTC).timestamp()


def allowance(day: int | None = None, month: int | None = None, holder: str = "k") -> Allowance:
    return Allowance(
        holder,
        "This key",
        None if day is None else Wei(day),
        None if month is None else Wei(month),
    )


@given(st.integers(0, 4_000_000_000))
def test_a_time_lies_in_its_period_and_the_next_begins_where_it_ends(now: int) -> None:
    for period in Period:
        begin, end = period.begin(now), period.end(now)
        assert begin <= now < end
        assert period.begin(end) == end
        assert period.end(begin) == end
    assert Period.DAY.end(now) - Period.DAY.begin(now) == DAY
    began = datetime.fromtimestamp(Period.MONTH.begin(now), UTC)
    assert (began.day, began.hour, began.minute, began.second) == (1, 0, 0, 0)


def test_a_refusal_tells_what_is_spent_held_and_when_it_resets() -> None:
    allowances = Allowances()
    allowances.restore([Spent("k", NOON - 100, Wei(40))])
    assert allowances.hold("a", [allowance(100)], Wei(50), NOON) is None
    exceeded = allowances.hold("b", [allowance(100)], Wei(11), NOON)
    assert isinstance(exceeded, Exceeded)
    assert (exceeded.spent, exceeded.held, exceeded.limit.amount) == (40, 50, 100)
    assert exceeded.resets_at == Period.DAY.end(NOON)
    assert allowances.hold("b", [allowance(100)], Wei(10), NOON) is None


def test_a_new_day_begins_with_nothing_spent_but_the_month_remembers() -> None:
    allowances = Allowances()
    both = [allowance(day=100, month=150)]
    assert allowances.hold("a", both, Wei(100), NOON) is None
    allowances.settle("a", Wei(100), NOON)
    assert allowances.hold("b", both, Wei(1), NOON) is not None
    exceeded = allowances.hold("b", both, Wei(51), NOON + DAY)
    assert isinstance(exceeded, Exceeded)
    assert exceeded.limit.period is Period.MONTH
    assert allowances.hold("b", both, Wei(50), NOON + DAY) is None


def test_either_all_holders_allow_it_or_none_is_charged() -> None:
    allowances = Allowances()
    key, team = allowance(100, holder="k"), allowance(10, holder="t")
    assert allowances.hold("a", [key, team], Wei(11), NOON) is not None
    assert allowances.hold("b", [key], Wei(100), NOON) is None


def test_what_a_request_holds_is_replaced_not_added() -> None:
    allowances = Allowances()
    assert allowances.hold("a", [allowance(100)], Wei(60), NOON) is None
    assert allowances.hold("a", [allowance(100)], Wei(100), NOON) is None
    assert allowances.hold("a", [allowance(100)], Wei(30), NOON) is None
    assert allowances.hold("b", [allowance(100)], Wei(70), NOON) is None
    allowances.validate()


def test_a_budget_in_dollars_goes_by_the_rate_at_which_each_request_was_held() -> None:
    allowances = Allowances()
    five = [Allowance("k", "This key", usd_per_day=parse_usd("5 usd"))]
    assert allowances.hold("a", five, ETH, NOON, Fraction(3)) is None
    # The price doubles: what is held stays as it is, and what comes now costs more.
    exceeded = allowances.hold("b", five, ETH, NOON, Fraction(6))
    assert isinstance(exceeded, Exceeded)
    assert exceeded.limit == Limit(Period.DAY, Unit.USD, parse_usd("5 usd"))
    assert (exceeded.spent, exceeded.held) == (0, parse_usd("3 usd"))
    assert exceeded.cost == parse_usd("6 usd")
    assert allowances.settle("a", Wei(ETH // 2), NOON) == parse_usd("1.5 usd")
    assert allowances.spent("k", Period.DAY, NOON, Unit.USD) == parse_usd("1.5 usd")
    assert allowances.spent("k", Period.DAY, NOON) == ETH // 2
    assert allowances.held("k", Unit.USD) == 0


def test_a_request_that_is_held_anew_goes_by_the_newer_rate() -> None:
    allowances = Allowances()
    five = [Allowance("k", "This key", usd_per_day=parse_usd("5 usd"))]
    assert allowances.hold("a", five, ETH, NOON, Fraction(5)) is None
    assert isinstance(allowances.hold("a", five, ETH, NOON, Fraction(6)), Exceeded)
    assert allowances.hold("a", five, ETH, NOON, Fraction(4)) is None
    assert allowances.settle("a", ETH, NOON) == parse_usd("4 usd")


def test_without_a_rate_only_what_costs_nothing_is_held_against_dollars() -> None:
    allowances = Allowances()
    key = Allowance("k", "This key", wei_per_day=Wei(ETH))
    team = Allowance("t", "The team", usd_per_month=parse_usd("5 usd"))
    assert allowances.hold("a", [key, team], Wei(1), NOON) == Unvalued(team)
    assert allowances.held("k") == 0
    assert allowances.hold("a", [key, team], Wei(0), NOON) is None
    assert allowances.hold("b", [key], ETH, NOON) is None
    assert allowances.settle("b", ETH, NOON) is None
    allowances.validate()


RATES = st.one_of(
    st.none(),
    # As a feed of eight decimals tells them, but for a dollar or so: amounts here are some wei.
    st.integers(1, 3 * 10**8).map(lambda units: Fraction(units, 10**8)),
)


def test_what_it_held_of_one_holder_is_no_room_with_another() -> None:
    allowances = Allowances()
    key, team = allowance(100, holder="k"), allowance(100, holder="t")
    assert allowances.hold("a", [key], Wei(100), NOON) is None
    assert allowances.hold("b", [team], Wei(100), NOON) is None
    # As for a key that joins a team between two attempts of its request.
    assert allowances.hold("a", [key, team], Wei(1), NOON) is not None
    allowances.validate()


class Spending(RuleBasedStateMachine):
    """Two keys of one team, with limits in wei and dollars, against the sums of what happened.

    The rate moves at random; now and then the process dies, and the next has only what was settled.
    """

    LIMITS: ClassVar = {
        "k1": Allowance("k1", "k1", Wei(16), Wei(40), AttoUsd(16), AttoUsd(40)),
        "k2": Allowance("k2", "k2", None, None, None, AttoUsd(30)),
        "team": Allowance("team", "team", None, Wei(60), AttoUsd(24), None),
    }

    def __init__(self) -> None:
        super().__init__()
        self.allowances = Allowances()
        self.now = NOON
        self.rate: Fraction | None = Fraction(1)
        #: Key, amount, and the rate at which it was held.
        self.held: dict[str, tuple[str, int, Fraction | None]] = {}
        #: What the journal has: key, time, fee, dollars.
        self.settled: list[tuple[str, float, int, int | None]] = []

    @rule(rate=RATES)
    def move_the_price(self, rate: Fraction | None) -> None:
        self.rate = rate

    @rule(
        request=st.sampled_from("abcd"),
        key=st.sampled_from(["k1", "k2"]),
        amount=st.integers(0, 12),
    )
    def hold(self, request: str, key: str, amount: int) -> None:
        if request in self.held and self.held[request][0] != key:
            return
        holders = [self.LIMITS[key], self.LIMITS["team"]]
        refusal = self.allowances.hold(request, holders, Wei(amount), self.now, self.rate)
        if refusal is None:
            self.held[request] = (key, amount, self.rate)
            assert self.rate is not None or not amount, "nobody knows whether it is within a limit"
        elif isinstance(refusal, Unvalued):
            assert self.rate is None
            assert amount
        else:
            totals = self._totals(refusal.allowance.holder, refusal.limit, but=request)
            assert totals == (refusal.spent, refusal.held)
            assert sum(totals) + refusal.cost > refusal.limit.amount

    @rule(request=st.sampled_from("abcd"), share=st.fractions(0, 1))
    def settle(self, request: str, share: Fraction) -> None:
        key, amount, rate = self.held.pop(request, ("", 0, None))
        fee = int(amount * share)
        usd = self.allowances.settle(request, Wei(fee), self.now)
        assert usd == (None if rate is None else ceil(fee * rate))
        if key:
            self.settled.append((key, self.now, fee, usd))

    @rule(request=st.sampled_from("abcd"))
    def release(self, request: str) -> None:
        self.held.pop(request, None)
        self.allowances.release(request)

    @rule(hours=st.integers(1, 30))
    def wait(self, hours: int) -> None:
        self.now += hours * 3600

    @rule()
    def die_and_restart(self) -> None:
        """As the journal tells it: by day."""
        restored = Allowances()
        restored.restore(
            Spent(holder, at // DAY * DAY, Wei(fee), AttoUsd(usd or 0))
            for key, at, fee, usd in sorted(self.settled, key=itemgetter(0))
            for holder in (key, "team")
            if at >= Period.MONTH.begin(self.now)
        )
        for holder, period, unit in product(self.LIMITS, Period, Unit):
            before = self.allowances.spent(holder, period, self.now, unit)
            assert restored.spent(holder, period, self.now, unit) == before
        self.allowances = restored
        self.held.clear()

    def _totals(self, holder: str, limit: Limit, but: str = "") -> tuple[int, int]:
        """Spent and held in the limit's unit, `but` for what one request holds."""
        mine = {"k1", "k2"} if holder == "team" else {holder}
        begin = limit.period.begin(self.now)
        settled = [one[2:] for one in self.settled if one[0] in mine and one[1] >= begin]
        held = [one for name, one in self.held.items() if one[0] in mine and name != but]
        if limit.unit is Unit.WEI:
            return sum(fee for fee, _ in settled), sum(amount for _, amount, _ in held)
        reserved = sum(ceil(amount * (rate or 0)) for _, amount, rate in held)
        return sum(usd or 0 for _, usd in settled), reserved

    @invariant()
    def nothing_exceeds_a_limit(self) -> None:
        for holder, allowance in self.LIMITS.items():
            for limit in allowance.limits():
                spent, held = self._totals(holder, limit)
                assert self.allowances.spent(holder, limit.period, self.now, limit.unit) == spent
                assert self.allowances.held(holder, limit.unit) == held
                assert spent + held <= limit.amount

    @override
    def teardown(self) -> None:
        self.allowances.validate()


TestSpending = Spending.TestCase
