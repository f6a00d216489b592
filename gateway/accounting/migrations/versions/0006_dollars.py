"""Budgets in US dollars, and what requests counted for in them.

Amounts are text, in 10**-18 dollars. What was settled before is in wei only.

Revision ID: 0006
Revises: 0005
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_BUDGETS = ("usd_per_day", "usd_per_month")


def upgrade() -> None:
    for table in ("api_keys", "teams"):
        for name in _BUDGETS:
            op.add_column(table, sa.Column(name, sa.Text))
    op.add_column("settlements", sa.Column("usd", sa.Text))


def downgrade() -> None:
    op.drop_column("settlements", "usd")
    for table in ("api_keys", "teams"):
        for name in _BUDGETS:
            op.drop_column(table, name)
