"""Any other text-to-image pipeline: run whole and alone, watched through its step callback.

Its result is the stock pipeline's by construction. What it costs: nothing else runs beside it.
"""

import inspect
import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from node.engine.families.base import (
    Bounds,
    Checkpoint,
    InvalidJobError,
    Loras,
    SampleCancelledError,
    most_loras,
    to_bytes,
)
from node.engine.work import ImageJob, ModelFacts

_PROMPTS = ("prompt", "prompt_2", "prompt_3", "prompt_4")


@dataclass(slots=True)
class WholeSample:
    """One image: the call to make, then its pixels."""

    arguments: dict[str, Any]
    steps: int
    done: int = 0
    pixels: NDArray[np.uint8] | None = None
    latents: torch.Tensor | None = None  #: after the last step taken, for previews
    key: Hashable = None

    @property
    def finished(self) -> bool:
        return self.pixels is not None


class WholePipeline:
    """Implements Family over any loaded `DiffusionPipeline` that takes a prompt."""

    alone = True
    loras: Loras | None = None

    def __init__(self, pipeline: Any) -> None:
        parameters = frozenset(inspect.signature(pipeline.__call__).parameters)
        if not {"prompt", "generator"} <= parameters:
            raise InvalidJobError(f"{type(pipeline).__name__} makes no images from text")
        self._pipeline = pipeline
        self._parameters = parameters
        scale = int(getattr(pipeline, "vae_scale_factor", 8))
        # Transformers cut the latents into patches of two.
        self.facts = ModelFacts(
            size_multiple=math.lcm(8, 2 * scale),
            prompt_parts=sum(name in parameters for name in _PROMPTS),
            max_loras=most_loras(pipeline),
        )
        self._bounds = Bounds(self.facts)

    @property
    def vae(self) -> Any:
        """The autoencoder, which tells previews what its latents look like; None without one."""
        return getattr(self._pipeline, "vae", None)

    def encode(self, job: ImageJob) -> None:
        """The pipeline encodes by itself; this only checks the job."""
        self._bounds.check(job)

    def start(self, job: ImageJob, prompt: None, seed: int) -> WholeSample:
        del prompt
        arguments: dict[str, Any] = {
            "width": job.width,
            "height": job.height,
            "num_inference_steps": job.steps,
            "guidance_scale": job.guidance,
            "generator": torch.Generator("cpu").manual_seed(seed),
            "output_type": "np",
        }
        arguments |= zip(_PROMPTS, job.prompts, strict=False)
        negatives = (f"negative_{name}" for name in _PROMPTS)
        arguments |= zip(negatives, job.negative_prompts, strict=False)
        known = {name: value for name, value in arguments.items() if name in self._parameters}
        return WholeSample(known, job.steps, key=(job.height, job.width))

    def step(self, samples: Sequence[WholeSample], checkpoint: Checkpoint) -> None:
        (sample,) = samples
        # A sample that ran out of memory half-way begins again, with the same noise.
        seed = sample.arguments["generator"].initial_seed()
        arguments = sample.arguments | {"generator": torch.Generator("cpu").manual_seed(seed)}
        if "callback_on_step_end" in self._parameters:
            arguments["callback_on_step_end"] = _watch(sample, checkpoint)
        output = self._pipeline(**arguments)
        sample.pixels = to_bytes(np.asarray(output.images)[0])
        sample.done = sample.steps
        sample.latents = None

    def decode(self, sample: WholeSample) -> NDArray[np.uint8]:
        if sample.pixels is None:
            raise RuntimeError("a sample was decoded before its steps were done")
        return sample.pixels


def _watch(sample: WholeSample, checkpoint: Checkpoint) -> Callable[..., dict[str, Any]]:
    def after_step(
        pipeline: Any, step: int, timestep: Any, tensors: dict[str, Any]
    ) -> dict[str, Any]:
        del pipeline, timestep
        sample.done = min(sample.steps, step + 1)
        sample.latents = tensors.get("latents")
        # Leaving by an exception, unlike the pipelines' `_interrupt`, also skips the decoding.
        if not checkpoint(sample.done):
            raise SampleCancelledError
        return tensors

    return after_step
