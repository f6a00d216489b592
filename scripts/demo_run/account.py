"""The same job in two journals: what the gateway spent and what the node earned."""

from rich.console import Console
from rich.table import Table

from network.units import Wei, format_wei
from scripts.local_network.network import Gateway, Node
from scripts.local_network.processes import ProgramError


def show_account(node: Node, gateway: Gateway, console: Console) -> None:
    """Print the latest job's line of either side. Raises ProgramError if they differ by one wei."""
    bought = gateway.usage()[0]
    sold = next((line for line in node.jobs() if line["job_id"] == bought["node_job_id"]), None)
    if sold is None:
        raise ProgramError(f"the node's journal has no job {bought['node_job_id']!r}")
    table = Table(title="one job, two journals")
    for column in ("journal of", "job", "outcome"):
        table.add_column(column)
    table.add_column("wei", justify="right")
    table.add_row("gateway", bought["node_job_id"], bought["state"], bought["fee"])
    table.add_row("node", sold["job_id"], sold["state"], sold["fee"])
    console.print(table)
    if bought["fee"] != sold["fee"]:
        raise ProgramError(f"the journals disagree: {bought['fee']} and {sold['fee']} wei")
    paid = format_wei(Wei(int(bought["fee"])))
    console.print(f"paid and earned: {paid} for {bought['pixels']} pixels", highlight=False)
