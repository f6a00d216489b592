"""The same job in two journals: what the gateway spent and what the node earned."""

from typing import Any

from rich.console import Console
from rich.table import Table

from network.units import Wei, format_wei
from scripts.local_network.network import Gateway, Node
from scripts.local_network.processes import ProgramError


def show_account(node: Node, gateway: Gateway, console: Console) -> None:
    """Print both lines of the latest job. Raises ProgramError when they differ by a single wei."""
    bought = gateway.usage()[0]
    sold = _line_of(bought["node_job_id"], node.jobs())
    table = Table(title="one job, two journals")
    for column in ("journal", "job", "outcome"):
        table.add_column(column)
    for column in ("pixels", "wei"):
        table.add_column(column, justify="right")
    paid, earned = int(bought["fee"]), int(sold["fee"])
    table.add_row(
        "gateway", bought["node_job_id"], bought["state"], str(bought["pixels"]), str(paid)
    )
    table.add_row("node", sold["job_id"], sold["state"], str(sold["pixels"]), str(earned))
    console.print(table)
    if paid != earned:
        raise ProgramError(f"the journals disagree: {paid} wei paid, {earned} wei earned")
    console.print(f"paid and earned: {format_wei(Wei(paid))}", highlight=False)


def _line_of(job_id: str, lines: list[dict[str, Any]]) -> dict[str, Any]:
    for line in lines:
        if line["job_id"] == job_id:
            return line
    raise ProgramError(f"the node's journal has no job {job_id}")
