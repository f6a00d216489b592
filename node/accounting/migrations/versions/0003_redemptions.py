"""What became of each winning ticket."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_table(
        "redemptions",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column(
            "ticket_hash",
            sa.String(64),
            sa.ForeignKey("winning_tickets.ticket_hash"),
            nullable=False,
        ),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("amount", sa.Text, nullable=False),
        sa.Column("cost", sa.Text, nullable=False),
        sa.Column("transaction_hash", sa.String(64), nullable=False),
        sa.Column("purpose", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("at", sa.Float, nullable=False),
    )
    op.create_index("redemptions_by_ticket", "redemptions", ["ticket_hash"])
