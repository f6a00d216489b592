"""Places are counted exactly, whatever happens to those who hold them."""

from contextlib import ExitStack

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from gateway.api.admission import Admission
from gateway.keys import KeyGrant
from network.errors import ProblemError

KEYS = {name: KeyGrant(name, name, max_in_flight=most) for name, most in (("a", None), ("b", 2))}
TOTAL, PER_KEY = 5, 3


class Places(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.admission = Admission(total=TOTAL, per_key=PER_KEY)
        self.held: list[tuple[str, ExitStack]] = []

    def of(self, name: str) -> int:
        return sum(key == name for key, _ in self.held)

    @rule(name=st.sampled_from(sorted(KEYS)))
    def enter(self, name: str) -> None:
        most = KEYS[name].max_in_flight or PER_KEY
        place = ExitStack()
        try:
            place.enter_context(self.admission.place(KEYS[name]))
        except ProblemError as error:
            refusal = error.problem
        else:
            self.held.append((name, place))
            return
        assert refusal.status == (429 if self.of(name) >= most else 503)
        assert int(refusal.headers["Retry-After"]) >= 1
        assert self.of(name) >= most or len(self.held) >= TOTAL

    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        if self.held:
            _, place = self.held.pop(data.draw(st.integers(0, len(self.held) - 1)))
            place.close()

    @invariant()
    def counts_are_exact(self) -> None:
        assert self.admission.in_flight == len(self.held) <= TOTAL
        assert all(self.of(name) <= (KEYS[name].max_in_flight or PER_KEY) for name in KEYS)


TestPlaces = Places.TestCase


def test_a_place_is_given_back_when_its_holder_fails() -> None:
    admission = Admission(total=1, per_key=1)
    with pytest.raises(RuntimeError), admission.place(KEYS["a"]):
        raise RuntimeError
    assert admission.in_flight == 0
