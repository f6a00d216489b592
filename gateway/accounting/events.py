"""What the usage journal is told, and what it answers."""

from dataclasses import dataclass
from fractions import Fraction
from typing import Final, Literal, TypeAlias

import msgspec

from network.dollars import NO_DOLLARS, AttoUsd
from network.units import ModelId, Pixels, Wei

NOTHING: Final = Wei(0)

AttemptState = Literal[
    "succeeded", "busy", "refused", "failed", "cancelled", "interrupted", "outrun"
]
RequestState = Literal["settled", "failed", "cancelled", "interrupted"]
Grouping = Literal["key", "model", "orchestrator"]
#: From memory, or together with an equal request under way.
RepeatKind = Literal["hit", "coalesced"]


class Accepted(msgspec.Struct, frozen=True):
    """A request was given a place at an orchestrator for the first time, or another's images."""

    request_id: str
    key_id: str
    model_id: ModelId
    width: int
    height: int
    images: int
    steps: int
    #: Unix seconds.
    accepted_at: float


class Attempt(msgspec.Struct, frozen=True):
    """An orchestrator is about to be asked."""

    attempt_id: str
    request_id: str
    #: The first is 1.
    number: int
    #: URI.
    orchestrator: str
    #: Wei per pixel.
    price: Fraction
    #: The fee quoted.
    fee: Wei
    #: Unix seconds.
    started_at: float


class Outcome(msgspec.Struct, frozen=True):
    """An attempt ended."""

    attempt_id: str
    state: AttemptState
    #: What is owed for it: 0 unless it succeeded, or had delivered when another attempt had, too
    #: ("outrun"), which the client does not pay for.
    fee: Wei
    #: Unix seconds.
    finished_at: float
    seconds: float
    node_job_id: str = ""
    reason: str = ""


class Settlement(msgspec.Struct, frozen=True):
    """A request ended."""

    request_id: str
    state: RequestState
    #: What its key is charged: 0 unless it was settled. But for a repeat, it is the fee of the outcome
    #: that served it.
    fee: Wei
    #: Unix seconds.
    settled_at: float
    #: URI of the one that delivered; "" for a repeat.
    orchestrator: str = ""
    reason: str = ""
    #: What the fee counts for in dollars, by the rate at which it was held; None where none was known.
    usd: AttoUsd | None = None


class Repeat(msgspec.Struct, frozen=True):
    """A request got another's images; written with its settlement. Nobody was paid for it."""

    request_id: str
    kind: RepeatKind
    #: The request that was run for them.
    origin: str
    #: The fee that was paid for them.
    worth: Wei


class TicketBatch(msgspec.Struct, frozen=True):
    """How an attempt is paid for, written down before its tickets are sent. Amounts in wei.

    It may have no tickets, where the balance at the orchestrator covers the job.
    """

    attempt_id: str
    #: The account that is paid, 40 hex digits.
    recipient: str
    model_id: ModelId
    tickets: int
    #: What the tickets are worth.
    credit: Fraction
    #: Of an earlier balance, the part that the attempt uses.
    taken: Fraction
    #: Of one ticket; the probability over 2**256 - 1.
    face_value: Wei
    win_prob: Wei
    #: Hex.
    recipient_rand_hash: str
    #: The tickets have this nonce and those after it.
    first_nonce: int
    creation_round: int


class Receipt(msgspec.Struct, frozen=True):
    """What an attempt's payment came to, in wei. Its absence means that nobody knows yet."""

    attempt_id: str
    credited: Fraction
    charged: Wei
    #: Of an earlier balance that the orchestrator does not acknowledge.
    forfeited: Fraction
    #: Who says so: answer, receipt, assumed or unsent.
    source: str
    #: Unix seconds.
    told_at: float


FulfilmentState = Literal["done", "failed", "cancelled"]


class Fulfilment(msgspec.Struct, frozen=True):
    """How a request ended whose answer is kept; written with its settlement where it has one."""

    request_id: str
    state: FulfilmentState
    #: Of the HTTP answer.
    status: int
    #: The answer's JSON; "" where it was too large to keep.
    body: str
    #: Of the answer, a JSON object.
    headers: str
    #: Unix seconds.
    finished_at: float


Event: TypeAlias = (
    Accepted | Attempt | Outcome | Settlement | Repeat | TicketBatch | Receipt | Fulfilment
)


@dataclass(frozen=True, slots=True)
class UsageTotal:
    """One line of `limner-gateway usage`: settled requests of one group."""

    #: Key id, model id or orchestrator URI.
    group: str
    requests: int
    images: int
    pixels: Pixels
    fee: Wei
    #: Of those whose fee the journal has in dollars, too.
    usd: AttoUsd = NO_DOLLARS
    #: How many of the requests got another's images, what part of the fee they were charged, and what
    #: was paid for those images. The others were charged `fee - repeats_fee`.
    repeats: int = 0
    repeats_fee: Wei = NOTHING
    repeats_worth: Wei = NOTHING


@dataclass(frozen=True, slots=True)
class DailySpending:
    """What requests of one key cost that were settled on one day of UTC."""

    key_id: str
    #: Unix seconds.
    day_began: float
    fee: Wei
    usd: AttoUsd = NO_DOLLARS


@dataclass(frozen=True, slots=True)
class OrchestratorTotal:
    """What the journal knows of one orchestrator."""

    orchestrator: str
    succeeded: int
    busy: int
    #: Everything that was neither delivered, refused as busy nor outrun.
    failed: int
    #: Of all that it delivered.
    fee: Wei
    #: Mean seconds of what succeeded; None without any.
    mean_seconds: float | None
    #: Attempts that another one, made beside them, was sooner than.
    outrun: int = 0
    #: The part of `fee` that was for those of them which it delivered all the same; no client paid it.
    outrun_fee: Wei = NOTHING


@dataclass(frozen=True, slots=True)
class RequestRecord:
    """One request as the journal tells it."""

    accepted: Accepted
    state: RequestState | Literal["open"]
    settled_at: float | None
    fee: Wei
    #: URI of the one that delivered; empty if none did.
    orchestrator: str
    attempts: int
    reason: str
    #: The orchestrator's own id of the job that it delivered; empty if none did, or it named none.
    node_job_id: str = ""
    #: Tickets sent for it, all attempts together, and what they are worth.
    tickets: int = 0
    paid: Fraction = Fraction(0)
    #: What orchestrators said that they credited and charged. Off-chain all four are 0.
    credited: Fraction = Fraction(0)
    charged: Wei = NOTHING
    #: What `fee` counted for in dollars; None where no rate was known.
    usd: AttoUsd | None = None
    #: How it came by another's images, and whose; empty where it was run itself.
    repeat: RepeatKind | Literal[""] = ""
    origin: str = ""
