"""Many byte streams on one connection: who may send how much, and whose turn it is. Pure.

Each direction of a stream has a window, so that a reader who is slow holds up nobody else and memory
stays bounded. Pieces of all streams that have something to send go out in turn.
"""

from collections import deque
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from network.errors import WireError
from network.link.frames import LARGEST_DATA, WINDOW, Frame, Kind, decode, encode

MOST_STREAMS: Final = 256
#: Unsent frames that only the other side's behaviour can pile up.
_MOST_PENDING: Final = 4 * MOST_STREAMS


@dataclass(frozen=True, slots=True)
class Opened:
    """The other side opened a stream."""

    stream: int


@dataclass(frozen=True, slots=True)
class Arrived:
    """Bytes of a stream; `Multiplexer.consumed` lets as many more come."""

    stream: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Ended:
    """The other side writes no more."""

    stream: int


@dataclass(frozen=True, slots=True)
class Broken:
    """The other side broke the stream off."""

    stream: int


@dataclass(frozen=True, slots=True)
class Told:
    """A push."""

    data: bytes


Event: TypeAlias = Opened | Arrived | Ended | Broken | Told


@dataclass(slots=True)
class _Stream:
    #: Bytes that we may send, and that the other side may.
    may_send: int = WINDOW
    may_arrive: int = WINDOW
    #: Read here, and not yet credited.
    owed: int = 0
    unsent: deque[memoryview] = field(default_factory=deque)
    unsent_bytes: int = 0
    is_finishing: bool = False
    has_sent_end: bool = False
    has_ended: bool = False
    #: Stands in the queue of those that can send.
    is_queued: bool = False

    @property
    def can_send(self) -> bool:
        if self.unsent:
            return self.may_send > 0
        return self.is_finishing and not self.has_sent_end


