from network.runtime.migrations import run_migrations
from tests.network.runtime.tables import metadata

run_migrations(metadata)
