"""What is kept under a bound of bytes, least recently used out first. Pure."""

from collections.abc import Hashable
from typing import Generic, TypeVar

_Key = TypeVar("_Key", bound=Hashable)
_Value = TypeVar("_Value")


class ByteCache(Generic[_Key, _Value]):
    """Values with their sizes. One that is larger than `max_bytes` is kept alone."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._entries: dict[_Key, tuple[_Value, int]] = {}  # least recently used first
        self._bytes = 0

    @property
    def held_bytes(self) -> int:
        """The sum of all sizes."""
        return self._bytes

    def __contains__(self, key: _Key) -> bool:
        return key in self._entries

    def __len__(self) -> int:
        return len(self._entries)

    def use(self, key: _Key) -> _Value | None:
        """Return a value, now the most recently used one; None when it is not here."""
        entry = self._entries.pop(key, None)
        if entry is None:
            return None
        self._entries[key] = entry
        return entry[0]

    def put(self, key: _Key, value: _Value, size: int) -> None:
        """Take a value in, in place of its namesake, and let go of as many as have to."""
        self._drop(key)
        self._entries[key] = (value, size)
        self._bytes += size
        while self._bytes > self._max_bytes and len(self._entries) > 1:
            self._drop(next(iter(self._entries)))

    def _drop(self, key: _Key) -> None:
        _, size = self._entries.pop(key, (None, 0))
        self._bytes -= size
