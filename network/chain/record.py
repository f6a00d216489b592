"""What is durable of an account's transactions, and how it is read back."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

import orjson
from sqlalchemy import Connection, select

from network.chain.events import parse_receipt, receipt_json
from network.chain.fees import Fees
from network.chain.model import Call, Receipt
from network.chain.signed import Attempt
from network.chain.tables import attempts, states, transactions
from network.runtime.database import Database
from network.runtime.inserting import Row
from network.units import Address, Wei


class State(StrEnum):
    """Where a transaction is.

    prepared -> sent -> mined -> final, and failed from each of the first three. A reorganisation
    takes mined back to sent.
    """

    PREPARED = "prepared"
    SENT = "sent"
    MINED = "mined"
    FINAL = "final"
    FAILED = "failed"


ENDED: Final = frozenset({State.FINAL, State.FAILED})


@dataclass(slots=True)
class Transaction:
    """One use of one nonce, in all its attempts; the last of them is the one that counts now."""

    purpose: str
    nonce: int
    call: Call
    gas_limit: int
    max_fee: Wei
    attempts: list[Attempt]
    state: State = State.PREPARED
    receipt: Receipt | None = None
    reason: str = ""
    created_at: float = field(default=0.0)

    @property
    def id(self) -> str:
        return self.attempts[0].hash.hex()

    @property
    def newest(self) -> Attempt:
        return self.attempts[-1]


class Record:
    """The transactions of one account on one network, in the database that it shares with others.

    Every method raises DatabaseError.
    """

    def __init__(self, database: Database, account: Address, network: str) -> None:
        self._database = database
        self._account = account.hex()
        self._network = network

    async def add(self, transaction: Transaction, now: float) -> None:
        """The transaction and its first attempt are on disk when this returns."""
        call = transaction.call
        row = {
            "id": transaction.id,
            "account": self._account,
            "network": self._network,
            "purpose": transaction.purpose,
            "nonce": transaction.nonce,
            "recipient": call.to.hex(),
            "data": call.data,
            "value": call.value,
            "gas_limit": transaction.gas_limit,
            "max_fee": transaction.max_fee,
            "created_at": transaction.created_at,
        }
        await self._database.append(
            [
                (transactions, row),
                _attempt_row(transaction, transaction.newest),
                _state_row(transaction, now),
            ]
        )

    async def add_attempt(self, transaction: Transaction, attempt: Attempt) -> None:
        """Likewise durable before it is broadcast."""
        await self._database.append([_attempt_row(transaction, attempt)])
        transaction.attempts.append(attempt)

    async def enter(
        self,
        transaction: Transaction,
        state: State,
        now: float,
        *,
        receipt: Receipt | None = None,
        reason: str = "",
    ) -> None:
        """The transaction is in `state` from now on."""
        transaction.state, transaction.receipt, transaction.reason = state, receipt, reason
        await self._database.append([_state_row(transaction, now)])

    async def open(self) -> tuple[Transaction, ...]:
        """What has not ended yet, by nonce."""
        return await self._database.read(lambda connection: self._select(connection, None))

    async def of_purpose(self, purpose: str) -> tuple[Transaction, ...]:
        """Every transaction ever made for `purpose`, by nonce."""
        return await self._database.read(lambda connection: self._select(connection, purpose))

    def _select(self, connection: Connection, purpose: str | None) -> tuple[Transaction, ...]:
        mine = select(transactions).where(
            transactions.c.account == self._account, transactions.c.network == self._network
        )
        if purpose is None:
            ended = select(states.c.transaction_id).where(states.c.state.in_(ENDED))
            mine = mine.where(transactions.c.id.not_in(ended))
        else:
            mine = mine.where(transactions.c.purpose == purpose)
        rows = connection.execute(mine.order_by(transactions.c.nonce, transactions.c.created_at))
        return tuple(_read(connection, row._mapping) for row in rows.all())  # noqa: SLF001  public


def _read(connection: Connection, row: Any) -> Transaction:
    made = connection.execute(
        select(attempts)
        .where(attempts.c.transaction_id == row["id"])
        .order_by(attempts.c.created_at, attempts.c.max_fee)
    ).all()
    newest = connection.execute(
        select(states)
        .where(states.c.transaction_id == row["id"])
        .order_by(states.c.id.desc())
        .limit(1)
    ).one()
    transaction = Transaction(
        purpose=row["purpose"],
        nonce=row["nonce"],
        call=Call(Address(bytes.fromhex(row["recipient"])), bytes(row["data"]), row["value"]),
        gas_limit=row["gas_limit"],
        max_fee=row["max_fee"],
        attempts=_in_order(
            [
                Attempt(
                    hash=bytes.fromhex(attempt.hash),
                    fees=Fees(attempt.max_fee, attempt.tip),
                    raw=bytes(attempt.raw),
                    created_at=attempt.created_at,
                )
                for attempt in made
            ],
            row["id"],
        ),
        state=State(newest.state),
        reason=newest.reason,
        created_at=row["created_at"],
    )
    if newest.receipt:
        transaction.receipt = parse_receipt(orjson.loads(newest.receipt))
    return transaction


def _in_order(found: list[Attempt], first: str) -> list[Attempt]:
    """By what they offer, which only ever grows; the first one gave the transaction its name."""
    found.sort(key=lambda attempt: attempt.fees.max_fee)
    if found[0].hash.hex() != first:
        raise ValueError(f"attempts of transaction {first} are damaged")
    return found


def _attempt_row(transaction: Transaction, attempt: Attempt) -> Row:
    return (
        attempts,
        {
            "hash": attempt.hash.hex(),
            "transaction_id": transaction.id,
            "max_fee": attempt.fees.max_fee,
            "tip": attempt.fees.tip,
            "raw": attempt.raw,
            "created_at": attempt.created_at,
        },
    )


def _state_row(transaction: Transaction, now: float) -> Row:
    receipt = transaction.receipt
    return (
        states,
        {
            "transaction_id": transaction.id,
            "state": transaction.state.value,
            "receipt": "" if receipt is None else receipt_json(receipt).decode(),
            "reason": transaction.reason,
            "at": now,
        },
    )
