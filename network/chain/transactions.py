"""Sends an account's transactions: each once, whatever happens to processes, nodes and fees.

    async with open_transactions(signer, chain, data_dir, clock, settings.chain) as transactions:
        receipt = await transactions.send(calls.fund_deposit(amount), "fund:2026-11-24")

Every signed version is on disk before a node sees it. After a crash what was under way goes on; a
version that is not mined is replaced at a higher fee under the same nonce, so that only one of them
can ever count, and the receipt of any is taken.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final

import structlog

from network.chain.contracts import LivepeerChain
from network.chain.fees import first_fees
from network.chain.flight import Flight, Flights
from network.chain.key_lock import hold_key, user_folder
from network.chain.model import Call, ChainError, Receipt, RefusedError
from network.chain.progress import Pace
from network.chain.record import Record, State, Transaction
from network.chain.settings import ChainSettings, GasSettings
from network.chain.signed import TransactionSigner
from network.runtime.clock import Clock
from network.runtime.database import open_database
from network.runtime.supervisor import supervise
from network.units import Address, Wei

_FILE: Final = "transactions.sqlite"
_TRANSFER_GAS: Final = 21_000
_MOST_GAPS: Final = 16
_TRIES: Final = 3

_log = structlog.get_logger(__name__)


class TransactionSender:
    """Made by `open_transactions`; implements `Transactions`."""

    def __init__(
        self,
        account: Address,
        chain: LivepeerChain,
        record: Record,
        flights: Flights,
        *,
        clock: Clock,
        gas: GasSettings,
        pace: Pace,
    ) -> None:
        self.account: Final = account
        self._chain = chain
        self._record = record
        self._flights = flights
        self._clock = clock
        self._gas = gas
        self._pace = pace
        self._starting = asyncio.Lock()
        self._unfinished: set[asyncio.Future[Flight | Receipt]] = set()
        self._is_failing = False

    @property
    def under_way(self) -> tuple[str, ...]:
        """Purposes of transactions whose outcome is not known yet, by nonce."""
        return tuple(flight.transaction.purpose for flight in self._flights.unsettled())

    async def send(self, call: Call, purpose: str, *, max_fee: Wei | None = None) -> Receipt:
        """Have `call` executed once for `purpose`, and wait for its confirmations.

        While a transaction for `purpose` is under way this waits for that one; once one succeeded
        its receipt is the answer, also after a restart. Cancelling only ends the waiting. `max_fee`
        (wei per gas) stands in for chain.gas.max_fee_gwei.

        Raises, with nothing sent: GasPriceError, RevertedError if the call would fail now,
        RefusedError (no ether for gas, say), ChainUnavailableError, DatabaseError. Raises after it
        was sent: RevertedError if it failed in its block, TransactionLostError. After any of these
        another `send` for the same purpose starts again.
        """
        flight = self._flights.by_purpose.get(purpose)
        if flight is None:
            # Cancelled halfway, a transaction would be on disk and looked after by nobody.
            starting = asyncio.ensure_future(self._join_or_start(call, purpose, max_fee))
            self._unfinished.add(starting)
            starting.add_done_callback(self._unfinished.discard)
            found = await asyncio.shield(starting)
            if isinstance(found, Receipt):
                return found
            flight = found
        while True:
            await flight.settled.wait()
            if flight.error is not None:
                raise flight.error
            if flight.transaction.receipt is not None:
                return flight.transaction.receipt

    def allow(self, purpose: str, max_fee: Wei) -> None:
        """Let what is under way for `purpose`, if anything is, offer up to so much per gas.

        Forgotten with the process; a lower fee than was allowed before changes nothing.
        """
        flight = self._flights.by_purpose.get(purpose)
        if flight is not None:
            transaction = flight.transaction
            transaction.max_fee = max(transaction.max_fee, max_fee)

    async def run(self) -> None:
        """Look after what is under way, until cancelled."""
        while True:
            try:
                await self._flights.look_after_all()
                await self._fill_gaps()
            except ChainError as error:
                if not self._is_failing:
                    _log.warning("cannot look after transactions", problem=str(error))
                self._is_failing = True
            else:
                self._is_failing = False
            await asyncio.sleep(self._pace.poll_seconds)

    async def finish_starting(self) -> None:
        """Wait for transactions that are being written down; before the record is closed."""
        await asyncio.gather(*self._unfinished, return_exceptions=True)

    async def _join_or_start(
        self, call: Call, purpose: str, max_fee: Wei | None
    ) -> Flight | Receipt:
        async with self._starting:
            # Another caller may have started it while this one waited.
            flight = self._flights.by_purpose.get(purpose)
            if flight is not None:
                return flight
            earlier = await self._earlier_receipt(purpose)
            return earlier or await self._start(call, purpose, max_fee)

    async def _earlier_receipt(self, purpose: str) -> Receipt | None:
        """What an ended transaction for `purpose` came to, if it succeeded.

        One that was given up may have been mined after all: the chain is asked again.
        """
        for transaction in await self._record.of_purpose(purpose):
            if transaction.state == State.FINAL:
                return transaction.receipt
            receipt = await self._flights.receipt(transaction)
            if receipt is not None and receipt.is_successful:
                now = self._clock.now()
                await self._record.enter(transaction, State.FINAL, now, receipt=receipt)
                return receipt
        return None

    async def _start(self, call: Call, purpose: str, max_fee: Wei | None) -> Flight:
        gas_limit = call.gas_limit
        if gas_limit is None:
            estimate = await self._chain.estimate_gas(self.account, call)
            gas_limit = estimate + estimate * self._gas.limit_margin_percent // 100
        most = self._gas.max_fee if max_fee is None else max_fee
        for tries in range(1, _TRIES + 1):
            nonce = await self._next_nonce()
            try:
                return await self._start_at(
                    nonce, call, purpose=purpose, gas_limit=gas_limit, most=most
                )
            except RefusedError as error:
                if "nonce too low" not in error.message.lower() or tries == _TRIES:
                    raise
                # The node that counted lags behind the one that refused.
                self._flights.nonce_floor = nonce + 1
        raise AssertionError("the last try returns or raises")

    async def _start_at(
        self, nonce: int, call: Call, *, purpose: str, gas_limit: int, most: Wei
    ) -> Flight:
        base_fee = (await self._chain.rpc.latest_block()).base_fee
        fees = first_fees(base_fee, Wei(self._gas.tip_wei), most)
        attempt = await self._flights.signed(call, nonce, gas_limit, fees)
        transaction = Transaction(
            purpose=purpose,
            nonce=nonce,
            call=call,
            gas_limit=gas_limit,
            max_fee=most,
            attempts=[attempt],
            created_at=attempt.created_at,
        )
        return await self._flights.begin(transaction)

    async def _next_nonce(self) -> int:
        flights = self._flights
        used = [flight.transaction.nonce + 1 for flight in flights.by_purpose.values()]
        return max(await flights.count("pending"), flights.nonce_floor, *used)

    async def _fill_gaps(self) -> None:
        """Spend nonces that block ours: another program's transaction had one and was dropped."""
        waiting = self._flights.unsettled()
        if not waiting:
            return
        first = waiting[0].transaction
        if self._clock.now() - first.created_at < self._pace.replace_seconds:
            return
        next_nonce = await self._flights.count("latest")
        if not 0 < first.nonce - next_nonce <= _MOST_GAPS:
            return
        async with self._starting:
            for nonce in range(next_nonce, first.nonce):
                _log.warning("filling a gap before a stuck transaction", nonce=nonce)
                try:
                    await self._start_at(
                        nonce,
                        Call(self.account),
                        purpose=f"gap:{nonce}",
                        gas_limit=_TRANSFER_GAS,
                        most=first.max_fee,
                    )
                except RefusedError as error:
                    _log.warning("the gap is not filled", nonce=nonce, problem=error.message)


