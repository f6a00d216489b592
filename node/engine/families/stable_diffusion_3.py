"""Stable Diffusion 3 and 3.5: flow matching, and three text encoders of which T5 may be missing."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from typing_extensions import override

from node.engine.families.base import InvalidJobError
from node.engine.families.denoising import (
    LatentFamily,
    LatentSample,
    embeddings,
    guide,
    joined,
    timesteps,
)
from node.engine.families.flow import shift_for, unshifted
from node.engine.families.prompts import TextEmbedding, TextReader, parts_of
from node.engine.families.schedule import Schedule
from node.engine.work import ImageJob, ModelFacts

_T5_TOKENS = 256  # the stock pipeline's `max_sequence_length`


class StableDiffusion3(LatentFamily):
    """Implements Family over a loaded `StableDiffusion3Pipeline`."""

    def __init__(self, pipeline: Any) -> None:
        clip_tokens = pipeline.tokenizer_max_length
        readers = [
            TextReader(pipeline.tokenizer, clip_tokens),
            TextReader(pipeline.tokenizer_2, clip_tokens),
        ]
        if pipeline.text_encoder_3 is not None:
            readers.append(TextReader(pipeline.tokenizer_3, _T5_TOKENS))
        scale = int(pipeline.vae_scale_factor)
        config = pipeline.transformer.config
        self._patch = int(config.patch_size)
        facts = ModelFacts(
            size_multiple=math.lcm(8, scale * self._patch),
            prompt_parts=len(readers),
            native_size=config.sample_size * scale,
        )
        super().__init__(pipeline, pipeline.transformer, facts, readers)

    @override
    def _encode(self, job: ImageJob) -> tuple[TextEmbedding, TextEmbedding | None]:
        prompt, prompt_2, prompt_3 = parts_of(job.prompts, 3)
        negative, negative_2, negative_3 = parts_of(job.negative_prompts, 3)
        tokens, negative_tokens, pooled, negative_pooled = self._pipeline.encode_prompt(
            prompt=prompt,
            prompt_2=prompt_2,
            prompt_3=prompt_3,
            negative_prompt=negative,
            negative_prompt_2=negative_2,
            negative_prompt_3=negative_3,
            do_classifier_free_guidance=job.guidance > 1,
            device=self._device,
            max_sequence_length=_T5_TOKENS,
        )
        unconditional = None
        if negative_tokens is not None:
            unconditional = TextEmbedding(negative_tokens, negative_pooled)
        return TextEmbedding(tokens, pooled), unconditional

    @override
    def _latent_channels(self) -> int:
        return int(self._model.config.in_channels)

    @override
    def _schedule(
        self, job: ImageJob, generator: torch.Generator, shape: tuple[int, ...]
    ) -> Schedule:
        rows, columns = (side // self._patch for side in shape[2:])
        most = int(self._model.config.pos_embed_max_size)
        if max(rows, columns) > most:
            pixels = most * self._patch * self._scale
            raise InvalidJobError(f"This model makes images of at most {pixels} pixels a side.")
        template = self._pipeline.scheduler
        options = {}
        if template.config.get("use_dynamic_shifting"):
            options["mu"] = shift_for(template.config, rows * columns, largest=1.16)
        return Schedule(template, job.steps, self._device, generator, **options)

    @override
    def _predict(self, samples: Sequence[LatentSample]) -> list[torch.Tensor]:
        halves = 2 if samples[0].guided else 1
        output = self._model(
            hidden_states=joined((one.latents for one in samples), halves),
            timestep=timesteps(samples, halves),
            encoder_hidden_states=embeddings(samples, "tokens"),
            pooled_projections=embeddings(samples, "pooled"),
            return_dict=False,
        )[0]
        return guide(samples, output)

    @override
    def _unscaled(self, latents: torch.Tensor) -> torch.Tensor:
        return unshifted(latents, self._pipeline.vae.config)