class Multiplexer:
    """One side of a link. Streams that are over are forgotten; what still comes of them is ignored."""

    def __init__(self, *, opens: bool, most_streams: int = MOST_STREAMS) -> None:
        """`opens`: this side, and not the other, opens streams."""
        self._opens = opens
        self._most_streams = most_streams
        self._streams: dict[int, _Stream] = {}
        self._last = 0
        self._pending: deque[Frame] = deque()
        self._push: bytes | None = None
        self._turns: deque[int] = deque()

    def __len__(self) -> int:
        return len(self._streams)

    def __contains__(self, stream: int) -> bool:
        return stream in self._streams

    # What this side does

    def open(self) -> int | None:
        """A new stream; None when there are as many as may be."""
        if len(self._streams) >= self._most_streams:
            return None
        self._last += 1
        self._streams[self._last] = _Stream()
        self._pending.append(Frame(Kind.OPEN, self._last))
        return self._last

    def write(self, stream: int, data: bytes) -> None:
        """Send it in turn. Nothing happens to a stream that is over."""
        state = self._streams.get(stream)
        if state is not None and data and not state.is_finishing:
            state.unsent.append(memoryview(data))
            state.unsent_bytes += len(data)
            self._queue(stream, state)

    def finish(self, stream: int) -> None:
        """Write no more, once what was written is sent."""
        state = self._streams.get(stream)
        if state is not None and not state.is_finishing:
            state.is_finishing = True
            self._queue(stream, state)

    def reset(self, stream: int) -> None:
        """Break it off: what is unsent is dropped."""
        if self._streams.pop(stream, None) is not None:
            self._pending.append(Frame(Kind.RESET, stream))

    def consumed(self, stream: int, size: int) -> None:
        """So many bytes that arrived need no memory here any more."""
        state = self._streams.get(stream)
        if state is None:
            return
        state.owed += size
        # Half a window at a time: a credit for each piece would double the number of frames.
        if state.owed >= WINDOW // 2 and not state.has_ended:
            self._pending.append(Frame(Kind.CREDIT, stream, credit=state.owed))
            state.may_arrive += state.owed
            state.owed = 0

    def push(self, data: bytes) -> None:
        """Tell news; they take the place of news that are not sent yet."""
        self._push = data

    def beat(self) -> None:
        """Show a sign of life."""
        if not any(frame.kind is Kind.BEAT for frame in self._pending):
            self._pending.append(Frame(Kind.BEAT))

    def unsent(self, stream: int) -> int:
        """Bytes written and not sent."""
        state = self._streams.get(stream)
        return 0 if state is None else state.unsent_bytes

    def has_finished(self, stream: int) -> bool:
        """Whether all that was written is sent, and the other side knows that no more comes."""
        state = self._streams.get(stream)
        return state is None or state.has_sent_end

    def next_message(self) -> tuple[int, bytes] | None:
        """What goes out now, and its stream (0: none); None while there is nothing to send."""
        if self._pending:
            frame = self._pending.popleft()
            return frame.stream, encode(frame)
        if self._push is not None:
            data, self._push = self._push, None
            return 0, encode(Frame(Kind.PUSH, data=data))
        while self._turns:
            stream = self._turns.popleft()
            state = self._streams.get(stream)
            if state is None:
                continue
            state.is_queued = False
            if state.can_send:
                frame = self._piece(stream, state)
                self._queue(stream, state)
                return stream, encode(frame)
        return None

    # What the other side does

    def take(self, message: bytes) -> Event | None:
        """What a message means for this side. Raises WireError where the other side breaks the rules;

        the link is of no more use then.
        """
        frame = decode(message)
        if frame.kind is Kind.BEAT:
            return None
        if frame.kind is Kind.PUSH:
            if not self._opens:
                raise WireError("only nodes push")
            return Told(frame.data)
        if frame.kind is Kind.OPEN:
            return self._take_open(frame.stream)
        state = self._streams.get(frame.stream)
        if state is None:
            if frame.stream > self._last:
                raise WireError(f"a frame {frame.kind.name} of a stream that was never opened")
            return None
        return self._take_of(state, frame)

    def _take_open(self, stream: int) -> Event | None:
        if self._opens:
            raise WireError("only gateways open streams")
        if stream <= self._last:
            raise WireError(f"stream {stream} was opened before")
        self._last = stream
        if len(self._streams) < self._most_streams:
            self._streams[stream] = _Stream()
            return Opened(stream)
        if len(self._pending) >= _MOST_PENDING:
            raise WireError("streams are opened faster than they can be refused")
        self._pending.append(Frame(Kind.RESET, stream))
        return None

    def _take_of(self, state: _Stream, frame: Frame) -> Event | None:
        stream = frame.stream
        if frame.kind is Kind.RESET:
            del self._streams[stream]
            return Broken(stream)
        if frame.kind is Kind.CREDIT:
            state.may_send += frame.credit
            if state.may_send > WINDOW:
                raise WireError("a credit for more than was sent")
            self._queue(stream, state)
            return None
        if state.has_ended:
            raise WireError(f"a frame {frame.kind.name} of a stream that had ended")
        if frame.kind is Kind.END:
            state.has_ended = True
            self._forget_if_over(stream, state)
            return Ended(stream)
        state.may_arrive -= len(frame.data)
        if state.may_arrive < 0:
            raise WireError("more bytes than the window allows")
        return Arrived(stream, frame.data)

    def _piece(self, stream: int, state: _Stream) -> Frame:
        if not state.unsent:
            state.has_sent_end = True
            self._forget_if_over(stream, state)
            return Frame(Kind.END, stream)
        left = min(LARGEST_DATA, state.may_send)
        parts: list[memoryview] = []
        while left and state.unsent:
            part = state.unsent.popleft()
            if len(part) > left:
                state.unsent.appendleft(part[left:])
                part = part[:left]
            parts.append(part)
            left -= len(part)
        data = b"".join(parts)
        state.may_send -= len(data)
        state.unsent_bytes -= len(data)
        return Frame(Kind.DATA, stream, data)

    def _queue(self, stream: int, state: _Stream) -> None:
        if state.can_send and not state.is_queued:
            state.is_queued = True
            self._turns.append(stream)

    def _forget_if_over(self, stream: int, state: _Stream) -> None:
        if state.has_ended and state.has_sent_end:
            self._streams.pop(stream, None)
