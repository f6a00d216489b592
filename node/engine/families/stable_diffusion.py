"""Stable Diffusion 1.x and 2.x, and every model whose folder says `StableDiffusionPipeline`."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from typing_extensions import override

from node.engine.families.denoising import (
    LatentFamily,
    LatentSample,
    embeddings,
    guide,
    joined,
    timesteps,
)
from node.engine.families.prompts import EncodedPrompt, TextEmbedding, TextReader
from node.engine.families.schedule import Schedule
from node.engine.work import ImageJob, ModelFacts

#: Schedulers of models that were distilled to a few steps, whatever their timesteps.
_FEW_STEP_SCHEDULERS = ("LCMScheduler", "TCDScheduler")
_GUIDANCE_INPUT = "timestep_cond"


class StableDiffusion(LatentFamily):
    """Implements Family over a loaded `StableDiffusionPipeline`."""

    def __init__(self, pipeline: Any) -> None:
        readers = self._text_readers(pipeline)
        scale = int(pipeline.vae_scale_factor)
        super().__init__(
            pipeline,
            pipeline.unet,
            ModelFacts(
                # The stock pipeline refuses sizes off the grid of 8; latents have a grid too.
                size_multiple=math.lcm(8, scale),
                prompt_parts=len(readers),
                native_size=_side(pipeline.unet.config.sample_size) * scale or None,
                few_steps=_few_steps(pipeline.scheduler),
            ),
            readers,
        )

    @staticmethod
    def _text_readers(pipeline: Any) -> tuple[TextReader, ...]:
        return (TextReader(pipeline.tokenizer, pipeline.tokenizer.model_max_length),)

    @override
    def _encode(self, job: ImageJob) -> tuple[TextEmbedding, TextEmbedding | None]:
        positive, negative = self._pipeline.encode_prompt(
            job.prompts[0],
            self._device,
            1,
            self._is_guided(job),
            job.negative_prompts[0] if job.negative_prompts else "",
        )
        return TextEmbedding(positive), None if negative is None else TextEmbedding(negative)

    @override
    def _latent_channels(self) -> int:
        return int(self._model.config.in_channels)

    @override
    def _schedule(
        self, job: ImageJob, generator: torch.Generator, shape: tuple[int, ...]
    ) -> Schedule:
        del shape
        return Schedule(
            self._pipeline.scheduler,
            job.steps,
            self._device,
            generator,
        )

    @override
    def _first_latents(self, noise: torch.Tensor, schedule: Schedule) -> torch.Tensor:
        return noise * schedule.first_noise

    @override
    def _conditions(self, job: ImageJob, prompt: EncodedPrompt) -> dict[str, torch.Tensor]:
        """Return the guidance as an embedding, for the distilled models that want it (LCM)."""
        width = self._model.config.time_cond_proj_dim
        if width is None:
            return {}
        scale = torch.tensor(job.guidance - 1).repeat(1)
        embedding = self._pipeline.get_guidance_scale_embedding(scale, embedding_dim=width)
        dtype = prompt.positive.tokens.dtype
        return {_GUIDANCE_INPUT: embedding.to(device=self._device, dtype=dtype)}

    def _is_guided(self, job: ImageJob) -> bool:
        return job.guidance > 1 and self._model.config.time_cond_proj_dim is None

    @override
    def _predict(self, samples: Sequence[LatentSample]) -> list[torch.Tensor]:
        halves = 2 if samples[0].guided else 1
        output = self._model(
            joined((one.schedule.model_input(one.latents) for one in samples), halves),
            timesteps(samples, halves),
            encoder_hidden_states=embeddings(samples, "tokens"),
            added_cond_kwargs=self._added_conditions(samples, halves),
            return_dict=False,
            **self._guidance_inputs(samples),
        )[0]
        return guide(samples, output)

    def _guidance_inputs(self, samples: Sequence[LatentSample]) -> dict[str, torch.Tensor]:
        if _GUIDANCE_INPUT not in samples[0].conditions:
            return {}
        return {_GUIDANCE_INPUT: joined(one.conditions[_GUIDANCE_INPUT] for one in samples)}

    def _added_conditions(
        self, samples: Sequence[LatentSample], halves: int
    ) -> dict[str, torch.Tensor] | None:
        del samples, halves
        return None

    @override
    def _unscaled(self, latents: torch.Tensor) -> torch.Tensor:
        return latents / self._pipeline.vae.config.scaling_factor


def _side(sample_size: int | Sequence[int] | None) -> int:
    """Return the latents' side that a model was trained on; the shorter one of two."""
    if sample_size is None:
        return 0
    return sample_size if isinstance(sample_size, int) else min(sample_size)


def _few_steps(scheduler: Any) -> bool:
    """Tell whether a model was distilled to a few steps, by what such models ship.

    Turbo and Lightning space their timesteps from the last one. So do models trained to zero
    terminal noise ratio, which take the usual many steps and say so in their scheduler.
    """
    config = scheduler.config
    trailing = config.get("timestep_spacing") == "trailing"
    full = config.get("rescale_betas_zero_snr") or config.get("prediction_type") == "v_prediction"
    return type(scheduler).__name__ in _FEW_STEP_SCHEDULERS or (trailing and not full)
