"""The seed of a request whose answer is kept, so that another process asks for the same images.

Revision ID: 0009
Revises: 0008
"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("promises", sa.Column("seed", sa.BigInteger))


def downgrade() -> None:
    op.drop_column("promises", "seed")
