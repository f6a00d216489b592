"""Two multiplexers and a line between them: whatever happens, bytes arrive in order and in bounds."""

from collections import deque

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from typing_extensions import override

from network.errors import WireError
from network.link.frames import LARGEST_DATA, WINDOW, Frame, Kind, encode
from network.link.multiplexer import Arrived, Broken, Ended, Event, Multiplexer, Opened, Told

sides = st.sampled_from([0, 1])
picks = st.integers(0, 20)


class LinkMachine(RuleBasedStateMachine):
    """Both ends do what they like; the line carries messages in order, as late as it likes."""

    def __init__(self) -> None:
        super().__init__()
        self.ends = (
            Multiplexer(opens=True, most_streams=3),
            Multiplexer(opens=False, most_streams=3),
        )
        self.lines: tuple[deque[bytes], deque[bytes]] = (deque(), deque())
        #: By the writing side and stream: bytes written and bytes that arrived.
        self.written: dict[tuple[int, int], bytearray] = {}
        self.arrived: dict[tuple[int, int], bytearray] = {}
        self.unread: dict[tuple[int, int], int] = {}
        self.finished: set[tuple[int, int]] = set()
        self.broken: set[int] = set()
        self.streams: list[int] = []
        self.counter = 0

    def pick(self, number: int) -> int | None:
        return self.streams[number % len(self.streams)] if self.streams else None

    @rule()
    def open(self) -> None:
        stream = self.ends[0].open()
        if stream is not None:
            self.streams.append(stream)

    @rule(side=sides, number=picks, size=st.integers(1, 3 * LARGEST_DATA))
    def write(self, side: int, number: int, size: int) -> None:
        stream = self.pick(number)
        if stream is None or stream not in self.ends[side] or (side, stream) in self.finished:
            return
        self.counter += 1
        data = bytes([self.counter % 256]) * size
        self.ends[side].write(stream, data)
        self.written.setdefault((side, stream), bytearray()).extend(data)

    @rule(side=sides, number=picks)
    def finish(self, side: int, number: int) -> None:
        stream = self.pick(number)
        if stream is not None and stream in self.ends[side]:
            self.ends[side].finish(stream)
            self.finished.add((side, stream))

    @rule(side=sides, number=picks)
    def reset(self, side: int, number: int) -> None:
        stream = self.pick(number)
        if stream is not None and stream in self.ends[side]:
            self.ends[side].reset(stream)
            self.broken.add(stream)

    @rule(side=sides, number=picks)
    def consume(self, side: int, number: int) -> None:
        stream = self.pick(number)
        if stream is not None:
            size = self.unread.pop((side, stream), 0)
            self.ends[side].consumed(stream, size)

    @rule(side=sides, times=st.integers(1, 30))
    def send(self, side: int, times: int) -> None:
        for _ in range(times):
            item = self.ends[side].next_message()
            if item is None:
                return
            self.lines[side].append(item[1])

    @rule(side=sides, times=st.integers(1, 30))
    def receive(self, side: int, times: int) -> None:
        for _ in range(min(times, len(self.lines[1 - side]))):
            event = self.ends[side].take(self.lines[1 - side].popleft())
            if event is not None:
                self.note(side, event)

    def note(self, side: int, event: Event) -> None:
        match event:
            case Arrived(stream, data):
                self.arrived.setdefault((1 - side, stream), bytearray()).extend(data)
                self.unread[side, stream] = self.unread.get((side, stream), 0) + len(data)
            case Ended(stream):
                assert (1 - side, stream) in self.finished
                expected = self.written.get((1 - side, stream), bytearray())
                assert self.arrived.get((1 - side, stream), bytearray()) == expected
            case Broken(stream):
                self.broken.add(stream)
            case Opened() | Told():
                pass

    @invariant()
    def bytes_arrive_in_order_and_within_the_window(self) -> None:
        for key, got in self.arrived.items():
            assert self.written[key].startswith(got)
        for key, size in self.unread.items():
            assert size <= WINDOW, key

    @override
    def teardown(self) -> None:
        """Everything read and sent, what was written has arrived, unless it was broken off."""
        for _ in range(10_000):
            before = [len(line) for line in self.lines]
            for side in (0, 1):
                for key in [key for key in self.unread if key[0] == side]:
                    self.ends[side].consumed(key[1], self.unread.pop(key))
                self.send(side, 50)
                self.receive(side, 50)
            if before == [len(line) for line in self.lines] == [0, 0] and not self.unread:
                break
        refused = {stream for stream in self.streams if stream in self.broken}
        for (side, stream), data in self.written.items():
            if stream not in refused:
                assert self.arrived.get((side, stream), bytearray()) == data


