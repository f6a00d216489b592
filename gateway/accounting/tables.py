"""The tables of the usage journal. Rows are only ever added, but for those of promises."""

from sqlalchemy import (
    BigInteger,
    Column,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

from network.runtime.database import WeiText

metadata = MetaData()

#: A request was given a place at an orchestrator for the first time.
requests = Table(
    "requests",
    metadata,
    Column("request_id", String, primary_key=True),
    Column("key_id", String, nullable=False),
    Column("model_id", String, nullable=False),
    Column("width", Integer, nullable=False),
    Column("height", Integer, nullable=False),
    Column("images", Integer, nullable=False),
    Column("steps", Integer, nullable=False),
    Column("accepted_at", Float, nullable=False),
    Index("requests_by_time", "accepted_at"),
)

#: An orchestrator was asked.
attempts = Table(
    "attempts",
    metadata,
    Column("attempt_id", String, primary_key=True),
    Column("request_id", String, nullable=False),
    Column("number", Integer, nullable=False),
    Column("orchestrator", String, nullable=False),
    # Wei per pixel as "numerator/denominator".
    Column("price", String, nullable=False),
    Column("fee", WeiText, nullable=False),
    Column("started_at", Float, nullable=False),
    Index("attempts_by_request", "request_id"),
)

#: The orchestrator's answer, or its absence. The fee is the one owed: 0 unless it delivered.
outcomes = Table(
    "outcomes",
    metadata,
    Column("attempt_id", String, primary_key=True),
    Column("state", String, nullable=False),
    Column("fee", WeiText, nullable=False),
    Column("finished_at", Float, nullable=False),
    Column("seconds", Float, nullable=False),
    Column("node_job_id", String, nullable=False),
    Column("reason", String, nullable=False),
)

#: The request is over. Its primary key is what makes a second settlement impossible.
settlements = Table(
    "settlements",
    metadata,
    Column("request_id", String, primary_key=True),
    Column("state", String, nullable=False),
    Column("fee", WeiText, nullable=False),
    Column("orchestrator", String, nullable=False),
    Column("settled_at", Float, nullable=False),
    Column("reason", String, nullable=False),
    # What the fee counts for in dollars, in 10**-18 of one; NULL where no rate was known.
    Column("usd", WeiText),
)

#: The request got the images of another, its origin. What that one paid is their worth.
repeats = Table(
    "repeats",
    metadata,
    Column("request_id", String, primary_key=True),
    Column("kind", String, nullable=False),
    Column("origin", String, nullable=False),
    Column("worth", WeiText, nullable=False),
)

#: How an attempt is paid for; written together with it. Amounts as "numerator/denominator" of wei.
ticket_batches = Table(
    "ticket_batches",
    metadata,
    Column("attempt_id", String, primary_key=True),
    Column("recipient", String, nullable=False),
    Column("model_id", String, nullable=False),
    Column("tickets", Integer, nullable=False),
    Column("credit", String, nullable=False),
    Column("taken", String, nullable=False),
    Column("face_value", WeiText, nullable=False),
    Column("win_prob", WeiText, nullable=False),
    Column("recipient_rand_hash", String, nullable=False),
    Column("first_nonce", BigInteger, nullable=False),
    Column("creation_round", BigInteger, nullable=False),
    Index("ticket_batches_by_round", "creation_round"),
)

#: What that came to, once it is known.
receipts = Table(
    "receipts",
    metadata,
    Column("attempt_id", String, primary_key=True),
    Column("credited", String, nullable=False),
    Column("charged", WeiText, nullable=False),
    Column("forfeited", String, nullable=False),
    Column("source", String, nullable=False),
    Column("told_at", Float, nullable=False),
)

#: A request whose answer is kept (`gateway.promises`): written before anything is asked for it.
promises = Table(
    "promises",
    metadata,
    Column("promise_id", String, primary_key=True),
    Column("key_id", String, nullable=False),
    # The client's X-Request-Id.
    Column("name", String, nullable=False),
    # Under which the journal has it; another one each time that it is run again.
    Column("request_id", String, nullable=False),
    Column("endpoint", String, nullable=False),
    Column("digest", String, nullable=False),
    Column("idempotency_key", String),
    # Only while nobody waits for the answer, for it has the prompt.
    Column("body", LargeBinary),
    Column("base_url", String, nullable=False),
    # Until it was told.
    Column("webhook", String),
    Column("created_at", Float, nullable=False),
    # Of the first image, drawn before anybody is asked.
    Column("seed", BigInteger),
    UniqueConstraint("key_id", "name"),
    UniqueConstraint("key_id", "idempotency_key"),
    Index("promises_by_request", "request_id"),
)

#: What became of it.
fulfilments = Table(
    "fulfilments",
    metadata,
    Column("request_id", String, primary_key=True),
    Column("state", String, nullable=False),
    Column("status", Integer, nullable=False),
    Column("body", Text, nullable=False),
    Column("headers", Text, nullable=False),
    Column("finished_at", Float, nullable=False),
    Index("fulfilments_by_time", "finished_at"),
)
