"""What an account sent. Rows are only ever added; the newest state of a transaction counts."""

from typing import Final

from sqlalchemy import (
    BigInteger,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
)

from network.runtime.database import WeiText

metadata: Final = MetaData()

#: One use of one nonce. `id` is the hash of its first attempt; `network` tells chain and Controller;
#: `max_fee` is the most that attempts may offer per gas.
transactions: Final = Table(
    "transactions",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("account", String(40), nullable=False),
    Column("network", Text, nullable=False),
    Column("purpose", Text, nullable=False),
    Column("nonce", BigInteger, nullable=False),
    Column("recipient", String(40), nullable=False),
    Column("data", LargeBinary, nullable=False),
    Column("value", WeiText, nullable=False),
    Column("gas_limit", BigInteger, nullable=False),
    Column("max_fee", WeiText, nullable=False),
    Column("created_at", Float, nullable=False),
    Index("transactions_by_purpose", "account", "network", "purpose"),
)

#: Each signed version of a transaction, written before it is broadcast.
attempts: Final = Table(
    "attempts",
    metadata,
    Column("hash", String(64), primary_key=True),
    Column("transaction_id", String(64), ForeignKey("transactions.id"), nullable=False),
    Column("max_fee", WeiText, nullable=False),
    Column("tip", WeiText, nullable=False),
    Column("raw", LargeBinary, nullable=False),
    Column("created_at", Float, nullable=False),
    Index("attempts_by_transaction", "transaction_id"),
)

#: prepared, sent, mined, final or failed; `receipt` as JSON-RPC has it, "" before there is one.
states: Final = Table(
    "states",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("transaction_id", String(64), ForeignKey("transactions.id"), nullable=False),
    Column("state", String(16), nullable=False),
    Column("receipt", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("at", Float, nullable=False),
    Index("states_by_transaction", "transaction_id"),
)
