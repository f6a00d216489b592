"""What is kept of delivered answers stays within its bounds, and is given to whom it was made for."""

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from network.units import Address
from node.jobs.kept import Claim, KeptAnswers

MOST, LIFETIME = 100, 10.0
CLAIMS = [
    Claim(attempt_id, Address(bytes([payer]) * 20), bytes([digest]))
    for attempt_id in ("one", "two", "three")
    for payer in (1, 2)
    for digest in (1, 2)
]
claims = st.sampled_from(CLAIMS)


def test_an_answer_is_given_for_the_same_id_payer_and_body_only() -> None:
    kept = KeptAnswers[str](MOST, LIFETIME)
    claim = CLAIMS[0]
    kept.keep(claim, "answer", 10, 0.0)
    assert kept.find(claim, 1.0) == "answer"
    assert kept.find(replace(claim, attempt_id="two"), 1.0) is None
    assert kept.find(replace(claim, payer=Address(bytes(20))), 1.0) is None
    assert kept.find(replace(claim, digest=b"other"), 1.0) is None


def test_nothing_is_kept_where_there_is_no_room_or_no_time() -> None:
    for kept in (KeptAnswers[str](0, LIFETIME), KeptAnswers[str](MOST, 0.0)):
        kept.keep(CLAIMS[0], "answer", 1, 0.0)
        assert len(kept) == 0


@given(st.lists(st.integers(0, MOST + 20), max_size=40))
def test_the_newest_are_kept_as_far_as_there_is_room(sizes: list[int]) -> None:
    kept = KeptAnswers[int](MOST, LIFETIME)
    named = [replace(CLAIMS[0], attempt_id=str(number)) for number in range(len(sizes))]
    for number, size in enumerate(sizes):
        kept.keep(named[number], number, size, 0.0)
    room, expected = MOST, set[int]()
    for number in reversed([number for number, size in enumerate(sizes) if size <= MOST]):
        room -= sizes[number]
        if room < 0:
            break
        expected.add(number)
    found = {kept.find(claim, 1.0) for claim in named} - {None}
    assert found == expected
    assert kept.size == sum(sizes[number] for number in expected)


class Keeping(RuleBasedStateMachine):
    """Ids that are used again, and time that goes by."""

    def __init__(self) -> None:
        super().__init__()
        self.kept = KeptAnswers[int](MOST, LIFETIME)
        self.now = 0.0
        self.count = 0
        #: By claim the newest answer, its size and when it was kept; in the order of the last.
        self.newest: dict[Claim, tuple[int, int, float]] = {}

    @rule(claim=claims, size=st.integers(0, MOST + 20))
    def keep(self, claim: Claim, size: int) -> None:
        self.count += 1
        self.kept.keep(claim, self.count, size, self.now)
        self.newest.pop(claim, None)
        if size <= MOST:
            self.newest[claim] = (self.count, size, self.now)
            assert self.kept.find(claim, self.now) == self.count

    @rule(seconds=st.floats(0.0, LIFETIME))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def is_bounded_and_tells_the_newest(self) -> None:
        found = {claim: self.kept.find(claim, self.now) for claim in CLAIMS}
        there = {claim for claim, answer in found.items() if answer is not None}
        for claim in there:
            answer, _, at = self.newest[claim]
            assert found[claim] == answer
            assert self.now < at + LIFETIME
        assert self.kept.size == sum(self.newest[claim][1] for claim in there) <= MOST
        assert len(self.kept) == len(there)
        # Whoever had to make room was older than all who are there.
        gone = [number for number, claim in enumerate(self.newest) if claim not in there]
        assert gone == list(range(len(gone)))


Keeping.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestKeeping = Keeping.TestCase
