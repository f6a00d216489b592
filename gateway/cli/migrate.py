"""`limner-gateway migrate`."""

from gateway.cli.migration import TITLE, migrate_gateway
from gateway.config import GatewaySettings
from network.migrate_commands import migrate_command

command = migrate_command(TITLE, GatewaySettings, migrate_gateway)
