"""What the contracts mean when they refuse a redemption. Pure.

The reasons are those of TicketBroker.redeemWinningTicket in the order of its checks, and of the
contracts that it calls.
"""

from enum import Enum
from typing import Final


class Meaning(Enum):
    """What is to be done about a refusal."""

    #: This ticket will never pay.
    PERMANENT = "permanent"
    #: Something else has to change first; nothing is gained by sending.
    WAIT = "wait"
    #: Unknown, or a race that was lost: try again after a pause.
    RETRY = "retry"
    #: Somebody redeemed it: its event tells what it paid.
    USED = "used"


ROUND_NOT_INITIALIZED: Final = "current round is not initialized"
PAUSED: Final = "system is paused"
UNLOCKED: Final = "sender is unlocked"
NO_FUNDS: Final = "sender deposit and reserve are zero"
NOT_REGISTERED: Final = "transcoder must be registered"
EXPIRED: Final = "ticket is expired"
USED: Final = "ticket is used"

_MEANINGS: Final = {
    PAUSED: Meaning.WAIT,
    ROUND_NOT_INITIALIZED: Meaning.WAIT,
    "ticket recipient is null address": Meaning.PERMANENT,
    "ticket sender is null address": Meaning.PERMANENT,
    "invalid length for ticket auxData: must be 64 bytes": Meaning.PERMANENT,
    # An endpoint that lags behind the beginning of a round says so of a good ticket. If the round
    # really has no hash, the ticket ends as expired.
    "ticket creationRound does not have a block hash": Meaning.WAIT,
    "ticket creationRoundBlockHash invalid for creationRound": Meaning.PERMANENT,
    EXPIRED: Meaning.PERMANENT,
    "recipientRand does not match recipientRandHash": Meaning.PERMANENT,
    USED: Meaning.USED,
    "INVALID_SIGNATURE_LENGTH": Meaning.PERMANENT,
    "ECDSA: invalid signature": Meaning.PERMANENT,
    "ECDSA: invalid signature length": Meaning.PERMANENT,
    "ECDSA: invalid signature 'v' value": Meaning.PERMANENT,
    "ECDSA: invalid signature 's' value": Meaning.PERMANENT,
    "invalid signature over ticket hash": Meaning.PERMANENT,
    "ticket did not win": Meaning.PERMANENT,
    # A sender that funds itself again is locked again, within the ticket's life or not.
    UNLOCKED: Meaning.WAIT,
    NO_FUNDS: Meaning.WAIT,
    NOT_REGISTERED: Meaning.WAIT,
    # The Controller is being changed.
    "target contract must be registered": Meaning.WAIT,
}


def classify(reason: str) -> Meaning:
    """Tell what a revert reason means for its ticket; an unknown one never loses a ticket.

    A revert without a reason is arithmetic: a reserve share that shrank below what was claimed, when
    the pool grew within the round. It may pass, too.
    """
    return _MEANINGS.get(reason, Meaning.RETRY)
