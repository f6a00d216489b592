"""What became of each winning ticket: written down step by step, and read back.

    queued --> sent --> mined --> final
       |        |         |
       |<-------+<--------+     what a reorganisation took away goes back, as what failed does
       v
    written-off

A ticket without an entry is queued. Nothing is sent before "sent" is on disk. A ticket that somebody
else redeemed goes from queued to mined.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import Connection, select

from network.identity import checksum
from network.runtime.clock import Clock
from network.runtime.database import Database
from network.units import Address, Wei
from node.accounting.tables import redemptions, winning_tickets
from node.payments.receiver import Winner
from node.payments.redemption import Candidate, pause_after
from node.payments.winnings import winner_of

_NOTHING: Final = Wei(0)


class State(StrEnum):
    """See the module."""

    QUEUED = "queued"
    SENT = "sent"
    MINED = "mined"
    FINAL = "final"
    WRITTEN_OFF = "written-off"


_NEXT: Final[Mapping[State, frozenset[State]]] = {
    # Mined at once: somebody else redeemed it, for us.
    State.QUEUED: frozenset({State.SENT, State.MINED, State.WRITTEN_OFF}),
    State.SENT: frozenset({State.QUEUED, State.MINED}),
    State.MINED: frozenset({State.QUEUED, State.SENT, State.MINED, State.FINAL}),
    State.FINAL: frozenset(),
    State.WRITTEN_OFF: frozenset(),
}
_ENDS: Final = (State.FINAL, State.WRITTEN_OFF)


@dataclass(frozen=True, slots=True)
class Entry:
    """One step of a ticket. Wei; `at` in unix seconds, 0 until it is written.

    `purpose` names the transaction that was sent, or, of a queued ticket, the one that failed.
    """

    ticket_hash: bytes
    state: State
    amount: Wei = _NOTHING
    cost: Wei = _NOTHING
    transaction_hash: bytes = b""
    purpose: str = ""
    reason: str = ""
    at: float = 0.0


@dataclass(frozen=True, slots=True)
class Record:
    """A winning ticket and all that happened to it, the oldest first."""

    winner: Winner
    entries: tuple[Entry, ...] = ()

    @property
    def state(self) -> State:
        """What it has come to."""
        return self.entries[-1].state if self.entries else State.QUEUED

    @property
    def last(self) -> Entry:
        """The newest step; an invented one for a ticket that nothing happened to."""
        if self.entries:
            return self.entries[-1]
        return Entry(self.winner.ticket_hash, State.QUEUED)

    @property
    def sendings(self) -> int:
        """How often something was sent for it."""
        return sum(entry.state is State.SENT for entry in self.entries)

    def candidate(self) -> Candidate:
        """As the rules see it: tickets whose transactions failed pause for longer each time."""
        failed = [e for e in self.entries if e.state is State.QUEUED and e.purpose]
        if not failed:
            return Candidate(self.winner)
        return Candidate(self.winner, failed[-1].at + pause_after(len(failed)))

    @property
    def income(self) -> Wei:
        """What it paid, by its event."""
        return self.last.amount if self.state in (State.MINED, State.FINAL) else _NOTHING

    @property
    def loss(self) -> Wei:
        """What of its face value will not come any more."""
        if self.state in (State.MINED, State.FINAL, State.WRITTEN_OFF):
            return Wei(self.winner.signed.ticket.face_value - self.income)
        return _NOTHING

    @property
    def cost(self) -> Wei:
        """What its redemption took in gas, failed ones included."""
        spent = {e.transaction_hash: e.cost for e in self.entries if e.cost}
        return Wei(sum(spent.values()))


@dataclass(frozen=True, slots=True)
class SenderLine:
    """What the winning tickets of one sender came to, in wei; pending counts those under way."""

    sender: str
    tickets: int = 0
    face_value: Wei = _NOTHING
    pending: Wei = _NOTHING
    under_way: Wei = _NOTHING
    redeemed: Wei = _NOTHING
    written_off: Wei = _NOTHING
    gas: Wei = _NOTHING

    def plus(self, record: Record) -> "SenderLine":
        """Return the sum with one more ticket; pending, redeemed and written off are its face value."""
        face = record.winner.signed.ticket.face_value
        is_open = record.state in (State.QUEUED, State.SENT)
        return SenderLine(
            self.sender,
            self.tickets + 1,
            Wei(self.face_value + face),
            Wei(self.pending + face * is_open),
            Wei(self.under_way + face * (record.state is State.SENT)),
            Wei(self.redeemed + record.income),
            Wei(self.written_off + record.loss),
            Wei(self.gas + record.cost),
        )

    def as_json(self) -> dict[str, object]:
        """Return the line for programs: amounts as text, because wei outgrow JSON numbers."""
        return {
            k: str(v) if k not in ("sender", "tickets") else v for k, v in asdict(self).items()
        }


class Redemptions:
    """The journal of redemptions."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def unfinished(self) -> list[Record]:
        """Return every ticket that has not come to its end, the oldest first."""
        return await self._database.read(lambda connection: read_records(connection, ended=False))

    async def all(self) -> list[Record]:
        """Return every ticket that ever won, the oldest first."""
        return await self._database.read(read_records)

    async def write(self, steps: Iterable[tuple[Record, Entry]]) -> list[Record]:
        """Put all steps on disk, or none, and return the records that they lead to.

        Raises DatabaseError, and ValueError for a step that is not in the module's picture.
        """
        now = self._clock.now()
        after: list[Record] = []
        for record, entry in steps:
            if entry.state not in _NEXT[record.state]:
                raise ValueError(
                    f"ticket {entry.ticket_hash.hex()} cannot become {entry.state}: "
                    f"{[step.state.value for step in record.entries]}"
                )
            written = Entry(**{**_fields(entry), "at": now})
            after.append(Record(record.winner, (*record.entries, written)))
        await self._database.append([(redemptions, _row(record.last)) for record in after])
        return after


