"""Stable Diffusion 1.x and 2.x, and every model whose folder says `StableDiffusionPipeline`.

The steps are those of diffusers' own `StableDiffusionPipeline.__call__`, cut open at the loop: on
one device, one sample alone gives the same bits as the stock pipeline called with
`generator=torch.Generator("cpu").manual_seed(seed)`. Each sample owns its scheduler and its
generator, which is what makes it independent of the samples between whose steps it runs.
"""

import inspect
import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers.utils.torch_utils import randn_tensor
from numpy.typing import NDArray

from node.engine.families.base import Bounds, Checkpoint, InvalidJobError, to_bytes
from node.engine.work import ImageJob, ModelFacts


@dataclass(frozen=True, slots=True)
class EncodedPrompt:
    """Text embeddings of shape (1, tokens, width); `negative` only where guidance is on."""

    positive: torch.Tensor
    negative: torch.Tensor | None


@dataclass(slots=True)
class DiffusionSample:
    """One image's state between two steps. `embeddings` has the negative half first."""

    latents: torch.Tensor
    embeddings: torch.Tensor
    scheduler: Any
    timesteps: torch.Tensor
    generator: torch.Generator
    extras: dict[str, Any]
    condition: torch.Tensor | None
    guidance: float
    guided: bool
    steps: int
    position: int = 0

    @property
    def key(self) -> Hashable:
        return (tuple(self.latents.shape), self.guided)

    @property
    def done(self) -> int:
        # Some schedulers (PNDM, Heun) evaluate more often than the job asked for steps.
        return self.steps * self.position // len(self.timesteps)

    @property
    def finished(self) -> bool:
        return self.position >= len(self.timesteps)


class StableDiffusion:
    """Implements Family over a loaded `StableDiffusionPipeline`."""

    alone = False

    def __init__(self, pipeline: Any) -> None:
        self._pipeline = pipeline
        self._device = pipeline.unet.device
        self._dtype = pipeline.unet.dtype
        self._scale = int(pipeline.vae_scale_factor)
        # The stock pipeline refuses sizes off the grid of 8, and the latents have a grid too.
        self.facts = ModelFacts(size_multiple=math.lcm(8, self._scale))
        self._bounds = Bounds(self.facts)
        self._step_arguments = frozenset(inspect.signature(pipeline.scheduler.step).parameters)

    def prompt_key(self, job: ImageJob) -> Hashable:
        """Return what `encode` depends on beside the texts. Raises InvalidJobError."""
        self._bounds.check(job)
        return self._is_guided(job)

    def encode(self, job: ImageJob) -> EncodedPrompt:
        self._bounds.check(job)
        with torch.inference_mode():
            positive, negative = self._pipeline.encode_prompt(
                job.prompts[0],
                self._device,
                1,
                self._is_guided(job),
                job.negative_prompts[0] if job.negative_prompts else "",
            )
        return EncodedPrompt(positive, negative)

    def start(self, job: ImageJob, prompt: EncodedPrompt, seed: int) -> DiffusionSample:
        unet = self._pipeline.unet
        scheduler = type(self._pipeline.scheduler).from_config(self._pipeline.scheduler.config)
        try:
            scheduler.set_timesteps(job.steps, device=self._device)
        except ValueError:
            raise InvalidJobError(f"This model cannot take {job.steps} steps.") from None
        generator = torch.Generator("cpu").manual_seed(seed)
        shape = (1, unet.config.in_channels, job.height // self._scale, job.width // self._scale)
        with torch.inference_mode():
            noise = randn_tensor(
                shape, generator=generator, device=self._device, dtype=prompt.positive.dtype
            )
            embeddings = prompt.positive
            if prompt.negative is not None:
                embeddings = torch.cat([prompt.negative, prompt.positive])
            return DiffusionSample(
                latents=noise * scheduler.init_noise_sigma,
                embeddings=embeddings,
                scheduler=scheduler,
                timesteps=scheduler.timesteps,
                generator=generator,
                extras=self._step_extras(generator),
                condition=self._guidance_condition(job.guidance),
                guidance=job.guidance,
                guided=self._is_guided(job),
                steps=job.steps,
            )

    def step(self, samples: Sequence[DiffusionSample], checkpoint: Checkpoint) -> None:
        del checkpoint  # one step is short; the loop looks for cancellations between steps
        with torch.inference_mode():
            predictions = self._predict(samples)
            for sample, prediction in zip(samples, predictions, strict=True):
                sample.latents = sample.scheduler.step(
                    prediction,
                    sample.timesteps[sample.position],
                    sample.latents,
                    **sample.extras,
                    return_dict=False,
                )[0]
                sample.position += 1

    def decode(self, sample: DiffusionSample) -> NDArray[np.uint8]:
        vae = self._pipeline.vae
        with torch.inference_mode():
            image = vae.decode(
                sample.latents / vae.config.scaling_factor,
                return_dict=False,
                generator=sample.generator,
            )[0]
            pixels = self._pipeline.image_processor.postprocess(image, output_type="np")
        return to_bytes(pixels[0])

    def _is_guided(self, job: ImageJob) -> bool:
        return job.guidance > 1 and self._pipeline.unet.config.time_cond_proj_dim is None

    def _step_extras(self, generator: torch.Generator) -> dict[str, Any]:
        extras: dict[str, Any] = {"eta": 0.0, "generator": generator}
        return {name: value for name, value in extras.items() if name in self._step_arguments}

    def _guidance_condition(self, guidance: float) -> torch.Tensor | None:
        """Return the guidance as an embedding, for the distilled models that want it (LCM)."""
        width = self._pipeline.unet.config.time_cond_proj_dim
        if width is None:
            return None
        scale = torch.tensor(guidance - 1).repeat(1)
        embedding = self._pipeline.get_guidance_scale_embedding(scale, embedding_dim=width)
        return embedding.to(device=self._device, dtype=self._dtype)

    def _predict(self, samples: Sequence[DiffusionSample]) -> list[torch.Tensor]:
        """Run the UNet once for samples of one key; returns each one's guided prediction."""
        inputs = [
            sample.scheduler.scale_model_input(sample.latents, sample.timesteps[sample.position])
            for sample in samples
        ]
        halves = 2 if samples[0].guided else 1
        output = self._pipeline.unet(
            torch.cat(inputs * halves) if len(inputs) * halves > 1 else inputs[0],
            _timesteps(samples, halves),
            encoder_hidden_states=_embeddings(samples, halves),
            timestep_cond=_conditions(samples),
            return_dict=False,
        )[0]
        if halves == 1:
            return list(output.split(1))
        plain, guided = output.chunk(2)
        return [
            negative + sample.guidance * (positive - negative)
            for sample, negative, positive in zip(
                samples, plain.split(1), guided.split(1), strict=True
            )
        ]


def _timesteps(samples: Sequence[DiffusionSample], halves: int) -> torch.Tensor:
    if len(samples) == 1:
        return samples[0].timesteps[samples[0].position]
    steps = torch.stack([sample.timesteps[sample.position] for sample in samples])
    return steps.repeat(halves)


def _embeddings(samples: Sequence[DiffusionSample], halves: int) -> torch.Tensor:
    if len(samples) == 1:
        return samples[0].embeddings
    parts = [sample.embeddings.split(1) for sample in samples]
    return torch.cat([part[half] for half in range(halves) for part in parts])


def _conditions(samples: Sequence[DiffusionSample]) -> torch.Tensor | None:
    conditions = [sample.condition for sample in samples if sample.condition is not None]
    return torch.cat(conditions) if conditions else None
