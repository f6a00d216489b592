"""Limits of keys, and teams of keys.

Revision ID: 0004
Revises: 0003
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_LIMITS = (
    ("wei_per_day", sa.Text),
    ("wei_per_month", sa.Text),
    ("requests_per_minute", sa.Integer),
    ("pixels_per_minute", sa.Integer),
)


def upgrade() -> None:
    op.create_table(
        "teams",
        sa.Column("name", sa.Text, primary_key=True),
        *(sa.Column(name, kind) for name, kind in _LIMITS),
        sa.Column("changed_at", sa.Float, nullable=False),
    )
    op.add_column("api_keys", sa.Column("team", sa.Text))
    for name, kind in _LIMITS:
        op.add_column("api_keys", sa.Column(name, kind))
    op.add_column("api_keys", sa.Column("metadata", sa.Text))
    op.add_column("api_keys", sa.Column("changed_at", sa.Float))


def downgrade() -> None:
    for name in ("changed_at", "metadata", *(name for name, _ in _LIMITS), "team"):
        op.drop_column("api_keys", name)
    op.drop_table("teams")
