"""One stream of a link, as asyncio's protocols know transports."""

import asyncio
from collections.abc import Iterable
from typing import Any, Final, Protocol

import structlog
from typing_extensions import override

from network.link.multiplexer import Multiplexer

_HIGH: Final = 64 * 1024
#: Seconds for which the other side may go on sending after this one closed.
_LINGER_SECONDS: Final = 10.0

_log = structlog.get_logger(__name__)


class LinkLostError(ConnectionError):
    """The link is gone, and all its streams with it."""


class Carrier(Protocol):
    """What a stream needs of its link: `network.link.connection.Link`."""

    multiplexer: Multiplexer

    def wake(self) -> None:
        """There may be something to send."""

    def forget(self, stream: int) -> None:
        """The transport is over."""


class StreamTransport(asyncio.Transport):
    """Behaves as a socket's does: buffers, pauses its writer, reads no further than it may."""

    def __init__(self, carrier: Carrier, stream: int, extra: dict[str, Any]) -> None:
        super().__init__(extra)
        self._carrier = carrier
        self._multiplexer = carrier.multiplexer
        self._stream = stream
        self._loop = asyncio.get_running_loop()
        self._protocol: asyncio.Protocol | None = None
        self._high, self._low = _HIGH, _HIGH // 4
        self._is_writer_paused = False
        self._is_reading = True
        self._held: list[bytes] = []
        self._has_held_end = False
        self._is_closing = False
        self._is_lost = False
        self._linger: asyncio.TimerHandle | None = None

    # asyncio.Transport

    @override
    def get_protocol(self) -> asyncio.BaseProtocol:
        if self._protocol is None:
            raise RuntimeError("the stream has no protocol yet")
        return self._protocol

    @override
    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        if not isinstance(protocol, asyncio.Protocol):
            raise TypeError("streams are for protocols that take bytes as they come")
        self._protocol = protocol

    @override
    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._is_closing or self._is_lost or not data:
            return
        # Copied if it may change: what is written goes out later.
        self._multiplexer.write(self._stream, data if type(data) is bytes else bytes(data))
        self._carrier.wake()
        if not self._is_writer_paused and self.get_write_buffer_size() > self._high:
            self._is_writer_paused = True
            if self._protocol is not None:
                self._protocol.pause_writing()

    @override
    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        self.write(b"".join(list_of_data))

    @override
    def can_write_eof(self) -> bool:
        return True

    @override
    def write_eof(self) -> None:
        self._multiplexer.finish(self._stream)
        self._carrier.wake()

    @override
    def close(self) -> None:
        if self._is_closing or self._is_lost:
            return
        self._is_closing = True
        self._drop_held()
        self._linger = self._loop.call_later(_LINGER_SECONDS, self._give_up)
        self._multiplexer.finish(self._stream)
        self._carrier.wake()
        self.sent()

    @override
    def abort(self) -> None:
        if not self._is_lost:
            self._give_up()
            self._lose_soon(None)

    @override
    def is_closing(self) -> bool:
        return self._is_closing or self._is_lost

    @override
    def pause_reading(self) -> None:
        self._is_reading = False

    @override
    def resume_reading(self) -> None:
        if not self._is_reading:
            self._is_reading = True
            self._loop.call_soon(self._deliver_held)

    @override
    def is_reading(self) -> bool:
        return self._is_reading and not self.is_closing()

    @override
    def get_write_buffer_size(self) -> int:
        return self._multiplexer.unsent(self._stream)

    @override
    def get_write_buffer_limits(self) -> tuple[int, int]:
        return self._low, self._high

    @override
    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._high = _HIGH if high is None else high
        self._low = self._high // 4 if low is None else low

    # What the link tells

    def begin(self, protocol: asyncio.Protocol) -> None:
        """Give the stream to its protocol."""
        self._protocol = protocol
        protocol.connection_made(self)

    def arrived(self, data: bytes) -> None:
        """Bytes came."""
        if self.is_closing():
            self._consumed(len(data))
        elif self._is_reading and not self._held:
            self._deliver(data)
        else:
            self._held.append(data)

    def ended(self) -> None:
        """The other side writes no more."""
        if self._held or not self._is_reading:
            self._has_held_end = True
        elif not self.is_closing():
            self._deliver_end()

    def sent(self) -> None:
        """Some of what was written went out."""
        if self._is_writer_paused and self.get_write_buffer_size() <= self._low:
            self._is_writer_paused = False
            if self._protocol is not None and not self._is_lost:
                self._protocol.resume_writing()
        if self._is_closing and self._multiplexer.has_finished(self._stream):
            self._lose_soon(None)

    def lost(self, error: Exception) -> None:
        """The other side broke it off, or the link is gone."""
        self._lose_soon(error)

    # Inside

    def _deliver(self, data: bytes) -> None:
        if self._protocol is not None:
            try:
                self._protocol.data_received(data)
            except Exception:  # noqa: BLE001  one stream's fault is not the link's
                _log.exception("stream_failed", stream=self._stream)
                self.abort()
        self._consumed(len(data))

    def _deliver_held(self) -> None:
        while self._held and self._is_reading and not self.is_closing():
            self._deliver(self._held.pop(0))
        if self._has_held_end and self._is_reading and not self._held and not self.is_closing():
            self._has_held_end = False
            self._deliver_end()

    def _deliver_end(self) -> None:
        keep_open = self._protocol is not None and self._protocol.eof_received()
        if not keep_open:
            self.close()

    def _drop_held(self) -> None:
        size = sum(map(len, self._held))
        self._held.clear()
        self._consumed(size)

    def _consumed(self, size: int) -> None:
        if size:
            self._multiplexer.consumed(self._stream, size)
            self._carrier.wake()

    def _give_up(self) -> None:
        self._multiplexer.reset(self._stream)
        self._carrier.wake()

    def _lose_soon(self, error: Exception | None) -> None:
        if not self._is_lost:
            self._is_lost = True
            self._held.clear()
            self._carrier.forget(self._stream)
            self._loop.call_soon(self._lose, error)

    def _lose(self, error: Exception | None) -> None:
        if self._linger is not None and self._stream not in self._multiplexer:
            self._linger.cancel()
        protocol, self._protocol = self._protocol, None
        if protocol is not None:
            protocol.connection_lost(error)
