"""What the chain says became of tickets: from receipts and events to steps in the books.

Only an event tells what a ticket paid. A successful transaction proves nothing: a batch skips what it
cannot redeem, and a ticket is used up even where it paid nothing.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

import structlog

from network.chain.contracts import LivepeerChain
from network.chain.model import Payout, Receipt
from network.runtime.clock import Clock
from network.units import Address, Wei, format_wei
from node.payments.receiver import Winner
from node.payments.redemptions import Entry, Record, Redemptions, State
from node.payments.winnings import Pending

#: Blocks in which the event of a ticket that others redeemed is looked for, the newest first: on
#: Arbitrum somewhat more than two rounds.
_SEARCHED_BLOCKS: Final = 600_000
_PIECE: Final = 10_000
#: So long a transaction may take to come back after a reorganisation.
_RETURN_SECONDS: Final = 120.0
_REORGANISED: Final = "a reorganisation took its transaction away"

log = structlog.get_logger(__name__)


class Settler:
    """Books what transactions brought."""

    def __init__(
        self,
        chain: LivepeerChain,
        books: Redemptions,
        pending: Pending,
        clock: Clock,
        *,
        final_after: float,
    ) -> None:
        """`final_after`: seconds after which a redemption is not expected to be undone."""
        self._chain = chain
        self._books = books
        self._pending = pending
        self._clock = clock
        self._final_after = final_after

    async def settle(self, records: Sequence[Record], receipt: Receipt) -> None:
        """Book the transaction that was sent for `records`, if the chain still has it."""
        found = await self._chain.receipt(receipt.transaction_hash)
        if found is None:
            await self._missing(records)
            return
        payouts = await self._payouts(found)
        costs = shares(found.cost, len(records))
        steps: list[tuple[Record, Entry]] = []
        for record, cost in zip(records, costs, strict=True):
            ticket_hash = record.winner.ticket_hash
            if ticket_hash in payouts:
                steps.append((record, _mined(payouts[ticket_hash], cost, record.last.purpose)))
            else:
                elsewhere = await self.find(record.winner)
                steps.append((record, _not_redeemed(record, found, cost, elsewhere)))
        await self._write(steps)

    async def _missing(self, records: Sequence[Record]) -> None:
        """A reorganisation took the transaction away; most come back by themselves.

        Sending another one at once would pay for gas twice.
        """
        if self._clock.now() - records[0].last.at >= _RETURN_SECONDS:
            await self.queue(records, _REORGANISED, failed=False)

    async def queue(self, records: Sequence[Record], reason: str, *, failed: bool) -> None:
        """Take back what was to be sent; `failed`: leave it alone for a while."""
        steps = [
            (
                record,
                Entry(
                    record.winner.ticket_hash,
                    State.QUEUED,
                    purpose=record.last.purpose if failed else "",
                    reason=reason,
                ),
            )
            for record in records
        ]
        await self._write(steps)

    async def book_others(self, record: Record) -> bool:
        """Book a ticket that was redeemed by a transaction that is not ours, if its event is found."""
        payout = await self.find(record.winner)
        if payout is None:
            return False
        await self._write([(record, _mined(payout, Wei(0), "", "redeemed by somebody else"))])
        return True

    async def write_off(self, record: Record, reason: str) -> None:
        """Book that nothing will come of it; unless it was paid without our knowing."""
        if await self._chain.is_used(record.winner.ticket_hash):
            if await self.book_others(record):
                return
            reason = f"{reason}; it was used, and no event tells what it paid"
        entry = Entry(record.winner.ticket_hash, State.WRITTEN_OFF, reason=reason)
        await self._write([(record, entry)])

    async def confirm(self, mined: Sequence[Record]) -> None:
        """Look whether what was mined still stands; after long enough it is final."""
        now = self._clock.now()
        for transaction_hash in dict.fromkeys(r.last.transaction_hash for r in mined):
            receipt = await self._chain.receipt(transaction_hash)
            payouts = {} if receipt is None else await self._payouts(receipt)
            steps: list[tuple[Record, Entry]] = []
            for record in [r for r in mined if r.last.transaction_hash == transaction_hash]:
                step = await self._confirmed(record, payouts, now)
                steps += [(record, step)] if step else []
            await self._write(steps)

    async def _confirmed(
        self, record: Record, payouts: Mapping[bytes, Payout], now: float
    ) -> Entry | None:
        last = record.last
        payout = payouts.get(last.ticket_hash)
        if payout is None:
            if not await self._chain.is_used(last.ticket_hash):
                # Ours is sent again by whoever sends transactions: it is waited for.
                state = State.SENT if last.purpose else State.QUEUED
                return Entry(last.ticket_hash, state, purpose=last.purpose, reason=_REORGANISED)
            payout = await self.find(record.winner)
            return None if payout is None else _mined(payout, Wei(0), "", "after a reorganisation")
        if now - last.at >= self._final_after:
            return replace(last, state=State.FINAL, amount=payout.amount)
        return None if payout.amount == last.amount else replace(last, amount=payout.amount)

    async def find(self, winner: Winner) -> Payout | None:
        """Return what the ticket paid, whoever redeemed it; None while it is not used."""
        if not await self._chain.is_used(winner.ticket_hash):
            return None
        recipient: Address = winner.signed.ticket.recipient
        newest = (await self._chain.rpc.latest_block()).number
        last = newest
        while last >= 0 and newest - last < _SEARCHED_BLOCKS:
            first = max(0, last - _PIECE + 1)
            for transaction in reversed(await self._chain.redeemed(recipient, first, last)):
                receipt = await self._chain.receipt(transaction)
                payouts = {} if receipt is None else await self._payouts(receipt)
                if winner.ticket_hash in payouts:
                    return payouts[winner.ticket_hash]
            last = first - 1
            await asyncio.sleep(0)
        return None

    async def _payouts(self, receipt: Receipt) -> dict[bytes, Payout]:
        return {payout.ticket_hash: payout for payout in await self._chain.payouts(receipt)}

    async def _write(self, steps: Sequence[tuple[Record, Entry]]) -> None:
        for record in await self._books.write(steps) if steps else ():
            if record.state in (State.QUEUED, State.SENT):
                self._pending.add(record.winner)
            else:
                self._pending.drop(record.winner.ticket_hash)
            _tell(record)


def shares(cost: Wei, count: int) -> list[Wei]:
    """Return a transaction's cost by ticket; together it is the whole, to the wei."""
    each, rest = divmod(cost, count)
    return [Wei(each + (index < rest)) for index in range(count)]


