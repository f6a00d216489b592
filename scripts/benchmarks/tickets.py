"""Tickets made and judged a second on one core, what paying adds to a request, and durable jobs a second.

Judging is the node's whole judgement: the quote's number by HMAC, nonces, hash, signature, draw, credit. Processor
time is measured, not wall time: other programs disturb it less. eth-account does the signature's part of the same work
in the same rounds. The journal is timed by the clock, as it waits for the disk. The last line is one JSON object.
"""

import argparse
import json
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Final, TypeVar

import uvloop
from eth_account import Account
from eth_account.messages import encode_defunct
from rich.console import Console
from rich.table import Table

from network.identity import KeySigner
from network.payments.pricing import win_probability
from network.payments.rand import SEED_BYTES, recipient_rand
from network.payments.signing import TicketSeries
from network.payments.tickets import CreationRound, TicketParams, rand_hash
from network.units import Address, Wei
from network.wire.codec import decode_payment, encode_payment
from network.wire.headers import decode_header, encode_header
from network.wire.session import Payment, TicketSenderParams
from network.wire.tickets import (
    decode_ticket_params,
    encode_creation_round,
    encode_ticket_params,
)
from node.payments.receiver import Circumstances, Offered, Receiver, Takings
from scripts.benchmarks.journal import measure_journal

_T = TypeVar("_T")
_R = TypeVar("_R")

ROOT = Path(__file__).resolve().parents[2]
PER_PAYMENT: Final = 100
USUAL_PAYMENT: Final = 2
JOURNAL_CALLERS: Final = (1, 16, 256)
_SECRET: Final = b"s" * 32
_KEY: Final = b"\x42" * 32
_SENDER: Final = KeySigner(_KEY)
_RECIPIENT: Final = Address(b"r" * 20)
_PRICE: Final = Fraction(4_768_371, 1)
_CREATION: Final = CreationRound(3500, b"h" * 32)
_VALUE: Final = Wei(10**12)
_FACE_VALUE: Final = Wei(10**16)
_NOW: Final = Circumstances(l1_block=1000, last_initialized_round=3500, withdraw_round=0)


@dataclass(frozen=True, slots=True)
class Round:
    """Tickets a second by processor time, and milliseconds of a usual payment on either side."""

    created: float
    verified: float
    verified_singly: float
    eth_account_created: float
    eth_account_verified: float
    pay_ms: float
    take_ms: float


def quote(number: int) -> TicketParams:
    """What a node would quote, with a seed of its own."""
    seed = number.to_bytes(SEED_BYTES, "big")
    win_prob = win_probability(_FACE_VALUE, _VALUE)
    rand = recipient_rand(
        _SECRET,
        seed=seed,
        sender=_SENDER.address,
        face_value=_FACE_VALUE,
        win_prob=win_prob,
        expiration_block=1040,
        price=_PRICE,
        creation=_CREATION,
    )
    return TicketParams(_RECIPIENT, _FACE_VALUE, win_prob, rand_hash(rand), seed, 1040, _CREATION)


def create(params: TicketParams, tickets: int) -> tuple[TicketSenderParams, ...]:
    """What the payer does for one payment."""
    series = TicketSeries(params, _SENDER.address)
    return tuple(
        TicketSenderParams(nonce, series.sign(_SENDER, nonce)) for nonce in range(1, tickets + 1)
    )


def judge(receiver: Receiver, offered: Offered) -> Takings:
    """What the node does for one payment. Raises RuntimeError if that brings less than all of it."""
    takings = receiver.take(offered, _NOW)
    if takings.refusal or len(takings.nonces) != len(offered.tickets):
        raise RuntimeError(f"honest tickets were refused: {takings.refusal}")
    return takings


def new_receiver() -> Receiver:
    """One that has seen no nonce."""
    return Receiver(_SECRET, _RECIPIENT, max_tickets=PER_PAYMENT)


def offer(params: TicketParams, tickets: Sequence[TicketSenderParams]) -> Offered:
    return Offered(_SENDER.address, params, _PRICE, tickets)


def pay(params: TicketParams) -> str:
    """A usual payment as the header that goes out."""
    payment = Payment(
        sender=_SENDER.address,
        expected_price=_PRICE,
        ticket_params=encode_ticket_params(params, with_creation=False),
        expiration_params=encode_creation_round(params.creation),
        tickets=create(params, USUAL_PAYMENT),
    )
    return encode_header(encode_payment(payment))


def take(receiver: Receiver, header: str) -> Takings:
    """A usual payment as it comes in."""
    payment = decode_payment(decode_header(header))
    if payment.ticket_params is None or payment.expected_price is None:
        raise RuntimeError("the header lost its tickets")
    params = decode_ticket_params(payment.ticket_params, payment.expiration_params)
    offered = Offered(_SENDER.address, params, payment.expected_price, payment.tickets)
    return judge(receiver, offered)


