"""What follows from one look at a transaction."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from network.chain.fees import Fees
from network.chain.model import Call, Receipt
from network.chain.progress import Look, Pace, Step, next_step
from network.chain.record import State, Transaction
from network.chain.signed import Attempt
from network.units import Address, Wei

PACE = Pace(confirmations=3, final_blocks=10)
RECEIPT = Receipt(
    transaction_hash=b"t" * 32,
    block_number=100,
    block_hash=b"b" * 32,
    is_successful=True,
    gas_used=21_000,
    gas_price=Wei(1),
)
NOW = 1000.0


def transaction(state: State, receipt: Receipt | None = None) -> Transaction:
    attempt = Attempt(b"h" * 32, Fees(Wei(2), Wei(1)), b"raw", created_at=NOW)
    return Transaction(
        purpose="test",
        nonce=5,
        call=Call(Address(bytes(20))),
        gas_limit=21_000,
        max_fee=Wei(10),
        attempts=[attempt],
        state=state,
        receipt=receipt,
    )


def look(after: float = 0.0, **changes: object) -> Look:
    base = Look(now=NOW + after, receipt=None, head=100, next_nonce=5, broadcast_at=NOW)
    return replace(base, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("state", "seen", "step"),
    [
        (State.PREPARED, look(), Step.BROADCAST),
        (State.PREPARED, look(121), Step.REPLACE),
        (State.SENT, look(1), Step.WAIT),
        (State.SENT, look(16), Step.BROADCAST),
        (State.SENT, look(1, broadcast_at=None), Step.BROADCAST),
        (State.SENT, look(120), Step.REPLACE),
        # The nonce is gone and no receipt shows: a node that lags, until it lasts.
        (State.SENT, look(500, next_nonce=6, missing_since=NOW + 450), Step.WAIT),
        (State.SENT, look(500, next_nonce=6, missing_since=NOW + 440), Step.LOSE),
        (State.SENT, look(receipt=RECEIPT), Step.INCLUDE),
        (State.PREPARED, look(500, receipt=RECEIPT, next_nonce=6), Step.INCLUDE),
    ],
)
def test_before_it_is_in_a_block(state: State, seen: Look, step: Step) -> None:
    assert next_step(transaction(state), seen, PACE) == step


@pytest.mark.parametrize(
    ("seen", "step"),
    [
        (look(receipt=RECEIPT, head=101), Step.WAIT),
        (look(receipt=RECEIPT, head=102), Step.SETTLE),
        (look(receipt=RECEIPT, head=109), Step.FINISH),
        (look(receipt=replace(RECEIPT, block_hash=b"c" * 32), head=109), Step.INCLUDE),
        (look(1, missing_since=NOW), Step.WAIT),
        (look(5, missing_since=NOW), Step.RETURN),
    ],
)
def test_once_it_was_in_a_block_case_14(seen: Look, step: Step) -> None:
    assert next_step(transaction(State.MINED, RECEIPT), seen, PACE) == step


@given(head=st.integers(100, 200))
def test_a_refusal_counts_only_with_its_confirmations(head: int) -> None:
    refused = replace(RECEIPT, is_successful=False)
    step = next_step(transaction(State.MINED, refused), look(receipt=refused, head=head), PACE)
    assert step == (Step.REVERT if head >= 102 else Step.WAIT)