TestLink = LinkMachine.TestCase


def opened() -> tuple[Multiplexer, Multiplexer, int]:
    gateway, node = Multiplexer(opens=True), Multiplexer(opens=False)
    stream = gateway.open()
    assert stream is not None
    item = gateway.next_message()
    assert item is not None
    assert node.take(item[1]) == Opened(stream)
    return gateway, node, stream


def test_a_small_answer_does_not_wait_for_a_large_one() -> None:
    gateway, node, large = opened()
    small = gateway.open()
    assert small is not None
    item = gateway.next_message()
    assert item is not None
    node.take(item[1])
    node.write(large, bytes(6_000_000))
    node.write(small, b"small")
    sent = [node.next_message() for _ in range(3)]
    assert [item[0] for item in sent if item is not None] == [large, small, large]


def test_no_more_is_sent_than_the_reader_took() -> None:
    gateway, node, stream = opened()
    # A piece of its own, so that the window does not end where a piece does.
    node.write(stream, b"x")
    first = node.next_message()
    assert first is not None
    assert gateway.take(first[1]) == Arrived(stream, b"x")
    node.write(stream, bytes(3 * WINDOW))
    sent = 1
    while (item := node.next_message()) is not None:
        event = gateway.take(item[1])
        assert isinstance(event, Arrived)
        sent += len(event.data)
    assert sent == WINDOW
    gateway.consumed(stream, WINDOW)
    credit = gateway.next_message()
    assert credit is not None
    node.take(credit[1])
    assert node.next_message() is not None


def test_newer_news_replace_those_that_wait() -> None:
    gateway, node, _ = opened()
    node.push(b"old")
    node.push(b"new")
    item = node.next_message()
    assert item is not None
    assert gateway.take(item[1]) == Told(b"new")
    assert node.next_message() is None


def test_one_stream_more_than_may_be_is_refused() -> None:
    gateway = Multiplexer(opens=True, most_streams=2)
    node = Multiplexer(opens=False, most_streams=1)
    first, second = gateway.open() or 0, gateway.open() or 0
    assert gateway.open() is None
    while (item := gateway.next_message()) is not None:
        node.take(item[1])
    item = node.next_message()
    assert item is not None
    assert gateway.take(item[1]) == Broken(second)
    assert first in gateway
    assert second not in gateway


@pytest.mark.parametrize(
    ("is_gateway", "frames"),
    [
        (True, [Frame(Kind.OPEN, 2)]),
        (False, [Frame(Kind.PUSH, data=b"x")]),
        (False, [Frame(Kind.OPEN, 1)]),
        (False, [Frame(Kind.DATA, 2, b"x")]),
        (False, [Frame(Kind.END, 1), Frame(Kind.DATA, 1, b"x")]),
        (False, [Frame(Kind.CREDIT, 1, credit=1)]),
        (False, [Frame(Kind.DATA, 1, bytes(LARGEST_DATA))] * (WINDOW // LARGEST_DATA + 1)),
        (False, [Frame(Kind.OPEN, 2 + number) for number in range(5000)]),
    ],
)
def test_who_breaks_the_rules_is_found_out(is_gateway: bool, frames: list[Frame]) -> None:  # noqa: FBT001
    gateway, node, stream = opened()
    assert stream == 1
    with pytest.raises(WireError):  # noqa: PT012  any of them may be the one
        for frame in frames:
            (gateway if is_gateway else node).take(encode(frame))
