"""The worker's end of the pipe: blocking, safe to send on from several threads."""

import socket
import threading
from collections import deque
from typing import Generic, TypeVar

from node.engine.protocol import (
    HEADER_BYTES,
    ChannelError,
    FromWorker,
    ToWorker,
    body_length,
    decode_for_worker,
    encode_frame,
)

_T = TypeVar("_T")


class Channel:
    """Frames over a connected stream socket."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._sending = threading.Lock()

    def send(self, message: FromWorker) -> None:
        """Send one message whole. Raises OSError when the engine is gone."""
        frame = encode_frame(message)
        with self._sending:
            self._socket.sendall(frame)

    def receive(self) -> ToWorker | None:
        """Wait for a message; None when the engine is gone. Raises ChannelError."""
        header = self._read(HEADER_BYTES)
        if not header:
            return None
        body = self._read(body_length(header))
        return decode_for_worker(body) if body else None

    def _read(self, size: int) -> bytes:
        """Read exactly `size` bytes; b"" at the end of the stream or half-way through a frame."""
        received = bytearray(size)
        view = memoryview(received)
        got = 0
        while got < size:
            try:
                count = self._socket.recv_into(view[got:])
            except ConnectionError:
                return b""
            if count == 0:
                return b""
            got += count
        return bytes(received)


class Inbox(Generic[_T]):
    """A queue from several threads to one, emptied at once."""

    def __init__(self) -> None:
        self._items: deque[_T] = deque()
        self._filled = threading.Condition()

    def put(self, item: _T) -> None:
        """Add an item and wake the taker."""
        with self._filled:
            self._items.append(item)
            self._filled.notify()

    def take(self, *, wait: bool, seconds: float | None = None) -> list[_T]:
        """Return everything there is; if `wait`, not before there is something, or `seconds` on."""
        with self._filled:
            while wait and not self._items:
                if not self._filled.wait(seconds):
                    break
            items = list(self._items)
            self._items.clear()
        return items


__all__ = ["Channel", "ChannelError", "Inbox"]
