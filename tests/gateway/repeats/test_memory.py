"""The answers that are remembered: bounded, and no longer than their images are there."""

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from gateway.repeats.memory import Memory, Remembered
from network.units import Wei

MOST, LIFETIME = 3, 10.0
digests = st.sampled_from([bytes([n]) for n in range(6)])


def answer(at: float, number: int = 0) -> Remembered:
    return Remembered(f"r{number}", (), Wei(1), f"http://o{number % 3}", "", at)


class MemoryMachine(RuleBasedStateMachine):
    """Against a list of all that was put in, the most lately used at its end."""

    def __init__(self) -> None:
        super().__init__()
        self.memory = Memory(most=MOST, lifetime=LIFETIME)
        self.model: list[tuple[bytes, Remembered]] = []
        self.now = 100.0
        self.count = 0

    def known(self, digest: bytes) -> Remembered | None:
        return next((one for name, one in self.model if name == digest), None)

    @rule(digest=digests)
    def put(self, digest: bytes) -> None:
        self.count += 1
        one = answer(self.now, self.count)
        self.memory.put(digest, one)
        self.model = [pair for pair in self.model if pair[0] != digest] + [(digest, one)]
        self.model = self.model[-MOST:]

    @rule(digest=digests)
    def find(self, digest: bytes) -> None:
        expected = self.known(digest)
        self.model = [pair for pair in self.model if pair[0] != digest]
        if expected is not None and self.now - expected.stored_at >= LIFETIME:
            expected = None
        if expected is not None:
            self.model.append((digest, expected))
        assert self.memory.find(digest, self.now) is expected

    @rule(digest=digests, is_old=st.booleans())
    def forget(self, digest: bytes, *, is_old: bool) -> None:
        one = answer(0.0) if is_old else self.known(digest)
        if one is None:
            return
        self.memory.forget(digest, one)
        if not is_old:
            self.model = [pair for pair in self.model if pair[0] != digest]

    @rule(number=st.integers(0, 2))
    def distrust(self, number: int) -> None:
        self.memory.forget_of(f"http://o{number}")
        self.model = [one for one in self.model if one[1].orchestrator != f"http://o{number}"]

    @rule(seconds=st.floats(0, 6))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def is_as_long_as_the_model(self) -> None:
        assert len(self.memory) == len(self.model) <= MOST


TestMemory = MemoryMachine.TestCase


def test_a_clock_that_was_set_back_brings_nothing_to_life() -> None:
    memory = Memory(most=MOST, lifetime=LIFETIME)
    memory.put(b"d", answer(100.0))
    assert memory.find(b"d", 99.0) is None
