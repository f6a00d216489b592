"""Calls `reward()` once a round, for orchestrators that want the LPT that it mints."""

import asyncio

import structlog

from network.chain.contracts import LivepeerChain
from network.chain.fees import GasPriceError
from network.chain.model import ChainError, Head, Transactions
from network.chain.watch import ChainWatch
from network.units import Wei

log = structlog.get_logger(__name__)


class RewardCaller:
    """`run` is the job of a supervisor. The account that sends is the orchestrator."""

    def __init__(
        self,
        chain: LivepeerChain,
        watch: ChainWatch,
        transactions: Transactions,
        max_gas_price: Wei,
    ) -> None:
        self._chain = chain
        self._watch = watch
        self._transactions = transactions
        self._max_gas_price = max_gas_price
        self._news = asyncio.Event()
        self._done = -1
        self._problem = ""

    async def run(self) -> None:
        """Look at every new head, until cancelled."""
        unsubscribe = self._watch.subscribe(self._heard)
        self._news.set()
        try:
            while True:
                await self._news.wait()
                self._news.clear()
                try:
                    await self.step()
                except ChainError as error:
                    if str(error) != self._problem:
                        log.warning("this round's reward is not called", problem=str(error))
                    self._problem = str(error)
        finally:
            unsubscribe()

    async def step(self) -> bool:
        """Call it if it is time to; tell whether that was so. Raises ChainError."""
        head = self._watch.head
        if not self._is_time(head):
            return False
        account = self._transactions.account
        if await self._chain.last_reward_round(account) == head.current_round:
            self._done = head.current_round
            return False
        if not await self._chain.is_active(account):
            return False
        call = (await self._chain.calls()).reward()
        try:
            receipt = await self._transactions.send(
                call, f"reward:{head.current_round}", max_fee=self._max_gas_price
            )
        except GasPriceError:
            return False
        self._done = head.current_round
        log.info("reward called", round=head.current_round, cost=receipt.cost)
        return True

    def _heard(self, head: Head) -> None:
        if self._is_time(head):
            self._news.set()

    def _is_time(self, head: Head) -> bool:
        return (
            head.current_round != self._done
            and head.is_round_initialized
            and not head.is_paused
            and head.gas_price <= self._max_gas_price
        )
