"""Brings a database to the newest revision of its tables.

A migrations folder is what Alembic calls a script directory:

    migrations/env.py             the five lines below
    migrations/versions/0001_*.py revisions with `revision`, `down_revision`, `upgrade()`

    # env.py
    from network.runtime.migrations import run_migrations
    from node.accounting.tables import metadata

    run_migrations(metadata)
"""

import importlib.util
from pathlib import Path

from sqlalchemy import Connection, Engine, MetaData

from network.errors import ConfigError


def upgrade(engine: Engine, migrations: str | Path, revision: str = "head") -> None:
    """Bring a database to `revision` in one transaction; blocks."""
    from alembic import command  # noqa: PLC0415  only needed at start
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(_folder(migrations)).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)


def run_migrations(metadata: MetaData) -> None:
    """What the `env.py` of a migrations folder calls, and nothing else."""
    from alembic import context  # noqa: PLC0415  only needed at start

    connection: Connection | None = context.config.attributes.get("connection")
    if connection is None:
        raise ConfigError("database", "migrations run when a program opens its database")
    context.configure(
        connection=connection,
        target_metadata=metadata,
        render_as_batch=connection.dialect.name == "sqlite",
    )
    # The caller holds the transaction: two programs that start at once take turns.
    context.run_migrations()


def _folder(migrations: str | Path) -> Path:
    if isinstance(migrations, Path):
        return migrations
    try:
        found = importlib.util.find_spec(migrations)
    except ModuleNotFoundError:
        found = None
    if found is None or not found.submodule_search_locations:
        raise ConfigError("database", f"there is no migrations folder {migrations}")
    return Path(next(iter(found.submodule_search_locations)))
