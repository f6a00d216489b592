from network.chain.tables import metadata
from network.runtime.migrations import run_migrations

run_migrations(metadata)
