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
