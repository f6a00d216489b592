"""The same job in two journals: what the node earned and what the gateway spent."""

from typing import Any

from rich.console import Console
from rich.table import Table

from scripts.local_network.network import Gateway, Node
from scripts.local_network.processes import ProgramError


def show_account(request_id: str, node: Node, gateway: Gateway, console: Console) -> None:
    """Print both lines. Raises ProgramError when they differ by so much as a wei."""
    bought = _only(
        [line for line in gateway.usage() if line["request_id"] == request_id], "the gateway's"
    )
    sold = _only(
        [line for line in node.jobs() if line["job_id"] == bought["node_job_id"]], "the node's"
    )
    table = Table(title="the job in both journals")
    for column in ("journal of", "job", "outcome", "pixels", "fee (wei)"):
        table.add_column(column, justify="right" if column in {"pixels", "fee (wei)"} else "left")
    for name, line in (("gateway", bought), ("node", sold)):
        job = line.get("request_id") if name == "gateway" else line["job_id"]
        table.add_row(name, job, line["state"], str(line["pixels"]), str(line["fee"]))
    console.print(table)
    if str(bought["fee"]) != str(sold["fee"]):
        raise ProgramError(f"the journals disagree: {bought['fee']} and {sold['fee']} wei")


def _only(lines: list[dict[str, Any]], whose: str) -> dict[str, Any]:
    if len(lines) != 1:
        raise ProgramError(f"{whose} journal has {len(lines)} lines for this job, not one")
    return lines[0]
