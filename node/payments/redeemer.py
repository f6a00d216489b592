"""Redeems winning tickets: carries out what is planned, and goes on after whatever happened.

    supervisor.start("redeemer", redeemer.run)

Everything that it knows is in the books: after a crash it goes on where they end. One transaction is
under way at a time; what comes due meanwhile goes into the next one, together.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import replace

import structlog

from network.chain.contracts import LivepeerChain
from network.chain.fees import GasPriceError
from network.chain.flight import TransactionLostError
from network.chain.model import ChainError, Head, RefusedError, RevertedError, Transactions
from network.chain.watch import ChainWatch
from node.payments.planning import Planner, Sending, redeeming
from node.payments.redemption import Wait
from node.payments.settling import Settler

log = structlog.get_logger(__name__)


class Redeemer:
    """Looks after all winning tickets of this node, whoever their senders are."""

    def __init__(
        self,
        *,
        chain: LivepeerChain,
        watch: ChainWatch,
        transactions: Transactions,
        planner: Planner,
        settler: Settler,
    ) -> None:
        self._chain = chain
        self._watch = watch
        self._transactions = transactions
        self._planner = planner
        self._settler = settler
        self._news = asyncio.Event()
        self._seen: tuple[int, int, bool] | None = None
        self._current: Sending | None = None
        self._problem = ""

    @property
    def waiting(self) -> Mapping[bytes, Wait]:
        """Why each ticket that is not redeemed waits, as of the last look, by ticket hash."""
        return self._planner.waiting

    @property
    def late(self) -> int:
        """How many tickets are near their deadline and still wait."""
        return self._planner.late

    @property
    def problem(self) -> str:
        """What keeps it from looking, "" if nothing does."""
        return self._problem

    async def run(self) -> None:
        """Look at every new L1 block and redeem what is due, until cancelled."""
        unsubscribe = self._watch.subscribe(self._heard)
        # Tickets of an earlier run may be due at once, and what it was sending is in the books.
        self._current = None
        self._news.set()
        try:
            async with asyncio.TaskGroup() as group:
                while True:
                    await self._news.wait()
                    self._news.clear()
                    sending = await self._safely_plan()
                    if sending is not None:
                        group.create_task(self._safely_carry_out(sending))
        finally:
            unsubscribe()

    async def step(self) -> None:
        """Plan, and carry out what was planned. Raises ChainError, DatabaseError."""
        sending = await self.plan()
        if sending is not None:
            await self.carry_out(sending)

    async def plan(self) -> Sending | None:
        """See `Planner.plan`; nothing new is planned while a transaction is under way."""
        sending = await self._planner.plan(may_send=self._current is None)
        self._current = self._current or sending
        self._press()
        return sending

    async def carry_out(self, sending: Sending) -> None:
        """Send, wait, and book. Raises ChainError where the outcome is open: it is asked again."""
        records = sending.records
        try:
            call = await redeeming(self._chain, [r.winner.signed for r in records])
            receipt = await self._transactions.send(
                replace(call, gas_limit=sending.gas_limit),
                sending.purpose,
                max_fee=sending.max_fee,
            )
        except GasPriceError as error:
            await self._settler.queue(records, str(error), failed=False)
        except (RevertedError, RefusedError, TransactionLostError) as error:
            await self._settler.queue(records, str(error), failed=True)
        else:
            await self._settler.settle(records, receipt)
        finally:
            self._current = None

    def _press(self) -> None:
        """Gas may have become dear since it was sent: a ticket must not expire under way."""
        current = self._current
        if current is None:
            return
        waits = (self.waiting.get(record.winner.ticket_hash) for record in current.records)
        if any(wait is not None and wait.is_late for wait in waits):
            self._transactions.allow(current.purpose, current.most)

    def _heard(self, head: Head) -> None:
        seen = (head.l1_block, head.last_initialized_round, head.is_paused)
        if seen != self._seen or self._problem:
            self._news.set()
        self._seen = seen

    async def _safely_plan(self) -> Sending | None:
        try:
            sending = await self.plan()
        except ChainError as error:
            self._trouble(error)
            return None
        self._problem = ""
        return sending

    async def _safely_carry_out(self, sending: Sending) -> None:
        try:
            await self.carry_out(sending)
        except ChainError as error:
            self._trouble(error)
        else:
            # What came due meanwhile is next.
            self._news.set()

    def _trouble(self, error: ChainError) -> None:
        if str(error) != self._problem:
            log.warning("redeeming waits for the chain", problem=str(error))
        self._problem = str(error)
