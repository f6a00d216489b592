"""The usage journal: events of requests and of attempts, append only."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "requests",
        sa.Column("request_id", sa.String, primary_key=True),
        sa.Column("key_id", sa.String, nullable=False),
        sa.Column("model_id", sa.String, nullable=False),
        sa.Column("width", sa.Integer, nullable=False),
        sa.Column("height", sa.Integer, nullable=False),
        sa.Column("images", sa.Integer, nullable=False),
        sa.Column("steps", sa.Integer, nullable=False),
        sa.Column("accepted_at", sa.Float, nullable=False),
    )
    op.create_index("requests_by_time", "requests", ["accepted_at"])
    op.create_table(
        "attempts",
        sa.Column("attempt_id", sa.String, primary_key=True),
        sa.Column("request_id", sa.String, nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("orchestrator", sa.String, nullable=False),
        sa.Column("price", sa.String, nullable=False),
        sa.Column("fee", sa.Text, nullable=False),
        sa.Column("started_at", sa.Float, nullable=False),
    )
    op.create_index("attempts_by_request", "attempts", ["request_id"])
    op.create_table(
        "outcomes",
        sa.Column("attempt_id", sa.String, primary_key=True),
        sa.Column("state", sa.String, nullable=False),
        sa.Column("fee", sa.Text, nullable=False),
        sa.Column("finished_at", sa.Float, nullable=False),
        sa.Column("seconds", sa.Float, nullable=False),
        sa.Column("node_job_id", sa.String, nullable=False),
        sa.Column("reason", sa.String, nullable=False),
    )
    op.create_table(
        "settlements",
        sa.Column("request_id", sa.String, primary_key=True),
        sa.Column("state", sa.String, nullable=False),
        sa.Column("fee", sa.Text, nullable=False),
        sa.Column("orchestrator", sa.String, nullable=False),
        sa.Column("settled_at", sa.Float, nullable=False),
        sa.Column("reason", sa.String, nullable=False),
    )
