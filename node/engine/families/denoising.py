"""What the families that denoise latents share: their samples, the arithmetic of guidance, a step.

An adapter is the stock pipeline's `__call__` cut open at its loop: on one device, one sample alone
gives the same bits as that pipeline called with
`generator=torch.Generator("cpu").manual_seed(seed)`. Samples of one key share a forward pass; each
has its own timestep, scheduler, generator, guidance scale and embeddings, which makes it
independent of the samples that it shares a pass with. Another batch size may take other kernels,
though, which changes the last bits.
"""

from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from diffusers.utils.torch_utils import randn_tensor
from numpy.typing import NDArray

from node.engine.families.base import Bounds, Checkpoint, Loras, most_loras, to_bytes
from node.engine.families.prompts import (
    EncodedPrompt,
    TextEmbedding,
    TextReader,
    cut_warnings,
)
from node.engine.families.schedule import Schedule
from node.engine.work import ImageJob, ModelFacts

_NO_NEGATIVE = (
    "the negative prompt had no effect: only classifier-free guidance reads one, and it is off"
)


@dataclass(slots=True)
class LatentSample:
    """One image's state between two steps. `latents` have the shape (1, channels, height, width).

    `guidance` is the scale between the two halves of a prediction; without a negative embedding
    there is one half only. `conditions` are further inputs of the model, each of shape (1, ...).
    """

    latents: torch.Tensor
    prompt: EncodedPrompt
    schedule: Schedule
    generator: torch.Generator
    guidance: float
    conditions: Mapping[str, torch.Tensor] = field(default_factory=dict)

    @property
    def guided(self) -> bool:
        """Tell whether each prediction has an unconditional half."""
        return self.prompt.negative is not None

    @property
    def key(self) -> Hashable:
        return (tuple(self.latents.shape), self.guided)

    @property
    def done(self) -> int:
        return self.schedule.done

    @property
    def finished(self) -> bool:
        return self.schedule.finished


