"""Which segment takes an image, and which may go."""

from collections import Counter

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from gateway.storage.segments import Bounds, Place, Record, Segments

MOST, SECONDS = 100, 10.0


class Filling(RuleBasedStateMachine):
    """The rules of a folder's segments, one record or many at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.left = {2: 1, 5: 2}
        self.segments = Segments(Bounds(MOST, SECONDS), last=7, needed=self.left)
        self.now = 0.0
        self.written: dict[int, list[tuple[Place, Record]]] = {}
        self.needed = Counter(self.left)
        self.ended: set[int] = set()

    @rule(sizes=st.lists(st.integers(0, 130), min_size=1, max_size=5), head=st.integers(1, 20))
    def write(self, sizes: list[int], head: int) -> None:
        records = [Record(bytes(head), bytes(size), self.now) for size in sizes]
        while records:
            count = self.segments.fitting(records)
            if not count:
                before = self.segments.current
                number = self.segments.begin()
                assert number > max((7, *self.written))
                assert before not in self.written or not self._has_room(self.written[before])
                self.written[number] = []
                assert self.segments.fitting(records), "a new segment takes any image"
                continue
            current = self.segments.current
            assert current is not None
            assert current not in self.ended
            for record in records[:count]:
                self.written[current].append((self.segments.add(record), record))
                self.needed[current] += 1
            records = records[count:]

    def _has_room(self, written: list[tuple[Place, Record]]) -> bool:
        if not written:
            return True
        size = sum(len(record.head) + len(record.data) for _, record in written)
        return size < MOST and 0 <= self.now - written[0][1].stored_at <= SECONDS

    @rule(seconds=st.floats(-3, 12))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        if not self.needed:
            return
        number = data.draw(st.sampled_from(sorted(self.needed)))
        self.needed[number] -= 1
        assert self.segments.release(number) == (not self.needed[number])
        if not self.needed[number]:
            del self.needed[number]
            self.ended.add(number)
            assert self.segments.current != number

    @rule()
    def end(self) -> None:
        current = self.segments.current
        unneeded = self.segments.end()
        assert unneeded == (None if self.needed[current or 0] else current)
        self.needed = +self.needed
        assert self.segments.current is None
        if current is not None:
            self.ended.add(current)

    @invariant()
    def records_stand_one_after_the_other_and_within_bounds(self) -> None:
        self.segments.validate()
        for number, written in self.written.items():
            end = 0
            for place, record in written:
                assert end < MOST
                assert 0 <= record.stored_at - written[0][1].stored_at <= SECONDS
                assert place == Place(number, end + len(record.head))
                end = place.offset + len(record.data)
            if number == self.segments.current:
                assert self.segments.size == end


TestFilling = Filling.TestCase


@pytest.mark.parametrize(
    ("max_bytes", "size"),
    [(1000, 2**20), (2**20 * 64, 2**20 * 4), (2**40, 2**26)],
)
def test_segments_are_small_parts_of_the_store(max_bytes: int, size: int) -> None:
    assert Bounds.within(lifetime=1600.0, max_bytes=max_bytes) == Bounds(size, 100.0)