def read_records(connection: Connection, *, ended: bool = True) -> list[Record]:
    """Return winning tickets with their steps, the oldest first; `ended` False: the open ones."""
    over = select(redemptions.c.ticket_hash).where(
        redemptions.c.state.in_([state.value for state in _ENDS])
    )
    tickets = select(winning_tickets).order_by(winning_tickets.c.won_at)
    steps = select(redemptions).order_by(redemptions.c.id)
    if not ended:
        tickets = tickets.where(winning_tickets.c.ticket_hash.not_in(over))
        steps = steps.where(redemptions.c.ticket_hash.not_in(over))
    entries: dict[bytes, list[Entry]] = {}
    for row in connection.execute(steps):
        entry = _entry(row)
        entries.setdefault(entry.ticket_hash, []).append(entry)
    winners = [winner_of(row) for row in connection.execute(tickets)]
    return [Record(winner, tuple(entries.get(winner.ticket_hash, ()))) for winner in winners]


def by_sender(records: Sequence[Record]) -> tuple[list[SenderLine], SenderLine]:
    """Return a line for each sender, and their sum."""
    lines: dict[Address, SenderLine] = {}
    total = SenderLine("total")
    for record in records:
        sender = record.winner.signed.ticket.sender
        lines[sender] = lines.get(sender, SenderLine(checksum(sender))).plus(record)
        total = total.plus(record)
    return [lines[sender] for sender in sorted(lines)], total


def _fields(entry: Entry) -> dict[str, Any]:
    return {name: getattr(entry, name) for name in Entry.__dataclass_fields__}


def _row(entry: Entry) -> dict[str, object]:
    return {
        **_fields(entry),
        "state": entry.state.value,
        "ticket_hash": entry.ticket_hash.hex(),
        "transaction_hash": entry.transaction_hash.hex(),
    }


def _entry(row: Any) -> Entry:
    return Entry(
        bytes.fromhex(row.ticket_hash),
        State(row.state),
        row.amount,
        row.cost,
        bytes.fromhex(row.transaction_hash),
        row.purpose,
        row.reason,
        row.at,
    )
