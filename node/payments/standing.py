"""What the chain says of payers and of us, remembered and kept fresh.

Who asks for a quote or for work does not wait for an endpoint: payers that were here lately are read anew
with every head, in the background.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

import structlog

from network.chain.model import ChainError, ChainUnavailableError, ChainView, Head, SenderInfo
from network.identity import checksum
from network.runtime.clock import Clock
from network.units import Address, Wei

T = TypeVar("T")

#: Seconds: what was read so lately is answered at once.
_FRESH: Final = 30.0
#: Seconds that a caller waits for something newer than what is known, and for what is not known.
_PATIENCE: Final = 0.3
_FIRST_PATIENCE: Final = 5.0
#: Seconds without a question after which a payer is not read anew any more.
_RECENT: Final = 600.0
#: Strangers choose the accounts that are asked about: how many are remembered, and read with a head.
_MOST_KNOWN: Final = 4096
_MOST_RENEWED: Final = 256

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Standing:
    """A payer's funds, and the wei that we took of its reserve in this round."""

    info: SenderInfo
    claimed: Wei

    @property
    def is_funded(self) -> bool:
        """Whether there is anything to pay with."""
        return self.info.deposit > 0 or self.info.reserve_remaining > 0


class Standings:
    """One recipient's payers. `run` is the job of a supervisor, `on_head` hears of every new head."""

    def __init__(
        self, view: ChainView, recipient: Address, clock: Clock, *, max_age: float
    ) -> None:
        """What was read more than `max_age` seconds ago is not acted on."""
        self._view = view
        self._recipient = recipient
        self._clock = clock
        self._max_age = max_age
        self._active = self._fact(lambda: view.is_active(recipient))
        self._payers: OrderedDict[Address, _Fact[Standing]] = OrderedDict()
        self._has_new_head = asyncio.Event()
        self._told = ""

    async def of(self, sender: Address) -> Standing:
        """Raises ChainError where it is neither known nor to be had."""
        fact = self._payers.setdefault(sender, self._fact(lambda: self._read(sender)))
        self._payers.move_to_end(sender)
        if len(self._payers) > _MOST_KNOWN:
            self._payers.popitem(last=False)
        return await fact.get()

    async def closed(self, head: Head) -> str:
        """Why no ticket could be paid out to us, in words for payers; "" where it could.

        Raises ChainError.
        """
        if head.is_paused:
            return "the TicketBroker is paused, cannot process payments"
        if not await self._active.get():
            who = checksum(self._recipient)
            return (
                f"orchestrator {who} is inactive in round {head.current_round}, "
                "cannot process payments"
            )
        return ""

    def on_head(self, _head: Head) -> None:
        self._has_new_head.set()

    async def run(self) -> None:
        """Read anew what is asked for, with every head, until cancelled."""
        while True:
            await self._has_new_head.wait()
            self._has_new_head.clear()
            await self.refresh()

    async def refresh(self) -> None:
        """Read anew what was asked for lately; what cannot be read stays as it is.

        Accounts without funds cost nothing to make: they are read only when they ask.
        """
        since = self._clock.monotonic() - _RECENT
        recent = [
            fact
            for fact in self._payers.values()
            if fact.asked_at >= since and fact.known is not None and fact.known.is_funded
        ]
        facts: list[_Fact[Standing] | _Fact[bool]] = [self._active, *recent[-_MOST_RENEWED:]]
        found = await asyncio.gather(*(fact.renew() for fact in facts), return_exceptions=True)
        for problem in found:
            if isinstance(problem, BaseException) and not isinstance(problem, ChainError):
                raise problem
        await self._tell_operator()

    async def _tell_operator(self) -> None:
        try:
            why = await self.closed(self._view.head)
        except ChainError:
            return
        if why and why != self._told:
            _log.warning(
                "nobody can pay this node",
                why=why,
                remedy="limner-node activate; it counts from the next round on",
            )
        elif self._told and not why:
            _log.info("payments are taken again")
        self._told = why

    async def _read(self, sender: Address) -> Standing:
        info, claimed = await asyncio.gather(
            self._view.sender_info(sender), self._view.claimed_reserve(sender, self._recipient)
        )
        return Standing(info, claimed)

    def _fact(self, read: Callable[[], Awaitable[T]]) -> "_Fact[T]":
        return _Fact(read, self._clock, self._max_age)


class _Fact(Generic[T]):
    """One answer of the chain."""

    def __init__(self, read: Callable[[], Awaitable[T]], clock: Clock, max_age: float) -> None:
        self.asked_at = clock.monotonic()
        self._read = read
        self._clock = clock
        self._max_age = max_age
        self._fresh = min(_FRESH, max_age)
        self._known: tuple[T, float] | None = None

    @property
    def known(self) -> T | None:
        """What was read last."""
        return None if self._known is None else self._known[0]

    async def get(self) -> T:
        self.asked_at = self._clock.monotonic()
        if self._known is not None and self._age(self._known) <= self._fresh:
            return self._known[0]
        try:
            async with asyncio.timeout(_FIRST_PATIENCE if self._known is None else _PATIENCE):
                return await self.renew()
        except (TimeoutError, ChainUnavailableError) as error:
            # Another caller may have read it meanwhile.
            if self._known is not None and self._age(self._known) <= self._max_age:
                return self._known[0]
            if isinstance(error, ChainError):
                raise
            raise ChainUnavailableError("the chain does not answer in time") from None

    async def renew(self) -> T:
        began = self._clock.monotonic()
        value = await self._read()
        if self._known is None or began >= self._known[1]:
            self._known = value, began
        return value

    def _age(self, known: tuple[T, float]) -> float:
        return self._clock.monotonic() - known[1]
