"""SDXL, with its distillates: Turbo, Lightning, LCM. They differ in scheduler and guidance only."""

from collections.abc import Sequence
from typing import Any

import torch
from typing_extensions import override

from node.engine.families.denoising import LatentSample, embeddings, joined
from node.engine.families.prompts import EncodedPrompt, TextEmbedding, TextReader, parts_of
from node.engine.families.stable_diffusion import StableDiffusion
from node.engine.work import ImageJob

_SIZES = "time_ids"


class StableDiffusionXL(StableDiffusion):
    """Implements Family over a loaded `StableDiffusionXLPipeline`.

    Beside what Stable Diffusion has: two text encoders, the second one's pooled output, and the
    image's size as an input.
    """

    def __init__(self, pipeline: Any) -> None:
        vae = pipeline.vae
        if vae.dtype == torch.float16 and vae.config.get("force_upcast"):
            vae.to(torch.float32)  # in half precision it overflows
        super().__init__(pipeline)

    @override
    @staticmethod
    def _text_readers(pipeline: Any) -> tuple[TextReader, ...]:
        return tuple(
            TextReader(tokenizer, tokenizer.model_max_length)
            for tokenizer in (pipeline.tokenizer, pipeline.tokenizer_2)
        )

    @override
    def _encode(self, job: ImageJob) -> tuple[TextEmbedding, TextEmbedding | None]:
        prompt, prompt_2 = parts_of(job.prompts, 2)
        negative, negative_2 = parts_of(job.negative_prompts, 2)
        tokens, negative_tokens, pooled, negative_pooled = self._pipeline.encode_prompt(
            prompt=prompt,
            prompt_2=prompt_2,
            device=self._device,
            num_images_per_prompt=1,
            do_classifier_free_guidance=self._is_guided(job),
            # Without one, some models want zeros and others the encoding of an empty text.
            negative_prompt=negative,
            negative_prompt_2=negative_2,
        )
        unconditional = None
        if negative_tokens is not None:
            unconditional = TextEmbedding(negative_tokens, negative_pooled)
        return TextEmbedding(tokens, pooled), unconditional

    @override
    def _conditions(self, job: ImageJob, prompt: EncodedPrompt) -> dict[str, torch.Tensor]:
        # Original size, offset of the crop, target size: an uncropped image of its own size.
        sizes = [job.height, job.width, 0, 0, job.height, job.width]
        row = torch.tensor([sizes], dtype=prompt.positive.tokens.dtype)
        return super()._conditions(job, prompt) | {_SIZES: row.to(self._device)}

    @override
    def _added_conditions(
        self, samples: Sequence[LatentSample], halves: int
    ) -> dict[str, torch.Tensor]:
        return {
            "text_embeds": embeddings(samples, "pooled"),
            _SIZES: joined((one.conditions[_SIZES] for one in samples), halves),
        }

    @override
    def _unscaled(self, latents: torch.Tensor) -> torch.Tensor:
        config = self._pipeline.vae.config
        mean, deviation = config.get("latents_mean"), config.get("latents_std")
        if mean is None or deviation is None:
            return latents / config.scaling_factor
        return latents * _channels(deviation, latents) / config.scaling_factor + _channels(
            mean, latents
        )


def _channels(values: Sequence[float], like: torch.Tensor) -> torch.Tensor:
    return torch.tensor(values).view(1, -1, 1, 1).to(like.device, like.dtype)
