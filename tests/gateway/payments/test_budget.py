"""Reservations never exceed their limits, and every repetition is harmless."""

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from typing_extensions import override

from gateway.payments.budget import Budget, Held, Limits, NotHeld, Shortfall
from network.units import Wei

LIMITS = Limits(max_wei_in_flight=Wei(1000), max_requests_per_key=3)
REQUESTS = st.integers(0, 9).map("r{}".format)
KEYS = st.sampled_from(["k0", "k1"])


class Reserving(RuleBasedStateMachine):
    """Requests that come, promise and go, against a model of plain dictionaries."""

    def __init__(self) -> None:
        super().__init__()
        self.budget = Budget(LIMITS)
        self.held: dict[str, int] = {}
        self.keys: dict[str, str] = {}

    @rule(request=REQUESTS, key=KEYS)
    def a_request_comes(self, request: str, key: str) -> None:
        outcome = self.budget.open(request, key, None)
        mine = sum(owner == key for owner in self.keys.values())
        if request in self.keys:
            assert outcome == NotHeld(Shortfall.IN_FLIGHT, 1)
        elif mine == 3:
            assert outcome == NotHeld(Shortfall.KEY_REQUESTS, 3)
        else:
            assert outcome == Held(Wei(0))
            self.keys[request], self.held[request] = key, 0

    @precondition(lambda self: bool(self.held))
    @rule(data=st.data(), amount=st.integers(0, 1200))
    def it_promises(self, data: st.DataObject, amount: int) -> None:
        request = data.draw(st.sampled_from(sorted(self.held)))
        total = sum(self.held.values()) - self.held[request] + amount
        outcome = self.budget.hold(request, Wei(amount))
        if amount > self.held[request] and total > 1000:
            assert outcome == NotHeld(Shortfall.GATEWAY_WEI, 1000)
        else:
            assert outcome == Held(Wei(amount))
            self.held[request] = amount

    @rule(request=REQUESTS)
    def it_goes(self, request: str) -> None:
        assert self.budget.release(request) == self.held.pop(request, 0)
        self.keys.pop(request, None)
        assert self.budget.release(request) == 0

    @invariant()
    def the_sums_are_right(self) -> None:
        self.budget.validate()
        assert self.budget.total == sum(self.held.values()) <= 1000
        for key in ("k0", "k1"):
            assert self.budget.in_flight(key) == sum(k == key for k in self.keys.values()) <= 3

    @override
    def teardown(self) -> None:
        for request in list(self.keys):
            self.budget.release(request)
        self.budget.validate()
        assert self.budget.total == 0


TestReserving = Reserving.TestCase


def test_a_key_may_have_a_limit_of_its_own() -> None:
    budget = Budget(LIMITS)
    assert isinstance(budget.open("r0", "k", 1), Held)
    assert budget.open("r1", "k", 1) == NotHeld(Shortfall.KEY_REQUESTS, 1)


def test_a_budget_out_of_balance_is_noticed() -> None:
    budget = Budget(Limits())
    budget.open("r", "k", None)
    budget._total = 5
    with pytest.raises(AssertionError):
        budget.validate()
