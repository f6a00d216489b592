"""`scripts/demo --paid`: the same journey, paid for with tickets on a chain of its own."""

import time
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from rich.console import Console
from rich.table import Table

from network.units import Wei, format_wei
from scripts.demo_run.journey import Wish, send
from scripts.local_network.devnet import Devnet, rows, start_devnet
from scripts.local_network.network import (
    MODEL,
    Gateway,
    Node,
    NodePlan,
    free_port,
    start_gateway,
    start_node,
)
from scripts.local_network.processes import ProgramError

#: Wei that a winning ticket pays at most: with images of 512 x 512 every other ticket wins.
FACE_VALUE = 1_200_000_000_000
#: A ticket that wins once in two has not won in so many with a chance of one in a thousand million.
MOST_IMAGES = 30
REDEEMED_SECONDS = 90
#: A quote lasts 40 blocks, and its winners are redeemed after it.
QUOTE_BLOCKS = 45


@dataclass(frozen=True, slots=True)
class PaidNetwork:
    """A chain, a node that earns on it and a gateway that pays on it."""

    devnet: Devnet
    node: Node
    gateway: Gateway


def start_paid(
    folder: Path, running: ExitStack, console: Console, *, use_anvil: bool
) -> PaidNetwork:
    """Start all three; they end with `running`."""
    listen = f"https://127.0.0.1:{free_port()}"
    with console.status("starting the chain"):
        options = [] if use_anvil else ["--no-anvil"]
        devnet = start_devnet(folder / "devnet", listen, options=options)
        running.callback(devnet.program.stop)
    with console.status("starting the node"):
        settings = {
            **devnet.settings("node"),
            "listen": listen,
            "payments.max_face_value": FACE_VALUE,
        }
        node = start_node(
            folder / "node", NodePlan(settings=settings, data_dir=devnet.data_dir("node"))
        )
        running.callback(node.program.stop)
    with console.status("starting the gateway"):
        gateway = start_gateway(
            folder / "gateway",
            orchestrators=[node.url],
            settings=devnet.settings("gateway"),
            data_dir=devnet.data_dir("gateway"),
        )
        running.callback(gateway.program.stop)
    with console.status("loading the model"):
        gateway.wait_for_model(MODEL)
    console.print(f"chain    {devnet.url}   ({devnet.engine})")
    console.print(f"node     {node.url}   (admin {node.admin_url})")
    console.print(f"gateway  {gateway.url}   (admin {gateway.admin_url})")
    return PaidNetwork(devnet, node, gateway)


def pay_until_one_wins(
    network: PaidNetwork, wish: Wish, out: Path, shown: Path, console: Console
) -> None:
    """Make the picture, and more of them until a ticket has won and its prize is in the books."""
    before = _won(network.node)
    send(wish, network.gateway, shown)
    for number in range(1, MOST_IMAGES):
        if _won(network.node) > before:
            break
        more = Wish(wish.prompt, wish.width, wish.height, wish.steps, wish.seed + number)
        send(more, network.gateway, more.file_in(out))
    else:
        raise ProgramError(f"of {MOST_IMAGES} tickets none has won")
    with console.status("redeeming the winning ticket"):
        _redeemed(network)


def show_balances(network: PaidNetwork, console: Console) -> None:
    """Print either side's account of the tickets. Raises ProgramError if they differ."""
    node, gateway = _sold(network.node), _bought(network.gateway)
    table = Table(title="one balance, two journals")
    table.add_column("")
    for who in ("gateway", "node"):
        table.add_column(who, justify="right")
    for label, ours, theirs in zip(
        ("tickets", "credit, wei", "charged, wei"), gateway, node, strict=True
    ):
        table.add_row(label, str(ours), str(theirs))
    console.print(table)
    if gateway != node:
        raise ProgramError(f"the journals disagree: {gateway} and {node}")
    won, face, paid = _prizes(network.node)
    console.print(
        f"{won} of these tickets won {format_wei(Wei(face))}; redeemed on the chain: "
        f"{format_wei(Wei(paid))}",
        highlight=False,
    )


def _won(node: Node) -> int:
    return int(rows(_node_books(node), "SELECT count(*) FROM winning_tickets")[0][0])


def _redeemed(network: PaidNetwork) -> None:
    network.devnet.mine(QUOTE_BLOCKS)
    deadline = time.monotonic() + REDEEMED_SECONDS
    while time.monotonic() < deadline:
        if _prizes(network.node)[2]:
            return
        time.sleep(0.2)
    raise ProgramError(
        f"no ticket was redeemed in {REDEEMED_SECONDS} s; see {network.node.program.log}"
    )


def _prizes(node: Node) -> tuple[int, int, int]:
    """How many tickets won, what they say, and what redeeming them brought, in wei."""
    faces = rows(_node_books(node), "SELECT face_value FROM winning_tickets")
    paid = rows(
        _node_books(node), "SELECT ticket_hash, amount FROM redemptions WHERE state = 'final'"
    )
    return len(faces), sum(int(f) for (f,) in faces), sum(int(a) for _, a in paid)


def _sold(node: Node) -> tuple[int, str, int]:
    tickets = rows(_node_books(node), "SELECT tickets, credit FROM payments")
    charged = rows(_node_books(node), "SELECT charged FROM ends")
    return _totals(tickets, charged)


def _bought(gateway: Gateway) -> tuple[int, str, int]:
    books = gateway.data_dir / "gateway.sqlite3"
    tickets = rows(
        books, "SELECT tickets, credited FROM ticket_batches JOIN receipts USING (attempt_id)"
    )
    return _totals(tickets, rows(books, "SELECT charged FROM receipts"))


def _totals(tickets: list[tuple[int, str]], charged: list[tuple[str]]) -> tuple[int, str, int]:
    credit = sum((Fraction(text) for _, text in tickets), Fraction(0))
    shown = f"{float(credit):.3f}"
    return sum(count for count, _ in tickets), shown, sum(int(wei) for (wei,) in charged)


def _node_books(node: Node) -> Path:
    return node.data_dir / "node.sqlite"
