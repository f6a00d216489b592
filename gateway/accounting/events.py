"""What the usage journal is told, and what it answers."""

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, TypeAlias

from network.units import ModelId, Pixels, Wei

AttemptState = Literal["succeeded", "busy", "refused", "failed", "cancelled", "interrupted"]
RequestState = Literal["settled", "failed", "cancelled", "interrupted"]
Grouping = Literal["key", "model", "orchestrator"]


@dataclass(frozen=True, slots=True)
class Accepted:
    """A request was given a place at an orchestrator for the first time."""

    request_id: str
    key_id: str
    model_id: ModelId
    width: int
    height: int
    images: int
    steps: int
    #: Unix seconds.
    accepted_at: float


@dataclass(frozen=True, slots=True)
class Attempt:
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


@dataclass(frozen=True, slots=True)
class Outcome:
    """An attempt ended."""

    attempt_id: str
    state: AttemptState
    #: What is owed for it: 0 unless it succeeded.
    fee: Wei
    #: Unix seconds.
    finished_at: float
    seconds: float
    node_job_id: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Settlement:
    """A request ended."""

    request_id: str
    state: RequestState
    #: What is owed for it: 0 unless it was settled.
    fee: Wei
    #: Unix seconds.
    settled_at: float
    #: URI of the one that delivered.
    orchestrator: str = ""
    reason: str = ""


Event: TypeAlias = Accepted | Attempt | Outcome | Settlement


@dataclass(frozen=True, slots=True)
class UsageTotal:
    """One line of `limner-gateway usage`: settled requests of one group."""

    #: Key id, model id or orchestrator URI.
    group: str
    requests: int
    images: int
    pixels: Pixels
    fee: Wei


@dataclass(frozen=True, slots=True)
class OrchestratorTotal:
    """What the journal knows of one orchestrator."""

    orchestrator: str
    succeeded: int
    busy: int
    #: Everything that was neither delivered nor refused as busy.
    failed: int
    fee: Wei
    #: Mean seconds of what succeeded; None without any.
    mean_seconds: float | None


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
