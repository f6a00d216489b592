"""Tickets that won, read back from the books; and what of each sender's is not redeemed yet."""

from collections.abc import Iterable

from sqlalchemy import Connection, Row, func, select

from network.chain.model import SignedTicket
from network.payments.tickets import CreationRound, Ticket
from network.units import Address, Wei
from node.accounting.tables import ticket_nonces, winning_tickets
from node.payments.receiver import Winner


class Pending:
    """Face values by sender, in wei, that a sender's reserve has to cover before new ones."""

    def __init__(self) -> None:
        self._senders: dict[bytes, tuple[Address, Wei]] = {}
        self._sums: dict[Address, int] = {}

    def add(self, winner: Winner) -> None:
        """Count a ticket; a second time changes nothing."""
        if winner.ticket_hash in self._senders:
            return
        ticket = winner.signed.ticket
        self._senders[winner.ticket_hash] = (ticket.sender, ticket.face_value)
        self._sums[ticket.sender] = self._sums.get(ticket.sender, 0) + ticket.face_value

    def drop(self, ticket_hash: bytes) -> None:
        """The ticket was redeemed, or never will be."""
        found = self._senders.pop(ticket_hash, None)
        if found is None:
            return
        sender, face_value = found
        self._sums[sender] -= face_value
        if not self._sums[sender]:
            del self._sums[sender]

    def of(self, sender: Address) -> Wei:
        """Return what `sender` has yet to pay for tickets that won, in wei."""
        return Wei(self._sums.get(sender, 0))

    def restore(self, winners: Iterable[Winner]) -> None:
        """Take up what an earlier process left."""
        for winner in winners:
            self.add(winner)


def all_winners(connection: Connection) -> list[Winner]:
    """Return every ticket that ever won, the oldest first."""
    query = select(winning_tickets).order_by(winning_tickets.c.won_at)
    return [winner_of(row) for row in connection.execute(query)]


def winner_of(row: Row[tuple[object, ...]]) -> Winner:
    """Return the ticket in a row of `winning_tickets`."""
    ticket = Ticket(
        recipient=Address(bytes.fromhex(row.recipient)),
        sender=Address(bytes.fromhex(row.sender)),
        face_value=row.face_value,
        win_prob=int(row.win_prob),
        sender_nonce=row.sender_nonce,
        recipient_rand_hash=bytes.fromhex(row.recipient_rand_hash),
        creation=CreationRound(row.creation_round, bytes.fromhex(row.creation_block_hash)),
    )
    signed = SignedTicket(ticket, bytes.fromhex(row.signature), int(row.recipient_rand))
    return Winner(signed, bytes.fromhex(row.ticket_hash), row.params_expiration_block)


def newest_expiration(connection: Connection) -> int | None:
    """Return the last block that any ticket's quote expired or expires at."""
    newest: int | None = connection.scalar(select(func.max(ticket_nonces.c.expiration_block)))
    return newest


def seen_nonces(connection: Connection, after_block: int) -> list[tuple[bytes, int, int]]:
    """Return recipientRandHash, nonce and expiration block of tickets whose quotes expire after that."""
    table = ticket_nonces.c
    query = select(table.recipient_rand_hash, table.nonce, table.expiration_block).where(
        table.expiration_block > after_block
    )
    return [
        (bytes.fromhex(hash_), nonce, block) for hash_, nonce, block in connection.execute(query)
    ]
