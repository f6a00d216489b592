"""What to redeem next: reads the chain, lets the rules decide, and writes down what will be sent."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from network.chain.contracts import LivepeerChain
from network.chain.model import (
    Call,
    ChainError,
    ChainUnavailableError,
    ChainView,
    RevertedError,
    SenderInfo,
    SignedTicket,
)
from network.identity import keccak
from network.runtime.clock import Clock
from network.units import Address, Wei, format_wei
from node.payments import reverts
from node.payments.gas_policy import GasPolicy, Offer, choose, gas_limit, is_worth
from node.payments.redemption import (
    Candidate,
    Due,
    Reason,
    Sifted,
    Standing,
    View,
    Wait,
    deadline,
    is_late,
    sift,
)
from node.payments.redemptions import Entry, Record, Redemptions, State
from node.payments.reverts import Meaning
from node.payments.settling import Settler

#: One endpoint's word is no reason to give up money: it has to say so again so many L1 blocks later.
_SECOND_LOOK_BLOCKS: Final = 3
#: Gas that a redemption is taken to use, the L1 part included, where it was not estimated.
_PLANNED_GAS: Final = 1_200_000
#: Other tickets that are used show themselves when their gas is estimated.
_MAY_BE_USED: Final = frozenset(
    {Reason.SHORT, Reason.NO_FUNDS, Reason.NOT_ACTIVE, Reason.UNLOCKED}
)

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Sending:
    """A transaction that is to be sent, or goes on after a restart.

    Wei per gas: `max_fee` is offered, up to `most` once its tickets are near their deadline; beyond
    that it would cost more than they pay.
    """

    purpose: str
    records: tuple[Record, ...]
    max_fee: Wei
    most: Wei
    gas_limit: int | None = None


class Planner:
    """Judges all winning tickets of this node, whoever their senders are."""

    def __init__(
        self,
        *,
        chain: LivepeerChain,
        watch: ChainView,
        account: Address,
        books: Redemptions,
        settler: Settler,
        policy: GasPolicy,
        clock: Clock,
    ) -> None:
        """`account` pays for gas."""
        self._chain = chain
        self._watch = watch
        self._account = account
        self._books = books
        self._settler = settler
        self._policy = policy
        self._clock = clock
        #: Why each ticket waits, as of the last look, by ticket hash.
        self.waiting: dict[bytes, Wait] = {}
        self._doubts: dict[bytes, int] = {}
        self._earlier_doubts: dict[bytes, int] = {}
        self._alarmed: set[tuple[bytes, str]] = set()

    @property
    def late(self) -> int:
        """How many tickets are near their deadline and still wait."""
        return sum(wait.is_late for wait in self.waiting.values())

    async def plan(self, *, may_send: bool) -> Sending | None:
        """Judge every ticket; what is to be sent is on disk as sent when this returns.

        Raises ChainError, DatabaseError.
        """
        records = await self._books.unfinished()
        if not records:
            self.waiting = {}
            return None
        await self._settler.confirm([r for r in records if r.state is State.MINED])
        queued = {r.winner.ticket_hash: r for r in records if r.state is State.QUEUED}
        sent = [r for r in records if r.state is State.SENT]
        view = await self._look([*queued.values(), *sent])
        sifted = sift([r.candidate() for r in queued.values()], view, self._policy)
        self.waiting = {w.candidate.ticket_hash: w for w in sifted.waiting}
        self._earlier_doubts, self._doubts = self._doubts, {}
        for end in sifted.given_up:
            await self._give_up(queued[end.candidate.ticket_hash], end.reason, view)
        await self._book_used(
            [queued[w.candidate.ticket_hash] for w in sifted.waiting if w.reason in _MAY_BE_USED]
        )
        for record in sent:
            late = is_late(record.winner.signed.ticket, view, self._policy)
            self._wait(record.candidate(), Reason.UNDER_WAY, view, late=late)
        sending = None
        if may_send:
            sending = self._resumed(sent) if sent else await self._next(sifted, queued, view)
        self._alarm(view)
        return sending

    async def _book_used(self, records: Sequence[Record]) -> None:
        """A sender that cannot pay may be one whose ticket somebody else has redeemed."""
        for record in records:
            if await self._settler.book_others(record):
                del self.waiting[record.winner.ticket_hash]

    async def _look(self, queued: Sequence[Record]) -> View:
        """Read what the decisions depend on.

        The head is the one that payments are taken by: no number is to be revealed before the till
        refuses its quote.
        """
        head = self._watch.head
        start, length = await asyncio.gather(self._chain.round_start(), self._chain.round_length())
        tickets = [record.winner.signed.ticket for record in queued]
        senders: dict[Address, SenderInfo] = {}
        claimed: dict[tuple[Address, Address], Wei] = {}
        standings: dict[Address, Standing] = {}
        for recipient in dict.fromkeys(ticket.recipient for ticket in tickets):
            found = await self._standing(recipient)
            standings.update({} if found is None else {recipient: found})
        for sender, recipient in dict.fromkeys((t.sender, t.recipient) for t in tickets):
            try:
                senders[sender] = await self._chain.sender_info(sender)
                claimed[sender, recipient] = await self._chain.claimed_reserve(sender, recipient)
            except ChainUnavailableError:
                raise
            except ChainError as error:
                log.warning("cannot read a sender's funds", problem=str(error))
                senders.pop(sender, None)
        now = self._clock.now()
        return View(head, start, length, now, senders, claimed, standings)

    async def _standing(self, recipient: Address) -> Standing | None:
        try:
            return Standing(
                await self._chain.is_registered(recipient), await self._chain.is_active(recipient)
            )
        except ChainUnavailableError:
            raise
        except ChainError as error:
            log.warning("cannot read an orchestrator's standing", problem=str(error))
            return None

    def _resumed(self, sent: Sequence[Record]) -> Sending:
        """Go on with what a process that ended, or an outage, left open."""
        purpose = sent[0].last.purpose
        records = tuple(
            sorted(
                (record for record in sent if record.last.purpose == purpose),
                key=lambda record: record.winner.ticket_hash,
            )
        )
        pays = sum(record.winner.signed.ticket.face_value for record in records)
        most = Wei((pays - 1) // (_PLANNED_GAS * len(records)))
        return Sending(purpose, records, min(most, self._policy.max_gas_price), most)

    async def _next(
        self, sifted: Sifted, queued: Mapping[bytes, Record], view: View
    ) -> Sending | None:
        """Choose the next transaction's tickets and write them down as sent."""
        due = {verdict.candidate.ticket_hash: verdict for verdict in sifted.due}
        offers: list[Offer] = []
        for verdict in sifted.due:
            if len(offers) == self._policy.largest_batch:
                self._wait(verdict.candidate, Reason.IN_LINE, view, late=verdict.is_late)
                continue
            gas = await self._gas(verdict, queued[verdict.candidate.ticket_hash], view)
            if gas is not None:
                offers.append(Offer(verdict.candidate.ticket_hash, verdict.payout, gas))
        price = view.head.gas_price
        balance = await self._chain.balance(self._account)
        choice = choose(offers, price, balance, self._policy)
        for hashes, reason in (
            (choice.uneconomic, Reason.UNECONOMIC),
            (choice.unaffordable, Reason.NO_GAS_MONEY),
            (choice.in_line, Reason.IN_LINE),
        ):
            for ticket_hash in hashes:
                verdict = due[ticket_hash]
                self._wait(verdict.candidate, reason, view, late=verdict.is_late)
        members = [offer for offer in offers if offer.ticket_hash in choice.members]
        return await self._sent(members, due, queued, view) if members else None

    async def _sent(
        self,
        members: Sequence[Offer],
        due: Mapping[bytes, Due],
        queued: Mapping[bytes, Record],
        view: View,
    ) -> Sending | None:
        records = sorted(
            (queued[member.ticket_hash] for member in members),
            key=lambda record: record.winner.ticket_hash,
        )
        call = await redeeming(self._chain, [record.winner.signed for record in records])
        gas = await self._chain.estimate_gas(self._account, call)
        if not is_worth(members, gas, view.head.gas_price):
            for member in members:
                verdict = due[member.ticket_hash]
                self._wait(verdict.candidate, Reason.UNECONOMIC, view, late=verdict.is_late)
            return None
        # Never more than the tickets pay; above the operator's wish only for those that press.
        most = Wei((sum(member.payout for member in members) - 1) // gas)
        presses = any(due[member.ticket_hash].is_pressing for member in members)
        max_fee = most if presses else min(most, self._policy.max_gas_price)
        purpose = purpose_of(records)
        steps = [
            (record, Entry(record.winner.ticket_hash, State.SENT, purpose=purpose))
            for record in records
        ]
        written = await self._books.write(steps)
        return Sending(purpose, tuple(written), max_fee, most, max(gas_limit(members), gas))

    async def _gas(self, verdict: Due, record: Record, view: View) -> int | None:
        """Return the gas of redeeming a ticket alone; None where the contract refuses it, noted."""
        call = await redeeming(self._chain, [record.winner.signed])
        try:
            return await self._chain.estimate_gas(self._account, call)
        except RevertedError as error:
            await self._refused(verdict, record, view, error.reason)
            return None

    async def _refused(self, verdict: Due, record: Record, view: View, reason: str) -> None:
        meaning = reverts.classify(reason)
        if meaning is Meaning.USED and await self._settler.book_others(record):
            return
        if meaning is Meaning.PERMANENT:
            await self._give_up(record, reason, view)
            return
        candidate = verdict.candidate
        self._wait(candidate, Reason.REFUSED, view, late=verdict.is_late, detail=reason)

    async def _give_up(self, record: Record, reason: str, view: View) -> None:
        """Write a ticket off, if it cannot be redeemed and this is not heard for the first time."""
        ticket_hash, now = record.winner.ticket_hash, view.head.l1_block
        first = self._earlier_doubts.get(ticket_hash, now)
        if now >= first + _SECOND_LOOK_BLOCKS:
            await self._settler.write_off(record, reason)
            return
        self._doubts[ticket_hash] = first
        self._wait(record.candidate(), Reason.REFUSED, view, late=False, detail=reason)

    def _wait(
        self, candidate: Candidate, reason: Reason, view: View, *, late: bool, detail: str = ""
    ) -> None:
        check_at = view.head.l1_block + 1
        self.waiting[candidate.ticket_hash] = Wait(candidate, reason, check_at, late, detail)

    def _alarm(self, view: View) -> None:
        """Say once for each reason what may expire unredeemed."""
        late = {(h, w.detail or w.reason.value): w for h, w in self.waiting.items() if w.is_late}
        for key, wait in late.items():
            if key in self._alarmed:
                continue
            ticket = wait.candidate.ticket
            log.warning(
                "a winning ticket is about to expire",
                ticket=wait.candidate.ticket_hash.hex(),
                face_value=format_wei(ticket.face_value),
                blocks_left=deadline(ticket, view) - view.head.l1_block,
                reason=key[1],
            )
        self._alarmed = set(late)


async def redeeming(chain: LivepeerChain, tickets: Sequence[SignedTicket]) -> Call:
    """Return the transaction for one ticket, or for several in a batch."""
    calls = await chain.calls()
    return calls.redeem(tickets[0]) if len(tickets) == 1 else calls.redeem_batch(tickets)


def purpose_of(records: Sequence[Record]) -> str:
    """Return what names a redemption for the sender of transactions; each try has its own name."""
    names = [f"{r.winner.ticket_hash.hex()}:{r.sendings + 1}" for r in records]
    if len(records) == 1:
        return f"redeem:{names[0].removesuffix(':1')}"
    return f"redeem-batch:{keccak(' '.join(names).encode()).hex()}"
