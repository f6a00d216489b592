"""Limits of pixels a minute beyond 2**31: a key that many orchestrators serve may use that much.

SQLite's whole numbers are as large as they need to be.

Revision ID: 0008
Revises: 0007
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_TABLES = ("api_keys", "teams")
_LIMITS = ("requests_per_minute", "pixels_per_minute")


def upgrade() -> None:
    _hold(sa.BigInteger())


def downgrade() -> None:
    _hold(sa.Integer())


def _hold(kind: sa.Integer) -> None:
    if op.get_bind().dialect.name == "sqlite":
        return
    for table in _TABLES:
        for name in _LIMITS:
            op.alter_column(table, name, type_=kind)
