"""`limner-node migrate`."""

from network.migrate_commands import migrate_command
from node.cli.migration import TITLE, migrate_node
from node.config.settings import NodeSettings

migrate = migrate_command(TITLE, NodeSettings, migrate_node)
