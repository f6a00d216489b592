"""Looks after transactions that are under way, until each is final or failed."""

import asyncio
from dataclasses import dataclass, field

import structlog

from network.chain.contracts import LivepeerChain
from network.chain.endpoint import quantity
from network.chain.fees import Fees, replacement_fees
from network.chain.model import Call, ChainError, Receipt, RefusedError, RevertedError
from network.chain.progress import Look, Pace, Step, next_step
from network.chain.record import Record, State, Transaction
from network.chain.signed import Attempt, TransactionSigner, sign
from network.identity import checksum
from network.runtime.clock import Clock
from network.units import Wei, format_wei

_log = structlog.get_logger(__name__)


class TransactionLostError(ChainError):
    """Another program used the account's nonce: this transaction never will be executed."""


@dataclass(slots=True, eq=False)
class Flight:
    """A transaction under way, and who waits for it. Times in unix seconds."""

    transaction: Transaction
    settled: asyncio.Event = field(default_factory=asyncio.Event)
    error: ChainError | None = None
    missing_since: float | None = None
    broadcast_at: float | None = None
    next_look: float = 0.0


class Flights:
    """All that is under way for one account, by purpose. Methods raise ChainError, DatabaseError."""

    def __init__(
        self,
        signer: TransactionSigner,
        chain: LivepeerChain,
        record: Record,
        clock: Clock,
        *,
        tip: Wei,
        pace: Pace,
    ) -> None:
        self._signer = signer
        self._chain = chain
        self._record = record
        self._clock = clock
        self._tip = tip
        self._pace = pace
        self.by_purpose: dict[str, Flight] = {}
        #: One more than the highest nonce that we saw mined: a node that lags may not know yet.
        self.nonce_floor = 0

    async def resume(self) -> None:
        """Take up what an earlier process left."""
        for transaction in await self._record.open():
            _log.info(
                "taking up a transaction",
                purpose=transaction.purpose,
                state=transaction.state.value,
            )
            self.by_purpose[transaction.purpose] = Flight(transaction)

    def unsettled(self) -> list[Flight]:
        """By nonce."""
        waiting = [f for f in self.by_purpose.values() if not f.settled.is_set()]
        return sorted(waiting, key=lambda flight: flight.transaction.nonce)

    async def count(self, tag: str) -> int:
        """Transactions of the account in the "latest" block, or with "pending" also in the pool."""
        question = (checksum(self._signer.address), tag)
        return quantity(await self._chain.rpc.request("eth_getTransactionCount", question))

    async def signed(self, call: Call, nonce: int, gas_limit: int, fees: Fees) -> Attempt:
        return await asyncio.to_thread(
            sign,
            self._signer,
            call,
            fees,
            chain_id=self._chain.profile.chain_id,
            nonce=nonce,
            gas_limit=gas_limit,
            now=self._clock.now(),
        )

    async def begin(self, transaction: Transaction) -> Flight:
        """Write it down, then broadcast it. RefusedError: it is in no pool, and forgotten.

        Not to be cancelled: what is written down must be looked after.
        """
        await self._record.add(transaction, self._clock.now())
        flight = Flight(transaction)
        try:
            await self._broadcast(flight)
        except RefusedError as error:
            await self._fail(flight, error)
            raise
        except ChainError as error:
            # Some node may have it, so it stays under way and is broadcast again.
            _log.warning(
                "a transaction is not broadcast yet",
                purpose=transaction.purpose,
                problem=str(error),
            )
        self.by_purpose[transaction.purpose] = flight
        return flight

    async def receipt(self, transaction: Transaction) -> Receipt | None:
        """Of whichever attempt was mined."""
        found = await asyncio.gather(
            *(self._chain.receipt(attempt.hash) for attempt in reversed(transaction.attempts))
        )
        return next((receipt for receipt in found if receipt is not None), None)

    async def look_after_all(self) -> None:
        """One look at everything that is due, and what follows from it."""
        now = self._clock.now()
        due = [flight for flight in self.by_purpose.values() if flight.next_look <= now]
        if not due:
            return
        head = (await self._chain.rpc.latest_block()).number
        next_nonce = await self.count("latest")
        for flight in sorted(due, key=lambda flight: flight.transaction.nonce):
            await self._look_after(flight, head, next_nonce)

    async def _look_after(self, flight: Flight, head: int, next_nonce: int) -> None:
        transaction = flight.transaction
        receipt = await self.receipt(transaction)
        now = self._clock.now()
        is_expected = transaction.state == State.MINED or next_nonce > transaction.nonce
        if receipt is not None or not is_expected:
            flight.missing_since = None
        elif flight.missing_since is None:
            flight.missing_since = now
        look = Look(now, receipt, head, next_nonce, flight.missing_since, flight.broadcast_at)
        step = next_step(transaction, look, self._pace)
        if step is Step.INCLUDE:
            await self._enter(flight, State.MINED, receipt)
            step = next_step(transaction, look, self._pace)
        await self._take(step, flight, receipt)

    async def _take(self, step: Step, flight: Flight, receipt: Receipt | None) -> None:
        match step:
            case Step.WAIT | Step.INCLUDE:
                pass
            case Step.SETTLE:
                flight.next_look = self._clock.now() + self._pace.settled_poll_seconds
                flight.settled.set()
            case Step.FINISH:
                await self._enter(flight, State.FINAL, receipt)
                flight.settled.set()
                self._forget(flight)
            case Step.REVERT:
                await self._fail(flight, RevertedError(await self._reason(flight)), receipt)
            case Step.RETURN:
                _log.warning(
                    "the chain dropped a transaction's block; it is sent again",
                    purpose=flight.transaction.purpose,
                )
                flight.settled.clear()
                await self._enter(flight, State.SENT, None)
                await self._repeat(flight)
            case Step.BROADCAST:
                await self._repeat(flight)
            case Step.REPLACE:
                await self._replace(flight)
            case Step.LOSE:
                problem = f"nonce {flight.transaction.nonce} was used by another transaction"
                await self._fail(flight, TransactionLostError(problem))

    async def _reason(self, flight: Flight) -> str:
        """Why it failed in its block, as far as asking again tells."""
        receipt = flight.transaction.receipt
        block = None if receipt is None else receipt.block_number
        try:
            await self._chain.check_call(self._signer.address, flight.transaction.call, block)
        except RevertedError as error:
            return error.reason
        except ChainError as error:
            return f"unknown, because {error}"
        return ""

    async def _broadcast(self, flight: Flight) -> None:
        await self._chain.rpc.broadcast(flight.transaction.newest.raw)
        flight.broadcast_at = self._clock.now()
        if flight.transaction.state == State.PREPARED:
            await self._enter(flight, State.SENT, None)

    async def _repeat(self, flight: Flight) -> None:
        try:
            await self._broadcast(flight)
        except RefusedError as error:
            # "nonce too low", for one, means that an attempt was mined: its receipt will tell.
            flight.broadcast_at = self._clock.now()
            _log.info(
                "a node refuses a transaction that is under way",
                purpose=flight.transaction.purpose,
                problem=error.message,
            )

    async def _replace(self, flight: Flight) -> None:
        transaction = flight.transaction
        base_fee = (await self._chain.rpc.latest_block()).base_fee
        fees = replacement_fees(transaction.newest.fees, base_fee, self._tip, transaction.max_fee)
        if fees is None:
            since = flight.broadcast_at
            if since is None or self._clock.now() - since >= self._pace.repeat_seconds:
                _log.warning(
                    "a transaction waits for gas to be as cheap as allowed",
                    purpose=transaction.purpose,
                    most=format_wei(transaction.max_fee),
                )
                await self._repeat(flight)
            return
        attempt = await self.signed(
            transaction.call, transaction.nonce, transaction.gas_limit, fees
        )
        await self._record.add_attempt(transaction, attempt)
        _log.info(
            "replacing a transaction that is stuck",
            purpose=transaction.purpose,
            max_fee=format_wei(fees.max_fee),
        )
        await self._repeat(flight)

    async def _enter(self, flight: Flight, state: State, receipt: Receipt | None) -> None:
        if receipt is not None:
            self.nonce_floor = max(self.nonce_floor, flight.transaction.nonce + 1)
        await self._record.enter(flight.transaction, state, self._clock.now(), receipt=receipt)

    async def _fail(
        self, flight: Flight, error: ChainError, receipt: Receipt | None = None
    ) -> None:
        await self._record.enter(
            flight.transaction, State.FAILED, self._clock.now(), receipt=receipt, reason=str(error)
        )
        flight.error = error
        flight.settled.set()
        self._forget(flight)

    def _forget(self, flight: Flight) -> None:
        self.by_purpose.pop(flight.transaction.purpose, None)
