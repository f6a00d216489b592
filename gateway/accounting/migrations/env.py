"""Alembic's way in; runs when the gateway opens its database."""

from gateway.accounting.tables import metadata
from network.runtime.migrations import run_migrations

run_migrations(metadata)
