"""The same job in two journals: what the gateway spent and what the node earned."""

from rich.console import Console
from rich.table import Table

from network.units import Wei, format_wei
from scripts.local_network.network import Gateway, Node
from scripts.local_network.processes import ProgramError


def show_account(node: Node, gateway: Gateway, console: Console) -> None:
    """Print both sides' latest line: nobody else uses them. Raises ProgramError if they differ."""
    bought, sold = gateway.usage()[0], node.jobs()[0]
    table = Table(title="one job, two journals")
    for column in ("journal", "line", "outcome"):
        table.add_column(column, overflow="fold")
    for column in ("pixels", "wei"):
        table.add_column(column, justify="right")
    paid, earned = int(bought["fee"]), int(sold["fee"])
    pixels = str(bought["pixels"]), str(sold["pixels"])
    table.add_row("gateway", bought["request_id"], bought["state"], pixels[0], str(paid))
    table.add_row("node", sold["job_id"], sold["state"], pixels[1], str(earned))
    console.print(table)
    if paid != earned:
        raise ProgramError(f"the journals disagree: {paid} wei paid, {earned} wei earned")
    console.print(f"paid and earned: {format_wei(Wei(paid))}", highlight=False)
