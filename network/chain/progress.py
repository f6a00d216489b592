"""What to do next about a transaction, from what the chain says of it. Pure."""

from dataclasses import dataclass
from enum import Enum, auto

from network.chain.model import Receipt
from network.chain.record import State, Transaction


class Step(Enum):
    """Exactly one follows from each look."""

    WAIT = auto()
    #: It is in a block, or in another one than before.
    INCLUDE = auto()
    #: Deep enough to be told to whoever waits.
    SETTLE = auto()
    #: Likewise, but the contract refused.
    REVERT = auto()
    #: So deep that it is not looked at again.
    FINISH = auto()
    #: The chain dropped the block that it was in.
    RETURN = auto()
    BROADCAST = auto()
    REPLACE = auto()
    #: Another transaction has its nonce: it will never be mined.
    LOSE = auto()


@dataclass(frozen=True, slots=True)
class Pace:
    """Blocks and seconds after which something happens.

    `confirmations` counts the transaction's own block. `missing_seconds`: so long a receipt must be
    absent before we believe it, since a node may lag behind another; `lost_seconds` likewise before
    a transaction is given up.
    """

    confirmations: int = 1
    final_blocks: int = 256
    poll_seconds: float = 1.0
    settled_poll_seconds: float = 10.0
    replace_seconds: float = 120.0
    repeat_seconds: float = 15.0
    missing_seconds: float = 5.0
    lost_seconds: float = 60.0


@dataclass(frozen=True, slots=True)
class Look:
    """One look at the chain, at `now` in unix seconds.

    `next_nonce` is how many transactions of the account are in the chain; `missing_since` when a
    receipt that should be there was first absent; `broadcast_at` when the newest attempt was last
    handed to a node.
    """

    now: float
    receipt: Receipt | None
    head: int
    next_nonce: int
    missing_since: float | None = None
    broadcast_at: float | None = None


def next_step(transaction: Transaction, look: Look, pace: Pace) -> Step:
    if look.receipt is not None:
        return _in_a_block(transaction, look.receipt, look.head, pace)
    missing = 0.0 if look.missing_since is None else look.now - look.missing_since
    if transaction.state == State.MINED:
        return Step.RETURN if missing >= pace.missing_seconds else Step.WAIT
    if look.next_nonce > transaction.nonce:
        return Step.LOSE if missing >= pace.lost_seconds else Step.WAIT
    if look.now - transaction.newest.created_at >= pace.replace_seconds:
        return Step.REPLACE
    if transaction.state == State.PREPARED or look.broadcast_at is None:
        return Step.BROADCAST
    # Pools forget: saying it again costs one request and does no harm.
    return Step.BROADCAST if look.now - look.broadcast_at >= pace.repeat_seconds else Step.WAIT


def _in_a_block(transaction: Transaction, receipt: Receipt, head: int, pace: Pace) -> Step:
    known = transaction.receipt
    depth = head - receipt.block_number + 1
    if known is None or known.block_hash != receipt.block_hash:
        return Step.INCLUDE
    if depth < pace.confirmations:
        return Step.WAIT
    if not receipt.is_successful:
        return Step.REVERT
    return Step.FINISH if depth >= max(pace.final_blocks, pace.confirmations) else Step.SETTLE