def _mined(payout: Payout, cost: Wei, purpose: str, reason: str = "") -> Entry:
    return Entry(
        payout.ticket_hash,
        State.MINED,
        amount=payout.amount,
        cost=cost,
        transaction_hash=payout.transaction_hash,
        purpose=purpose,
        reason=reason,
    )


def _not_redeemed(record: Record, receipt: Receipt, cost: Wei, elsewhere: Payout | None) -> Entry:
    """Our transaction did not redeem it: somebody else did before, or it is tried again."""
    if elsewhere is not None:
        return _mined(elsewhere, cost, "", "redeemed by somebody else")
    return Entry(
        record.winner.ticket_hash,
        State.QUEUED,
        cost=cost,
        transaction_hash=receipt.transaction_hash,
        purpose=record.last.purpose,
        reason="its transaction did not redeem it",
    )


def _tell(record: Record) -> None:
    last = record.last
    facts = {
        "ticket": last.ticket_hash.hex(),
        "transaction": last.transaction_hash.hex(),
        "reason": last.reason,
    }
    match last.state:
        case State.MINED:
            short = record.loss
            log.info("ticket redeemed", paid=format_wei(last.amount), **facts)
            if short:
                log.warning(
                    "a ticket paid less than its face value", short=format_wei(short), **facts
                )
        case State.WRITTEN_OFF:
            log.warning("ticket written off", lost=format_wei(record.loss), **facts)
        case State.QUEUED:
            log.info("ticket back in the queue", **facts)
        case State.FINAL | State.SENT:
            log.debug("ticket", state=last.state.value, **facts)
