"""What stands behind our tickets: the account's deposit and reserve, as last read from the chain."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Protocol

import structlog

from network.chain.model import ChainError, ChainUnavailableError, Head, SenderInfo
from network.payments.checks import Funds, Now, unlocks_soon
from network.payments.tickets import CreationRound
from network.units import Address, Wei, format_wei

NOTHING: Final = Wei(0)
#: Creation rounds that quotes may name: the newest, and the one before for quotes made just before.
_ROUNDS: Final = 2

_LOOK_SECONDS: Final = 2.0

_log = structlog.get_logger(__name__)


class Watch(Protocol):
    """`network.chain.watch.ChainWatch`."""

    @property
    def head(self) -> Head: ...

    async def sender_info(self, sender: Address) -> SenderInfo: ...

    def subscribe(self, subscriber: Callable[[Head], None]) -> Callable[[], None]: ...

    async def refresh(self) -> Head: ...


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Below these the operator is warned. In wei."""

    deposit: Wei = NOTHING
    reserve: Wei = NOTHING


class DepositWatch:
    """Reads the funds with every new head, in the background: `run` is the job of a supervisor."""

    def __init__(self, watch: Watch, account: Address, thresholds: Thresholds) -> None:
        self._watch = watch
        self._account = account
        self._thresholds = thresholds
        self._funds: Funds | None = None
        self._rounds: tuple[CreationRound, ...] = ()
        self._news = asyncio.Event()
        self._looking = asyncio.Lock()
        self._warned: frozenset[str] = frozenset()

    @property
    def head(self) -> Head:
        """Raises ChainUnavailableError where it is too old to act on."""
        return self._watch.head

    @property
    def funds(self) -> Funds:
        """Raises ChainUnavailableError where they were never read."""
        if self._funds is None:
            raise ChainUnavailableError("the deposit was not read yet")
        return self._funds

    @property
    def now(self) -> Now:
        """What quotes are held against. Raises ChainUnavailableError."""
        head = self.head
        rounds = self._rounds or (head.creation,)
        return Now(head.l1_block, head.last_initialized_round, rounds)

    def problem(self) -> str:
        """Why nothing can be paid to anybody, in words for the operator; "" where it can."""
        try:
            head, funds = self.head, self.funds
        except ChainUnavailableError as error:
            return str(error)
        if head.is_paused:
            return "the TicketBroker is paused: no ticket can be redeemed"
        if unlocks_soon(funds.withdraw_round, head.last_initialized_round):
            return (
                f"deposit and reserve unlock in round {funds.withdraw_round} (now "
                f"{head.current_round}): nobody takes our tickets until the unlock is cancelled"
            )
        if not funds.deposit:
            return "the deposit is empty"
        if not funds.reserve:
            return "the reserve is empty, and orchestrators quote nothing without one"
        return ""

    async def look_again(self) -> None:
        """Read the chain now: somebody knows more of it than we do. Returns in a moment, in any case.

        Many who ask at the same time share one look: quotes of strangers must not buy as many calls.
        """
        with suppress(ChainError, TimeoutError):
            async with asyncio.timeout(_LOOK_SECONDS):
                before = self._watch.head
                async with self._looking:
                    if self._watch.head is before:
                        await self._watch.refresh()

    async def run(self) -> None:
        """Follow the chain until cancelled."""
        unsubscribe = self._watch.subscribe(self._note_head)
        try:
            while True:
                await self._news.wait()
                self._news.clear()
                try:
                    await self.refresh()
                except ChainError as error:
                    _log.debug("deposit_not_read", problem=str(error))
        finally:
            unsubscribe()

    async def refresh(self) -> None:
        """Read the funds now. Raises ChainError."""
        self._note_round(self._watch.head.creation)
        info = await self._watch.sender_info(self._account)
        self._funds = Funds(info.deposit, info.reserve_remaining, info.withdraw_round)
        self._warn()

    def _note_head(self, head: Head) -> None:
        self._note_round(head.creation)
        self._news.set()

    def _note_round(self, creation: CreationRound) -> None:
        if creation not in self._rounds:
            self._rounds = (creation, *self._rounds)[:_ROUNDS]

    def _warn(self) -> None:
        """Once for each thing that is wrong, when it begins."""
        funds = self.funds
        found: dict[str, str] = {}
        if funds.withdraw_round:
            found["unlocking"] = f"from round {funds.withdraw_round} on nobody takes our tickets"
        for name, amount, least in (
            ("deposit", funds.deposit, self._thresholds.deposit),
            ("reserve", funds.reserve, self._thresholds.reserve),
        ):
            if not amount or amount < least:
                found[f"low_{name}"] = f"{format_wei(amount)} left, {format_wei(least)} wanted"
        for name in found.keys() - self._warned:
            advice = (
                "limner-gateway unlock --cancel" if name == "unlocking" else "limner-gateway fund"
            )
            _log.warning(f"payments_{name}", what=found[name], advice=advice)
        self._warned = frozenset(found)