class LatentFamily(ABC):
    """Implements Family over a loaded pipeline; subclasses say what their model wants."""

    alone = False
    loras: Loras | None = None

    def __init__(
        self, pipeline: Any, model: Any, facts: ModelFacts, readers: Sequence[TextReader]
    ) -> None:
        """`model` is what denoises, `readers` the pipeline's tokenizers in the prompt's order."""
        self._pipeline = pipeline
        self._model = model
        self._readers = readers
        self._device: torch.device = model.device
        self._dtype: torch.dtype = model.dtype
        self._scale = int(pipeline.vae_scale_factor)
        self.facts = replace(facts, max_loras=most_loras(pipeline))
        self._bounds = Bounds(self.facts)

    @property
    def vae(self) -> Any:
        """The autoencoder, which tells previews what its latents look like."""
        return self._pipeline.vae

    def prompt_key(self, job: ImageJob) -> Hashable:
        """Return what `encode` depends on beside the texts and LoRAs. Raises InvalidJobError."""
        self._bounds.check(job)
        return (job.guidance > 1, job.true_guidance > 1)

    def encode(self, job: ImageJob) -> EncodedPrompt:
        self._bounds.check(job)
        with torch.inference_mode():
            positive, negative = self._encode(job)
        return EncodedPrompt(positive, negative, self._warnings(job, guided=negative is not None))

    def start(self, job: ImageJob, prompt: EncodedPrompt, seed: int) -> LatentSample:
        generator = torch.Generator("cpu").manual_seed(seed)
        shape = (1, self._latent_channels(), job.height // self._scale, job.width // self._scale)
        with torch.inference_mode():
            schedule = self._schedule(job, generator, shape)
            noise = randn_tensor(
                shape, generator=generator, device=self._device, dtype=prompt.positive.tokens.dtype
            )
            return LatentSample(
                latents=self._first_latents(noise, schedule),
                prompt=prompt,
                schedule=schedule,
                generator=generator,
                guidance=self._guidance(job),
                conditions=self._conditions(job, prompt),
            )

    def step(self, samples: Sequence[LatentSample], checkpoint: Checkpoint) -> None:
        del checkpoint  # one step is short; the loop looks for cancellations between steps
        with torch.inference_mode():
            predictions = self._predict(samples)
            for sample, prediction in zip(samples, predictions, strict=True):
                sample.latents = sample.schedule.advance(prediction, sample.latents)

    def decode(self, sample: LatentSample) -> NDArray[np.uint8]:
        vae = self._pipeline.vae
        with torch.inference_mode():
            image = vae.decode(
                self._unscaled(sample.latents.to(vae.dtype)),
                return_dict=False,
                generator=sample.generator,
            )[0]
            pixels = self._pipeline.image_processor.postprocess(image, output_type="np")
        return to_bytes(pixels[0])

    @abstractmethod
    def _encode(self, job: ImageJob) -> tuple[TextEmbedding, TextEmbedding | None]:
        """Encode the prompt, and the negative one where the job runs an unconditional half."""

    @abstractmethod
    def _latent_channels(self) -> int:
        """Return how many channels the latents have."""

    @abstractmethod
    def _schedule(
        self, job: ImageJob, generator: torch.Generator, shape: tuple[int, ...]
    ) -> Schedule:
        """Return a new sample's schedule; `shape` is its latents'. Raises InvalidJobError."""

    @abstractmethod
    def _predict(self, samples: Sequence[LatentSample]) -> list[torch.Tensor]:
        """Run the model for samples of one key; returns each one's guided prediction."""

    @abstractmethod
    def _unscaled(self, latents: torch.Tensor) -> torch.Tensor:
        """Return the latents in the range that the autoencoder decodes."""

    def _guidance(self, job: ImageJob) -> float:
        """Return the scale between the two halves of a prediction."""
        return job.guidance

    def _first_latents(self, noise: torch.Tensor, schedule: Schedule) -> torch.Tensor:
        del schedule
        return noise

    def _conditions(self, job: ImageJob, prompt: EncodedPrompt) -> dict[str, torch.Tensor]:
        del job, prompt
        return {}

    def _warnings(self, job: ImageJob, *, guided: bool) -> tuple[str, ...]:
        cut = cut_warnings(self._readers, job.prompts, "prompt")
        if not job.negative_prompts:
            return cut
        if not guided:
            return (*cut, _NO_NEGATIVE)
        return cut + cut_warnings(self._readers, job.negative_prompts, "negative prompt")


def joined(parts: Iterable[torch.Tensor], halves: int = 1) -> torch.Tensor:
    """Return samples' tensors of shape (1, ...) as one batch, all of it once a half."""
    tensors = tuple(parts) * halves
    return tensors[0] if len(tensors) == 1 else torch.cat(tensors)


def embeddings(samples: Sequence[LatentSample], name: str) -> torch.Tensor:
    """Join the samples' "tokens" or "pooled", all negative ones first where samples have such."""
    texts = [sample.prompt.positive for sample in samples]
    negatives = [
        sample.prompt.negative for sample in samples if sample.prompt.negative is not None
    ]
    return joined(getattr(text, name) for text in (*negatives, *texts))


def timesteps(samples: Sequence[LatentSample], halves: int = 1) -> torch.Tensor:
    """Return each sample's timestep, once a half, of shape (halves * samples,)."""
    return torch.stack([sample.schedule.timestep for sample in samples] * halves)


def guide(samples: Sequence[LatentSample], output: torch.Tensor) -> list[torch.Tensor]:
    """Apply each sample's classifier-free guidance to a model's output, negative half first."""
    if not samples[0].guided:
        return list(output.split(1))
    negatives, positives = output.chunk(2)
    return [
        guided(sample.guidance, negative, positive)
        for sample, negative, positive in zip(
            samples, negatives.split(1), positives.split(1), strict=True
        )
    ]


def guided(scale: float, negative: torch.Tensor, positive: torch.Tensor) -> torch.Tensor:
    """Go `scale` times the way from the unconditional to the conditional prediction."""
    return negative + scale * (positive - negative)
