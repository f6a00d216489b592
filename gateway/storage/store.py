"""What every image store does, and what it may fail with."""

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from gateway.storage.names import ImageName, Kind

#: Images not stored yet that are held in memory before `put` starts to wait.
MAX_UNWRITTEN_BYTES: Final = 32 * 1024 * 1024
#: One read of a stored image; bounds what a slow download costs in memory.
CHUNK_BYTES: Final = 256 * 1024


class ImageNotStoredError(Exception):
    """The store refused an image; the caller still has its bytes."""


class ImageStoreSilentError(Exception):
    """The store cannot tell whether it has an image."""


@dataclass(frozen=True, slots=True)
class StoredImage:
    """An image opened for one download."""

    size: int
    #: From its first byte up to the one after its last.
    chunks: Callable[[int, int], AsyncIterator[bytes]]
    close: Callable[[], None]


class ImageStore(Protocol):
    """Images under unguessable names, for a lifetime, within a total size and a count."""

    @property
    def total_bytes(self) -> int: ...
    @property
    def count(self) -> int: ...

    async def put(self, request: str, data: bytes, kind: Kind = "png") -> str:
        """Store one image; returns its path on the gateway, or its whole URL elsewhere.

        Raises ImageNotStoredError.
        """
        ...

    async def secure(self, paths: Sequence[str]) -> None:
        """Return when a crash of this machine leaves these images there. Raises ImageNotStoredError."""
        ...

    async def open(self, name: ImageName) -> StoredImage | None:
        """The image, or None when it was never stored or is gone. Raises ImageStoreSilentError."""
        ...

    async def sweep(self) -> int:
        """Remove what is past its lifetime; returns how many images left."""
        ...


async def slices(data: bytes, start: int, stop: int) -> AsyncIterator[bytes]:
    """An image that is in memory."""
    yield data[start:stop]


def nothing_to_close() -> None:
    """Images in memory need no closing."""
