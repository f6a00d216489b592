"""Payments by ticket: credit, nonces that were seen, and tickets that won."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_index("jobs_by_attempt", "jobs", ["attempt_id"])
    op.create_table(
        "payments",
        sa.Column("attempt_id", sa.String(64), primary_key=True),
        sa.Column("payer", sa.String(40), nullable=False),
        sa.Column("credit", sa.Text, nullable=False),
        sa.Column("tickets", sa.Integer, nullable=False),
        sa.Column("received_at", sa.Float, nullable=False),
    )
    op.create_table(
        "ticket_nonces",
        sa.Column("recipient_rand_hash", sa.String(64), primary_key=True),
        sa.Column("nonce", sa.BigInteger, primary_key=True),
        sa.Column("expiration_block", sa.BigInteger, nullable=False),
    )
    op.create_index("ticket_nonces_by_expiration", "ticket_nonces", ["expiration_block"])
    op.create_table(
        "winning_tickets",
        sa.Column("ticket_hash", sa.String(64), primary_key=True),
        sa.Column("sender", sa.String(40), nullable=False),
        sa.Column("recipient", sa.String(40), nullable=False),
        sa.Column("face_value", sa.Text, nullable=False),
        sa.Column("win_prob", sa.Text, nullable=False),
        sa.Column("sender_nonce", sa.BigInteger, nullable=False),
        sa.Column("recipient_rand", sa.Text, nullable=False),
        sa.Column("recipient_rand_hash", sa.String(64), nullable=False),
        sa.Column("creation_round", sa.BigInteger, nullable=False),
        sa.Column("creation_block_hash", sa.String(64), nullable=False),
        sa.Column("signature", sa.String(130), nullable=False),
        sa.Column("params_expiration_block", sa.BigInteger, nullable=False),
        sa.Column("attempt_id", sa.String(64), nullable=False),
        sa.Column("won_at", sa.Float, nullable=False),
    )
