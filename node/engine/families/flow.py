"""What the flow-matching families share: their schedulers' shift, and centred latents."""

from typing import Any

import torch
from diffusers.pipelines.flux.pipeline_flux import calculate_shift


def shift_for(config: Any, image_tokens: int, *, largest: float) -> float:
    """Return how far a scheduler with dynamic shifting moves its steps for an image's tokens.

    `largest` stands in where the scheduler's configuration names no largest shift.
    """
    return float(
        calculate_shift(
            image_tokens,
            config.get("base_image_seq_len", 256),
            config.get("max_image_seq_len", 4096),
            config.get("base_shift", 0.5),
            config.get("max_shift", largest),
        )
    )


def unshifted(latents: torch.Tensor, config: Any) -> torch.Tensor:
    """Return latents in the range of an autoencoder that centres them."""
    return latents / config.scaling_factor + config.shift_factor
