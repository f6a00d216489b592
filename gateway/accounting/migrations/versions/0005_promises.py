"""Requests whose answers are kept, and the answers.

Revision ID: 0005
Revises: 0004
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "promises",
        sa.Column("promise_id", sa.String, primary_key=True),
        sa.Column("key_id", sa.String, nullable=False),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("request_id", sa.String, nullable=False),
        sa.Column("endpoint", sa.String, nullable=False),
        sa.Column("digest", sa.String, nullable=False),
        sa.Column("idempotency_key", sa.String),
        sa.Column("body", sa.LargeBinary),
        sa.Column("base_url", sa.String, nullable=False),
        sa.Column("webhook", sa.String),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.UniqueConstraint("key_id", "name"),
        sa.UniqueConstraint("key_id", "idempotency_key"),
    )
    op.create_index("promises_by_request", "promises", ["request_id"])
    op.create_table(
        "fulfilments",
        sa.Column("request_id", sa.String, primary_key=True),
        sa.Column("state", sa.String, nullable=False),
        sa.Column("status", sa.Integer, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("headers", sa.Text, nullable=False),
        sa.Column("finished_at", sa.Float, nullable=False),
    )
    op.create_index("fulfilments_by_time", "fulfilments", ["finished_at"])


def downgrade() -> None:
    op.drop_table("fulfilments")
    op.drop_table("promises")
