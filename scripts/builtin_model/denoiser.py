"""The text encoder, the denoising network and its noise schedule, in stock classes."""

from typing import Final

import torch
from diffusers import DPMSolverMultistepScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from scripts.builtin_model.tokenizer import CAPTION_TOKENS

LATENT_CHANNELS: Final = 12
TEXT_WIDTH: Final = 96


def build_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """Two layers; the end token's id must match, since the pooled output is read there."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=TEXT_WIDTH,
            intermediate_size=3 * TEXT_WIDTH,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=CAPTION_TOKENS,
            projection_dim=TEXT_WIDTH,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def build_denoiser() -> UNet2DConditionModel:
    """Predict the clean latent (B, 12, H/32, W/32) from a noisy one and a caption.

    The caption acts twice: pooled, it scales and shifts every block (`scale_shift`), which
    settles colours and the shape as a whole; by cross-attention it reaches single places.
    """
    network = UNet2DConditionModel(
        sample_size=16,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        block_out_channels=(48, 72, 88, 88),
        layers_per_block=1,
        # Four levels, because only the borders tell the network where it is: a picture of
        # 1024x576 comes down to 3 x 4 places, from each of which every border is near.
        down_block_types=(
            "DownBlock2D",
            "CrossAttnDownBlock2D",
            "CrossAttnDownBlock2D",
            "DownBlock2D",
        ),
        up_block_types=(
            "UpBlock2D",
            "CrossAttnUpBlock2D",
            "CrossAttnUpBlock2D",
            "UpBlock2D",
        ),
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=4,
        norm_num_groups=8,
        addition_embed_type="text",
        addition_embed_type_num_heads=8,
        resnet_time_scale_shift="scale_shift",
    )
    # Attention heads are tiny here; plain matrix products beat the fused kernel on a CPU.
    network.set_attn_processor(AttnProcessor())
    return network


def build_scheduler() -> DPMSolverMultistepScheduler:
    """DPM++ 2M on clean-latent predictions.

    Thresholding at 1.0 clips predictions to valid colours, because latents are colours. With
    zero terminal signal-to-noise ratio the first step sees pure noise in training as well.
    """
    return DPMSolverMultistepScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        algorithm_type="dpmsolver++",
        solver_order=2,
        prediction_type="sample",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        thresholding=True,
        sample_max_value=1.0,
        steps_offset=1,
        final_sigmas_type="zero",
    )


def alphas_cumulative() -> torch.Tensor:
    """Return the (1000,) products of alphas of the schedule.

    The scheduler keeps 2**-24 in the last place instead of 0 for its own arithmetic.
    """
    return build_scheduler().alphas_cumprod.clone().float()
