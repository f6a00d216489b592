"""What the request of this context says in its `Cache-Control`.

Bound where its head is read, and found where its images are: whatever lies between need not know. The
tasks that a request starts have its context, so a job that goes on without its client has its wish.
"""

from collections.abc import Sequence
from contextvars import ContextVar
from typing import Final

from gateway.repeats.model import NO_WISH, Wish, read_wish

_wish: Final[ContextVar[Wish]] = ContextVar("wish", default=NO_WISH)


def note(values: Sequence[str]) -> None:
    """Of every request anew, whether or not those of one connection share a context."""
    _wish.set(read_wish(values) if values else NO_WISH)


def wished() -> Wish:
    return _wish.get()
