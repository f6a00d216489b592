"""Tickets sent with attempts, and what became of them.

Revision ID: 0003
Revises: 0002
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "ticket_batches",
        sa.Column("attempt_id", sa.String, primary_key=True),
        sa.Column("recipient", sa.String, nullable=False),
        sa.Column("model_id", sa.String, nullable=False),
        sa.Column("tickets", sa.Integer, nullable=False),
        sa.Column("credit", sa.String, nullable=False),
        sa.Column("taken", sa.String, nullable=False),
        sa.Column("face_value", sa.Text, nullable=False),
        sa.Column("win_prob", sa.Text, nullable=False),
        sa.Column("recipient_rand_hash", sa.String, nullable=False),
        sa.Column("first_nonce", sa.BigInteger, nullable=False),
        sa.Column("creation_round", sa.BigInteger, nullable=False),
    )
    op.create_index("ticket_batches_by_round", "ticket_batches", ["creation_round"])
    op.create_table(
        "receipts",
        sa.Column("attempt_id", sa.String, primary_key=True),
        sa.Column("credited", sa.String, nullable=False),
        sa.Column("charged", sa.Text, nullable=False),
        sa.Column("forfeited", sa.String, nullable=False),
        sa.Column("source", sa.String, nullable=False),
        sa.Column("told_at", sa.Float, nullable=False),
    )


def downgrade() -> None:
    op.drop_table("receipts")
    op.drop_table("ticket_batches")
