"""What the worker's loop asks of a model family, and the rules all of them share. No torch."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from node.engine.work import ImageJob, LoraSet, ModelFacts

#: Called during a long step with the steps a sample has done; False means: stop, it is cancelled.
Checkpoint = Callable[[int], bool]


MAX_LORAS = 4  #: in one job


class InvalidJobError(Exception):
    """This model cannot do that job. The message is for the client and names no prompt."""


class SampleCancelledError(Exception):
    """A checkpoint said stop."""


class Sample(Protocol):
    """One image on its way through the denoise steps."""

    @property
    def key(self) -> Hashable:
        """What must be equal for two samples of a model to share a forward pass."""

    @property
    def done(self) -> int:
        """Denoise steps done, counted in the steps the job asked for."""

    @property
    def finished(self) -> bool:
        """Tell whether every step is done, so that the sample can be decoded."""


class Loras(Protocol):
    """The LoRAs of a loaded model. `activate` belongs to the thread that steps it."""

    def holds(self, name: str) -> bool:
        """Tell whether a LoRA is ready to be used, so that `activate` would take no time."""

    def prepare(self, name: str) -> object:
        """Make a LoRA ready, on any thread. Raises InvalidJobError."""

    def activate(self, loras: LoraSet) -> None:
        """Let the next `encode` or `step` use exactly these. Raises InvalidJobError."""


class Family(Protocol):
    """A loaded model. One thread calls `decode`, one other thread everything else."""

    #: None where no LoRA can be used; the step loop says which ones are.
    loras: Loras | None

    facts: ModelFacts
    #: Whether a sample takes all its steps in one call of `step`, with nothing beside it.
    alone: bool

    def encode(self, job: ImageJob) -> Any:
        """Encode a job's prompts, once for all its images; see `warnings_of`."""

    def start(self, job: ImageJob, prompt: Any, seed: int) -> Any:
        """Return a sample before its first step. Raises InvalidJobError."""

    def step(self, samples: Sequence[Any], checkpoint: Checkpoint) -> None:
        """Advance samples of one key by a step each. Raises SampleCancelledError if `alone`."""

    def decode(self, sample: Any) -> NDArray[np.uint8]:
        """Return a finished sample's pixels, `(height, width, 3)`, RGB."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """The checks that need no more than a model's facts."""

    facts: ModelFacts

    def check(self, job: ImageJob) -> None:
        """Refuse what the model cannot do. Raises InvalidJobError."""
        multiple = self.facts.size_multiple
        for name, side in (("width", job.width), ("height", job.height)):
            if side < multiple or side % multiple:
                raise InvalidJobError(
                    f"{name} must be a multiple of {multiple} for this model; it is {side}."
                )
        if job.steps < 1:
            raise InvalidJobError(f"There must be at least one step, not {job.steps}.")
        if not 0.0 <= job.guidance < float("inf"):
            raise InvalidJobError("The guidance scale must be a finite number, 0 or above.")
        if not 0.0 <= job.true_guidance < float("inf"):
            raise InvalidJobError("The true guidance scale must be a finite number, 0 or above.")
        if not job.seeds or min(job.seeds) < 0 or max(job.seeds) >= 2**64:
            raise InvalidJobError("Every image needs a seed of 0 or above.")
        self._check_prompts(job)
        if len(job.loras) > self.facts.max_loras:
            names = ", ".join(name for name, _ in job.loras)
            most = f"at most {self.facts.max_loras}" if self.facts.max_loras else "no"
            raise InvalidJobError(f"This model takes {most} LoRAs; asked for: {names}.")

    def _check_prompts(self, job: ImageJob) -> None:
        parts = self.facts.prompt_parts
        if not job.prompts:
            raise InvalidJobError("There is no prompt.")
        if max(len(job.prompts), len(job.negative_prompts)) > parts:
            raise InvalidJobError(
                f"This model reads {parts} prompt part{'s' if parts > 1 else ''} "
                "(separated by '|') and got more."
            )


def warnings_of(prompt: object) -> tuple[str, ...]:
    """Return what an encoded prompt has to tell the client: texts of ours that quote none of his.

    A family says it by an attribute `warnings`; some have nothing to say and no such attribute.
    """
    warnings = getattr(prompt, "warnings", ())
    return warnings if isinstance(warnings, tuple) else ()


def most_loras(pipeline: Any) -> int:
    """Return how many LoRAs a job of this pipeline may have: the API's bound, or none at all.

    Fused projections stand in for the layers that LoRAs change.
    """
    model = getattr(pipeline, "transformer", None) or getattr(pipeline, "unet", None)
    modules = () if model is None else model.modules()
    is_fused = any(getattr(module, "fused_projections", False) for module in modules)
    return MAX_LORAS if hasattr(pipeline, "load_lora_weights") and not is_fused else 0


def to_bytes(pixels: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
    """Turn one picture of 0..1 into 0..255 exactly as diffusers' `numpy_to_pil` does."""
    return (pixels * 255).round().astype(np.uint8)
