from network.runtime.migrations import run_migrations
from node.accounting.tables import metadata

run_migrations(metadata)
