"""The chain as seen lately: what the request path reads without waiting for an endpoint."""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import structlog

from network.chain.model import (
    Chain,
    ChainError,
    ChainUnavailableError,
    Head,
    SenderInfo,
    WrongChainError,
)
from network.runtime.clock import Clock
from network.units import Address, Wei

T = TypeVar("T")
Subscriber = Callable[[Head], None]

#: Strangers choose the accounts that are asked about, so what is kept of them is bounded.
_MOST_CACHED: Final = 4096

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Entry:
    """An answer, and the head that it belongs to. The lock lets one caller ask for all."""

    value: Any = None
    head: Head | None = None
    read_at: float = 0.0
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class ChainWatch:
    """Polls the head; answers what is asked often once for each head.

    `run` is the job of a supervisor: `supervisor.start("chain", watch.run)`.
    When no endpoint answers, what was read last goes on serving until it is `stale_seconds` old.
    """

    def __init__(
        self,
        chain: Chain,
        clock: Clock,
        *,
        poll_seconds: float = 3.0,
        stale_seconds: float = 300.0,
    ) -> None:
        self._chain = chain
        self._clock = clock
        self._poll_seconds = poll_seconds
        self._stale_seconds = stale_seconds
        self._head: Head | None = None
        self._problem = "it was not read yet"
        self._is_failing = False
        self._subscribers: list[Subscriber] = []
        self._entries: OrderedDict[Hashable, _Entry] = OrderedDict()

    @property
    def head(self) -> Head:
        """The newest head. Raises ChainUnavailableError, with its age, when it is too old."""
        if self._head is None:
            raise ChainUnavailableError(f"nothing is known of the chain: {self._problem}")
        age = self._clock.monotonic() - self._head.read_at
        if age > self._stale_seconds:
            raise ChainUnavailableError(
                f"the chain was last read {age:.0f} s ago, which is too long to act on "
                f"(chain.stale_seconds is {self._stale_seconds:g}): {self._problem}"
            )
        return self._head

    def subscribe(self, subscriber: Subscriber) -> Callable[[], None]:
        """Call `subscriber` with every new head, from the event loop; the result ends that."""
        self._subscribers.append(subscriber)

        def unsubscribe() -> None:
            if subscriber in self._subscribers:
                self._subscribers.remove(subscriber)

        return unsubscribe

    async def run(self) -> None:
        """Poll until cancelled: the job of a supervisor."""
        while True:
            try:
                await self.refresh()
            except ChainError as error:
                if not self._is_failing:
                    _log.warning("cannot read the chain", problem=str(error))
                self._is_failing = True
            else:
                if self._is_failing:
                    _log.info("the chain is read again")
                self._is_failing = False
            await asyncio.sleep(self._poll_seconds)

    async def refresh(self) -> Head:
        """Read the head now and tell the subscribers. Raises ChainError."""
        try:
            head = await self._chain.head()
        except ChainError as error:
            self._problem = str(error)
            if isinstance(error, WrongChainError):
                # Not an outage to be bridged: what was read may be another chain's too.
                self._head = None
            raise
        self._head = head
        for subscriber in tuple(self._subscribers):
            try:
                subscriber(head)
            except Exception:  # noqa: BLE001  the others are to hear of it all the same
                _log.exception("a subscriber of the chain failed")
        return head

    async def sender_info(self, sender: Address) -> SenderInfo:
        """As `Chain.sender_info`, asked once for each head."""
        return await self._once(("sender", sender), lambda: self._chain.sender_info(sender))

    async def claimed_reserve(self, sender: Address, claimant: Address) -> Wei:
        """As `Chain.claimed_reserve`; `claimant` is whom tickets pay, whoever runs this program."""
        return await self._once(
            ("claimed", sender, claimant), lambda: self._chain.claimed_reserve(sender, claimant)
        )

    async def is_active(self, orchestrator: Address) -> bool:
        """As `Chain.is_active`, asked once for each head."""
        return await self._once(
            ("active", orchestrator), lambda: self._chain.is_active(orchestrator)
        )

    def forget(self, sender: Address) -> None:
        """Ask for the sender's funds again: they have just been changed by us."""
        self._entries.pop(("sender", sender), None)

    async def _once(self, key: Hashable, read: Callable[[], Awaitable[T]]) -> T:
        entry = self._entry(key)
        if entry.head is not self.head:
            async with entry.lock:
                # Another caller may have asked while this one waited.
                if entry.head is not self.head:
                    await self._fill(entry, read)
        answer: T = entry.value
        return answer

    async def _fill(self, entry: _Entry, read: Callable[[], Awaitable[T]]) -> None:
        head = self.head
        try:
            entry.value = await read()
        except ChainUnavailableError:
            age = self._clock.monotonic() - entry.read_at
            if entry.head is None or age > self._stale_seconds:
                raise
            # Not asked again before the next head: the request path must not wait for time-outs.
        else:
            entry.read_at = self._clock.monotonic()
        entry.head = head

    def _entry(self, key: Hashable) -> _Entry:
        entry = self._entries.setdefault(key, _Entry())
        self._entries.move_to_end(key)
        if len(self._entries) > _MOST_CACHED:
            self._entries.popitem(last=False)
        return entry
