"""A job as accounting sees it."""

from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from typing import Final

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
