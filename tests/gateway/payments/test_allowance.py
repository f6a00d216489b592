"""What is spent and held never exceeds a limit, and periods begin anew."""

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from typing_extensions import override

from gateway.payments.allowance import Allowance, Allowances, Exceeded, Period, Spent
from network.units import Wei

DAY = 86_400.0
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
    assert (exceeded.spent, exceeded.held, exceeded.limit) == (40, 50, 100)
    assert exceeded.resets_at == Period.DAY.end(NOON)
    assert allowances.hold("b", [allowance(100)], Wei(10), NOON) is None


def test_a_new_day_begins_with_nothing_spent_but_the_month_remembers() -> None:
    allowances = Allowances()
    both = [allowance(day=100, month=150)]
    assert allowances.hold("a", both, Wei(100), NOON) is None
    allowances.settle("a", Wei(100), NOON)
    assert allowances.hold("b", both, Wei(1), NOON) is not None
    exceeded = allowances.hold("b", both, Wei(51), NOON + DAY)
    assert exceeded is not None
    assert exceeded.period is Period.MONTH
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


class Spending(RuleBasedStateMachine):
    """Two keys of one team, against the sums of what was settled and what is held."""

    def __init__(self) -> None:
        super().__init__()
        self.allowances = Allowances()
        self.now = NOON
        self.held: dict[str, tuple[str, int]] = {}
        self.settled: list[tuple[str, float, int]] = []

    def _limits(self, key: str) -> list[Allowance]:
        return [allowance(60, 150, key), allowance(100, 200, "team")]

    @rule(
        request=st.sampled_from("abcd"),
        key=st.sampled_from(["k1", "k2"]),
        amount=st.integers(0, 70),
    )
    def hold(self, request: str, key: str, amount: int) -> None:
        if request in self.held and self.held[request][0] != key:
            return
        if self.allowances.hold(request, self._limits(key), Wei(amount), self.now) is None:
            self.held[request] = (key, amount)

    @rule(request=st.sampled_from("abcd"))
    def settle(self, request: str) -> None:
        key, amount = self.held.pop(request, ("", 0))
        self.allowances.settle(request, Wei(amount), self.now)
        if key:
            self.settled.append((key, self.now, amount))

    @rule(request=st.sampled_from("abcd"))
    def release(self, request: str) -> None:
        self.held.pop(request, None)
        self.allowances.release(request)

    @rule(hours=st.integers(1, 30))
    def wait(self, hours: int) -> None:
        self.now += hours * 3600

    @invariant()
    def nothing_exceeds_a_limit(self) -> None:
        for holder, limits in (("k1", (60, 150)), ("k2", (60, 150)), ("team", (100, 200))):
            mine = {"k1", "k2"} if holder == "team" else {holder}
            for period, limit in zip(Period, limits, strict=True):
                begin = period.begin(self.now)
                spent = sum(a for key, at, a in self.settled if key in mine and at >= begin)
                assert self.allowances.spent(holder, period, self.now) == spent
                held = sum(a for key, a in self.held.values() if key in mine)
                # What was held before midnight counts for the day in which it is settled.
                assert spent + held <= limit or held

    @override
    def teardown(self) -> None:
        self.allowances.validate()
        restored = Allowances()
        spending = [Spent(key, at, Wei(amount)) for key, at, amount in self.settled]
        restored.restore(spending)
        for period in Period:
            for key in ("k1", "k2"):
                assert restored.spent(key, period, self.now) == self.allowances.spent(
                    key, period, self.now
                )


TestSpending = Spending.TestCase