@asynccontextmanager
async def open_transactions(
    signer: TransactionSigner,
    chain: LivepeerChain,
    data_dir: Path,
    clock: Clock,
    settings: ChainSettings,
    *,
    pace: Pace | None = None,
    lock_folder: Path | None = None,
) -> AsyncIterator[TransactionSender]:
    """The only sender of `signer`'s account, with its record in `data_dir`.

    `pace` is made of `settings` unless given. Raises ConfigError if another process sends for the
    account, DatabaseError if the record cannot be opened.
    """
    paced = pace or Pace(
        confirmations=settings.confirmations, replace_seconds=settings.gas.replace_after_seconds
    )
    profile = chain.profile
    folders = (data_dir, lock_folder or user_folder())
    held = hold_key(signer.address, profile.chain_id, folders)
    url = f"sqlite:///{await asyncio.to_thread(data_dir.resolve)}/{_FILE}"
    async with AsyncExitStack() as stack:
        await asyncio.to_thread(held.__enter__)
        stack.push_async_callback(asyncio.to_thread, held.__exit__, None, None, None)
        database = await stack.enter_async_context(open_database(url, "network.chain.migrations"))
        record = Record(database, signer.address, f"{profile.chain_id}:{profile.controller.hex()}")
        tip = Wei(settings.gas.tip_wei)
        flights = Flights(signer, chain, record, clock, tip=tip, pace=paced)
        await flights.resume()
        supervisor = await stack.enter_async_context(supervise(clock))
        sender = TransactionSender(
            signer.address, chain, record, flights, clock=clock, gas=settings.gas, pace=paced
        )
        supervisor.start("transactions", sender.run)
        stack.push_async_callback(sender.finish_starting)
        yield sender
