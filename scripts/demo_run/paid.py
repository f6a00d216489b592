"""`scripts/demo --paid`: the same journey, paid for with tickets on a chain of its own."""

import time
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console
from rich.table import Table

from network.units import Wei, fee, format_wei, parse_price, pixels_of
from scripts.demo_run.journey import Wish, send
from scripts.local_network.network import DEFAULT_PRICE
from scripts.local_network.paid import (
    QUOTE_BLOCKS,
    Attempt,
    PaidNetwork,
    PaidPlan,
    balance,
    bought,
    open_paid_network,
    prizes,
    sold,
)
from scripts.local_network.processes import ProgramError

#: A winning ticket pays for so many images: about every second one brings a prize.
PRIZE_IMAGES = 2
#: So many tickets all lose once in a million demos.
MOST_IMAGES = 20
PATIENCE_SECONDS = 90


def start_paid(
    folder: Path, wish: Wish, running: ExitStack, console: Console, *, use_anvil: bool
) -> PaidNetwork:
    """Start all three, with tickets as large as one wish; they end with `running`."""
    # A demo with anvil may have left its chain there, which this one cannot go on with.
    options = [] if use_anvil else ["--no-anvil", "--reset"]
    with console.status("starting the chain, the node and the gateway"):
        cost = fee(pixels_of(wish.width, wish.height, 1), parse_price(DEFAULT_PRICE))
        plan = PaidPlan(PRIZE_IMAGES * cost, devnet_options=options)
        network = open_paid_network(folder, running, plan)
    node, gateway = network.node, network.gateway
    console.print(f"chain    {network.devnet.url}   ({network.devnet.engine})")
    console.print(f"node     {node.url}   (admin {node.admin_url})")
    console.print(f"gateway  {gateway.url}   (admin {gateway.admin_url})")
    return network


def pay_until_one_wins(network: PaidNetwork, wish: Wish, out: Path, shown: Path) -> None:
    """Make the picture, and more of them until a ticket has won."""
    before = len(prizes(network.node))
    send(wish, network.gateway, shown)
    for number in range(1, MOST_IMAGES):
        if len(prizes(network.node)) > before:
            return
        more = Wish(wish.prompt, wish.width, wish.height, wish.steps, wish.seed + number)
        send(more, network.gateway, more.file_in(out))
    raise ProgramError(f"of the tickets for {MOST_IMAGES} images none has won")


def redeem(network: PaidNetwork, console: Console) -> None:
    """Wait until every prize is on the chain and in the books. Raises ProgramError."""
    with console.status("redeeming what was won"):
        network.devnet.mine(QUOTE_BLOCKS)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            if all(prize.is_over for prize in prizes(network.node).values()):
                return
            time.sleep(0.2)
    log = network.node.program.log
    raise ProgramError(f"a winning ticket is not redeemed after {PATIENCE_SECONDS} s; see {log}")


def show_balances(network: PaidNetwork, console: Console) -> None:
    """Print either side's account of the tickets. Raises ProgramError if they differ."""
    theirs, ours = sold(network.node), bought(network.gateway)
    known = {attempt: one for attempt, one in ours.items() if one is not None}
    table = Table(title="one account, two journals")
    for column in ("journal of", "jobs", "credit, wei", "charged, wei", "left, wei"):
        table.add_column(column, justify="left" if column == "journal of" else "right")
    table.add_row("gateway", *_sums(known))
    table.add_row("node", *_sums(theirs))
    console.print(table)
    if known != theirs:
        raise ProgramError(f"the journals disagree: {_sums(known)} and {_sums(theirs)}")
    won = prizes(network.node)
    paid, moved = sum(prize.amount for prize in won.values()), network.transfers()
    console.print(
        f"tickets that won: {len(won)}; redeemed on the chain: {format_wei(Wei(moved))}; "
        f"in the node's books: {format_wei(Wei(paid))}",
        highlight=False,
    )
    if paid != moved:
        raise ProgramError(f"the chain moved {moved} wei, and the node booked {paid}")


def _sums(attempts: dict[str, Attempt]) -> tuple[str, str, str, str]:
    credited = sum(one.credited for one in attempts.values())
    charged = sum(one.charged for one in attempts.values())
    left = balance(attempts)
    return str(len(attempts)), f"{float(credited):.3f}", str(charged), f"{float(left):.3f}"