def measure(payments: int) -> Round:
    """One round over `payments` payments of `PER_PAYMENT` tickets, and as many tickets sent singly."""
    quotes = [quote(number) for number in range(payments)]
    singles = [quote(payments + number) for number in range(payments * PER_PAYMENT // 10)]
    made, creating = timed(lambda params: create(params, PER_PAYMENT), quotes)
    receiver = new_receiver()
    offers = [offer(params, tickets) for params, tickets in zip(quotes, made, strict=True)]
    _, judging = timed(lambda one: judge(receiver, one), offers)
    single_offers = [offer(params, create(params, 1)) for params in singles]
    _, judging_singly = timed(lambda one: judge(receiver, one), single_offers)
    signing, recovering = eth_account_seconds(quotes[0], made[0])
    headers, paying = timed(pay, singles)
    counter = new_receiver()
    _, taking = timed(lambda header: take(counter, header), headers)
    return Round(
        created=payments * PER_PAYMENT / creating,
        verified=payments * PER_PAYMENT / judging,
        verified_singly=len(singles) / judging_singly,
        eth_account_created=PER_PAYMENT / signing,
        eth_account_verified=PER_PAYMENT / recovering,
        pay_ms=paying * 1000 / len(headers),
        take_ms=taking * 1000 / len(headers),
    )


def eth_account_seconds(
    params: TicketParams, tickets: Sequence[TicketSenderParams]
) -> tuple[float, float]:
    """Seconds in which eth-account signs these tickets' hashes, and recovers who signed them."""
    series = TicketSeries(params, _SENDER.address)
    messages = [encode_defunct(primitive=series.hash(ticket.nonce)) for ticket in tickets]
    account = Account.from_key(_KEY)
    signed, signing = timed(account.sign_message, messages)
    signatures = [bytes(one.signature) for one in signed]
    if signatures != [ticket.signature for ticket in tickets]:
        raise RuntimeError("eth-account signs otherwise than we do")
    _, recovering = timed(
        lambda pair: Account.recover_message(pair[0], signature=pair[1]),
        list(zip(messages, signatures, strict=True)),
    )
    return signing, recovering


def timed(work: Callable[[_T], _R], inputs: Sequence[_T]) -> tuple[list[_R], float]:
    """What `work` makes of each input, and the processor seconds of it all."""
    started = time.process_time()
    results = [work(one) for one in inputs]
    return results, time.process_time() - started


def figures_of(rounds: Sequence[Round]) -> dict[str, float]:
    """Medians over the rounds."""

    def median(name: str) -> float:
        return statistics.median(float(getattr(one, name)) for one in rounds)

    return {
        "created_per_s": round(median("created")),
        "verified_per_s": round(median("verified")),
        "verified_singly_per_s": round(median("verified_singly")),
        "eth_account_created_per_s": round(median("eth_account_created")),
        "eth_account_verified_per_s": round(median("eth_account_verified")),
        "pay_ms": round(median("pay_ms"), 4),
        "take_ms": round(median("take_ms"), 4),
    }


def report(figures: dict[str, float]) -> None:
    console = Console(width=100)
    table = Table(title="tickets a second on one core, by processor time (medians over rounds)")
    for column in ("", "ours", "eth-account"):
        table.add_column(column, justify="left" if column == "" else "right")
    table.add_row(
        "created",
        f"{figures['created_per_s']:,.0f}",
        f"{figures['eth_account_created_per_s']:,.0f}",
    )
    table.add_row(
        f"verified, {PER_PAYMENT} in a payment",
        f"{figures['verified_per_s']:,.0f}",
        f"{figures['eth_account_verified_per_s']:,.0f}",
    )
    table.add_row("verified, 1 in a payment", f"{figures['verified_singly_per_s']:,.0f}", "")
    console.print(table)
    console.print(
        f"a payment of {USUAL_PAYMENT} tickets: {figures['pay_ms']:.3f} ms to make, header included, "
        f"{figures['take_ms']:.3f} ms to judge"
    )
    for callers in JOURNAL_CALLERS:
        console.print(
            f"journal, {callers} under way: {figures[f'journal_jobs_per_s_{callers}']:,.0f} paid jobs/s "
            f"made durable, {figures[f'journal_cpu_ms_per_job_{callers}']:.3f} ms of processor time each"
        )


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="scripts/bench tickets", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="measured rounds (default 7)")
    parser.add_argument("--payments", type=int, default=50, help="in a round (default 50)")
    parser.add_argument("--jobs", type=int, default=20_000, help="of the journal (default 20000)")
    parser.add_argument("--data", type=Path, help="where the journal is kept meanwhile")
    options = parser.parse_args(arguments)
    measure(1)
    figures = figures_of([measure(options.payments) for _ in range(options.rounds)])
    parent = options.data or ROOT / "out"
    parent.mkdir(parents=True, exist_ok=True)
    for callers in JOURNAL_CALLERS:
        folder = Path(tempfile.mkdtemp(prefix="bench-journal-", dir=parent))
        try:
            jobs = min(options.jobs, callers * 500)
            pace = uvloop.run(measure_journal(folder, jobs=jobs, callers=callers))
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        figures[f"journal_jobs_per_s_{callers}"] = round(pace.jobs_per_s, 1)
        figures[f"journal_cpu_ms_per_job_{callers}"] = round(pace.cpu_ms_per_job, 4)
    report(figures)
    print(json.dumps(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
