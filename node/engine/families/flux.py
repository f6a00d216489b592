"""FLUX.1: dev, whose guidance is an input of the model, and schnell, which has none."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from typing_extensions import override

from node.engine.families.denoising import (
    LatentFamily,
    LatentSample,
    guided,
    joined,
    timesteps,
)
from node.engine.families.flow import shift_for, unshifted
from node.engine.families.prompts import EncodedPrompt, TextEmbedding, TextReader, parts_of
from node.engine.families.schedule import Schedule
from node.engine.work import ImageJob, ModelFacts

_T5_TOKENS = 512  # the stock pipeline's `max_sequence_length`
_PATCH = 2  # latents a side that make one token
_GUIDANCE = "guidance"


class Flux(LatentFamily):
    """Implements Family over a loaded `FluxPipeline`.

    The model sees latents as a row of tokens; samples keep them as pictures, like all families.
    """

    def __init__(self, pipeline: Any) -> None:
        scale = int(pipeline.vae_scale_factor)
        distilled = not pipeline.transformer.config.guidance_embeds
        super().__init__(
            pipeline,
            pipeline.transformer,
            ModelFacts(
                size_multiple=math.lcm(8, scale * _PATCH),
                prompt_parts=2,
                native_size=pipeline.default_sample_size * scale,
                guided=not distilled,
                few_steps=distilled,
            ),
            (
                TextReader(pipeline.tokenizer, pipeline.tokenizer_max_length),
                TextReader(pipeline.tokenizer_2, _T5_TOKENS),
            ),
        )

    @override
    def _encode(self, job: ImageJob) -> tuple[TextEmbedding, TextEmbedding | None]:
        negative = None
        if job.true_guidance > 1 and job.negative_prompts:
            negative = self._encode_one(job.negative_prompts)
        return self._encode_one(job.prompts), negative

    def _encode_one(self, texts: Sequence[str]) -> TextEmbedding:
        prompt, prompt_2 = parts_of(texts, 2)
        tokens, pooled, _ = self._pipeline.encode_prompt(
            prompt, prompt_2, self._device, max_sequence_length=_T5_TOKENS
        )
        return TextEmbedding(tokens, pooled)

    @override
    def _guidance(self, job: ImageJob) -> float:
        return job.true_guidance

    @override
    def _conditions(self, job: ImageJob, prompt: EncodedPrompt) -> dict[str, torch.Tensor]:
        if not self.facts.guided:
            return {}
        scale = torch.full([1], job.guidance, device=self._device, dtype=torch.float32)
        return {_GUIDANCE: scale}

    @override
    def _latent_channels(self) -> int:
        return int(self._model.config.in_channels) // _PATCH**2

    @override
    def _schedule(
        self, job: ImageJob, generator: torch.Generator, shape: tuple[int, ...]
    ) -> Schedule:
        template = self._pipeline.scheduler
        tokens = (shape[2] // _PATCH) * (shape[3] // _PATCH)
        options: dict[str, Any] = {"mu": shift_for(template.config, tokens, largest=1.15)}
        if not template.config.get("use_flow_sigmas"):
            options["sigmas"] = np.linspace(1.0, 1 / job.steps, job.steps)
        return Schedule(template, job.steps, self._device, generator, **options)

    @override
    def _predict(self, samples: Sequence[LatentSample]) -> list[torch.Tensor]:
        positives = self._run(samples, [one.prompt.positive for one in samples])
        negatives = [one.prompt.negative for one in samples if one.prompt.negative is not None]
        if not negatives:
            return positives
        # Two passes, not one of twice the size: the stock pipeline's bits.
        return [
            guided(one.guidance, negative, positive)
            for one, negative, positive in zip(
                samples, self._run(samples, negatives), positives, strict=True
            )
        ]

    def _run(
        self, samples: Sequence[LatentSample], texts: Sequence[TextEmbedding]
    ) -> list[torch.Tensor]:
        latents = joined(one.latents for one in samples)
        tokens = joined(text.tokens for text in texts)
        rows, columns = (side // _PATCH for side in latents.shape[2:])
        guidance = None
        if self.facts.guided:
            guidance = joined(one.conditions[_GUIDANCE] for one in samples)
        output = self._model(
            hidden_states=packed(latents),
            timestep=timesteps(samples).to(latents.dtype) / 1000,
            guidance=guidance,
            pooled_projections=joined(text.pooled for text in texts),
            encoder_hidden_states=tokens,
            txt_ids=torch.zeros(tokens.shape[1], 3, device=self._device, dtype=tokens.dtype),
            img_ids=_positions(rows, columns).to(device=self._device, dtype=tokens.dtype),
            return_dict=False,
        )[0]
        return list(unpacked(output, rows, columns).split(1))

    @override
    def _unscaled(self, latents: torch.Tensor) -> torch.Tensor:
        return unshifted(latents, self._pipeline.vae.config)


def packed(latents: torch.Tensor) -> torch.Tensor:
    """Turn (n, channels, 2 * rows, 2 * columns) into tokens, (n, rows * columns, 4 * channels)."""
    squares = latents.unflatten(3, (-1, _PATCH)).unflatten(2, (-1, _PATCH))
    return squares.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)


def unpacked(tokens: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    """Turn tokens back into latents."""
    squares = tokens.unflatten(1, (rows, columns)).unflatten(3, (-1, _PATCH, _PATCH))
    return squares.permute(0, 3, 1, 4, 2, 5).flatten(4).flatten(2, 3)


def _positions(rows: int, columns: int) -> torch.Tensor:
    """Return each token's (0, row, column), of shape (rows * columns, 3)."""
    grid = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    return torch.stack([torch.zeros(rows, columns), *grid], dim=-1).flatten(0, 1)
