"""Transactions, their attempts and states."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "transactions",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("account", sa.String(40), nullable=False),
        sa.Column("network", sa.Text, nullable=False),
        sa.Column("purpose", sa.Text, nullable=False),
        sa.Column("nonce", sa.BigInteger, nullable=False),
        sa.Column("recipient", sa.String(40), nullable=False),
        sa.Column("data", sa.LargeBinary, nullable=False),
        sa.Column("value", sa.Text, nullable=False),
        sa.Column("gas_limit", sa.BigInteger, nullable=False),
        sa.Column("max_fee", sa.Text, nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
    )
    op.create_index("transactions_by_purpose", "transactions", ["account", "network", "purpose"])
    op.create_table(
        "attempts",
        sa.Column("hash", sa.String(64), primary_key=True),
        sa.Column(
            "transaction_id", sa.String(64), sa.ForeignKey("transactions.id"), nullable=False
        ),
        sa.Column("max_fee", sa.Text, nullable=False),
        sa.Column("tip", sa.Text, nullable=False),
        sa.Column("raw", sa.LargeBinary, nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
    )
    op.create_index("attempts_by_transaction", "attempts", ["transaction_id"])
    op.create_table(
        "states",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column(
            "transaction_id", sa.String(64), sa.ForeignKey("transactions.id"), nullable=False
        ),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("receipt", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("at", sa.Float, nullable=False),
    )
    op.create_index("states_by_transaction", "states", ["transaction_id"])
