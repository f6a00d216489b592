"""A job as accounting sees it."""

from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from typing import Final

from network.runtime.inserting import Row
from network.units import Address, JobId, ModelId, Pixels, Wei

#: Who pays when a gateway did not say who it is (off-chain, open or loopback nodes only).
NOBODY: Final = Address(bytes(20))


class Outcome(StrEnum):
    """How an accepted job ended; only a delivered one is charged."""

    DELIVERED = "delivered"
    FAILED = "failed"
    CANCELLED = "cancelled"
    REFUSED = "refused"
    INTERRUPTED = "interrupted"


@dataclass(frozen=True, slots=True)
class Job:
    """An admitted request, without its prompts.

    `attempt_id` is the id the gateway gave this attempt, ours where it gave none. `fee` is in
    wei, `price` in wei per pixel; `pixels` counts every image.
    """

    job_id: JobId
    attempt_id: str
    payer: Address
    model_id: ModelId
    width: int
    height: int
    images: int
    steps: int
    pixels: Pixels
    price: Fraction
    fee: Wei


@dataclass(frozen=True, slots=True)
class Ending:
    """The end of a job. Seconds are those in the queue and those in the engine."""

    outcome: Outcome
    reason: str = ""
    waited_seconds: float = 0.0
    run_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Credit:
    """What one payment brought, in wei, and the rows that must be on disk together with it.

    `refusal`, unless empty, is why the payment does not do; the payer keeps the credit all the same.
    """

    payer: Address
    amount: Fraction
    tickets: int
    rows: tuple[Row, ...] = ()
    refusal: str = ""


@dataclass(frozen=True, slots=True)
class Receipt:
    """What an attempt brought and cost; `state` is "refused" for one that never became a job."""

    credited: Fraction
    charged: Wei
    state: str
