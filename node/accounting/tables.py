"""The journal's tables. Rows are only ever added: a job, and later its one end."""

from typing import Final

from sqlalchemy import (
    BigInteger,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
)

from network.runtime.database import WeiText

metadata: Final = MetaData()

#: An accepted job and what is reserved for it. `payer` is 40 hex digits.
jobs: Final = Table(
    "jobs",
    metadata,
    Column("job_id", String(64), primary_key=True),
    Column("attempt_id", String(64), nullable=False),
    Column("payer", String(40), nullable=False),
    Column("model_id", Text, nullable=False),
    Column("width", Integer, nullable=False),
    Column("height", Integer, nullable=False),
    Column("images", Integer, nullable=False),
    Column("steps", Integer, nullable=False),
    Column("pixels", BigInteger, nullable=False),
    Column("price", Text, nullable=False),
    Column("fee", WeiText, nullable=False),
    Column("accepted_at", Float, nullable=False),
    Index("jobs_by_time", "accepted_at"),
    Index("jobs_by_attempt", "attempt_id"),
)

#: How a job ended and what was charged. The primary key makes a second end impossible.
ends: Final = Table(
    "ends",
    metadata,
    Column("job_id", String(64), ForeignKey("jobs.job_id"), primary_key=True),
    Column("state", String(16), nullable=False),
    Column("reason", Text, nullable=False),
    Column("charged", WeiText, nullable=False),
    Column("waited_seconds", Float, nullable=False),
    Column("run_seconds", Float, nullable=False),
    Column("ended_at", Float, nullable=False),
)

#: What one request's tickets brought: `credit` in wei, as a fraction in text.
payments: Final = Table(
    "payments",
    metadata,
    Column("attempt_id", String(64), primary_key=True),
    Column("payer", String(40), nullable=False),
    Column("credit", Text, nullable=False),
    Column("tickets", Integer, nullable=False),
    Column("received_at", Float, nullable=False),
)

#: Which tickets were seen. The key makes it impossible to credit one twice; hashes in hex.
ticket_nonces: Final = Table(
    "ticket_nonces",
    metadata,
    Column("recipient_rand_hash", String(64), primary_key=True),
    Column("nonce", BigInteger, primary_key=True),
    Column("expiration_block", BigInteger, nullable=False),
    Index("ticket_nonces_by_expiration", "expiration_block"),
)

#: Tickets that won, with all that redeeming them takes. Hashes, accounts and the signature in hex.
winning_tickets: Final = Table(
    "winning_tickets",
    metadata,
    Column("ticket_hash", String(64), primary_key=True),
    Column("sender", String(40), nullable=False),
    Column("recipient", String(40), nullable=False),
    Column("face_value", WeiText, nullable=False),
    Column("win_prob", WeiText, nullable=False),
    Column("sender_nonce", BigInteger, nullable=False),
    # A secret until the ticket is redeemed, and 256 bits long.
    Column("recipient_rand", WeiText, nullable=False),
    Column("recipient_rand_hash", String(64), nullable=False),
    Column("creation_round", BigInteger, nullable=False),
    Column("creation_block_hash", String(64), nullable=False),
    Column("signature", String(130), nullable=False),
    Column("params_expiration_block", BigInteger, nullable=False),
    Column("attempt_id", String(64), nullable=False),
    Column("won_at", Float, nullable=False),
)

#: What became of each winning ticket, step by step; the newest row of a ticket is its state. `amount`
#: is what its event says was paid, `cost` what its share of the gas was, both in wei; `purpose` names
#: the transaction before it has a hash.
redemptions: Final = Table(
    "redemptions",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("ticket_hash", String(64), ForeignKey("winning_tickets.ticket_hash"), nullable=False),
    Column("state", String(16), nullable=False),
    Column("amount", WeiText, nullable=False),
    Column("cost", WeiText, nullable=False),
    Column("transaction_hash", String(64), nullable=False),
    Column("purpose", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("at", Float, nullable=False),
    Index("redemptions_by_ticket", "ticket_hash"),
)
