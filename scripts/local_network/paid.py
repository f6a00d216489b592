"""A chain, a node that earns on it and a gateway that pays on it; and their books, as an auditor reads them."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

from network.identity import keccak
from scripts.local_network.devnet import Devnet, rows, start_devnet
from scripts.local_network.network import (
    MODEL,
    Gateway,
    Node,
    NodePlan,
    Settings,
    free_port,
    start_gateway,
    start_node,
)

#: A quote lasts 40 blocks, and its winners are redeemed after it.
QUOTE_BLOCKS = 45
_TRANSFER = "0x" + keccak(b"WinningTicketTransfer(address,address,uint256)").hex()


@dataclass(frozen=True, slots=True)
class PaidPlan:
    """`face_value` is the most that a winning ticket pays, in wei; the rest are keys of the TOML files."""

    face_value: int
    price: str = "2400000"
    capacity: int = 2
    round_length: int = 100
    devnet_options: Sequence[str] = ()
    node: Settings = field(default_factory=dict)
    gateway: Settings = field(default_factory=dict)


@dataclass(slots=True)
class PaidNetwork:
    """All three, running."""

    devnet: Devnet
    node: Node
    gateway: Gateway

    def transfers(self) -> int:
        """The sum of all WinningTicketTransfer events on the chain, in wei."""
        asked = {"fromBlock": "0x0", "toBlock": "latest", "topics": [_TRANSFER]}
        return sum(int(log["data"], 16) for log in self.devnet.rpc("eth_getLogs", asked))


def open_paid_network(folder: Path, running: ExitStack, plan: PaidPlan) -> PaidNetwork:
    """Start chain, node and gateway, and wait for a warm model; they end with `running`."""
    listen = f"https://127.0.0.1:{free_port()}"
    devnet = start_devnet(
        folder / "devnet", listen, options=plan.devnet_options, round_length=plan.round_length
    )
    running.callback(devnet.program.stop)
    settings = {
        **devnet.settings("node"),
        "listen": listen,
        "payments.max_face_value": plan.face_value,
        **plan.node,
    }
    node = start_node(
        folder / "node",
        NodePlan(plan.price, plan.capacity, "https", settings, devnet.data_dir("node")),
    )
    # Not the program of this moment: a test may kill it and start another.
    running.callback(_stop, node)
    gateway = start_gateway(
        folder / "gateway",
        orchestrators=[node.url],
        settings={**devnet.settings("gateway"), **plan.gateway},
        data_dir=devnet.data_dir("gateway"),
    )
    running.callback(_stop, gateway)
    gateway.wait_for_model(MODEL)
    return PaidNetwork(devnet, node, gateway)


def _stop(kept: Node | Gateway) -> None:
    kept.program.stop()


@dataclass(frozen=True, slots=True)
class Attempt:
    """What one attempt brought and cost, in wei."""

    credited: Fraction
    charged: int


@dataclass(frozen=True, slots=True)
class Prize:
    """A winning ticket in the node's books; `state` is "" while nothing happened to it."""

    face_value: int
    state: str
    amount: int

    @property
    def is_over(self) -> bool:
        """Whether it was paid, or never will be."""
        return self.state in {"mined", "final", "written-off"}


def sold(node: Node) -> dict[str, Attempt]:
    """The node's books by attempt."""
    books = node.data_dir / "node.sqlite"
    brought = {a: Fraction(c) for a, c in rows(books, "SELECT attempt_id, credit FROM payments")}
    query = "SELECT j.attempt_id, e.charged FROM jobs j LEFT JOIN ends e USING (job_id)"
    charges = {attempt: int(charged or 0) for attempt, charged in rows(books, query)}
    return {
        attempt: Attempt(brought.get(attempt, Fraction(0)), charges.get(attempt, 0))
        for attempt in brought.keys() | charges.keys()
    }


def bought(gateway: Gateway) -> dict[str, Attempt | None]:
    """The gateway's books by attempt; None for one of which it does not know what it came to."""
    books = gateway.data_dir / "gateway.sqlite3"
    query = (
        "SELECT b.attempt_id, r.credited, r.charged FROM ticket_batches b"
        " LEFT JOIN receipts r USING (attempt_id)"
    )
    return {
        attempt: None if credited is None else Attempt(Fraction(credited), int(charged))
        for attempt, credited, charged in rows(books, query)
    }


def prizes(node: Node) -> dict[str, Prize]:
    """Every ticket that won, by its hash."""
    books = node.data_dir / "node.sqlite"
    last = "SELECT ticket_hash, state, amount FROM redemptions ORDER BY id"
    states = {ticket: (state, int(amount)) for ticket, state, amount in rows(books, last)}
    won = rows(books, "SELECT ticket_hash, face_value FROM winning_tickets")
    return {ticket: Prize(int(face), *states.get(ticket, ("", 0))) for ticket, face in won}


def balance(attempts: dict[str, Attempt]) -> Fraction:
    """What is left to spend, in wei."""
    return sum((one.credited - one.charged for one in attempts.values()), Fraction(0))
