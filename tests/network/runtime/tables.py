"""Two tables, one referring to the other, for the tests of the database."""

from sqlalchemy import Column, ForeignKey, Integer, MetaData, Table, Text

from network.runtime.database import WeiText

metadata = MetaData()
jobs = Table(
    "jobs",
    metadata,
    Column("job_id", Text, primary_key=True),
    Column("fee", WeiText, nullable=True),
    Column("state", Text, nullable=False, server_default="open"),
)
events = Table(
    "events",
    metadata,
    Column("number", Integer, primary_key=True),
    Column("job_id", Text, ForeignKey("jobs.job_id"), nullable=False),
    Column("what", Text, nullable=False),
)
