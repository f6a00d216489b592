from network.runtime.database import run_migrations
from node.accounting.tables import metadata

run_migrations(metadata)
