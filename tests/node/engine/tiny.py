"""Random-weight pipelines of stock classes, small enough to build and run in a blink."""

import json
import warnings
from pathlib import Path
from typing import Any

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import diffusers
    import torch
    import transformers

    _CLASSES = (
        diffusers.StableDiffusionPipeline,
        diffusers.StableDiffusionXLPipeline,
        transformers.CLIPTextModel,
        transformers.CLIPTokenizer,
    )

# Spinning OpenMP threads on busy cores cost a factor of 90; the worker avoids them otherwise.
torch.set_num_threads(1)

SCHEDULERS: dict[str, tuple[str, dict[str, Any]]] = {
    "dpm": ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++"}),
    "ddim": ("DDIMScheduler", {"clip_sample": False, "set_alpha_to_one": False}),
    "euler": ("EulerDiscreteScheduler", {}),
    "euler_a": ("EulerAncestralDiscreteScheduler", {}),
    "pndm": ("PNDMScheduler", {"skip_prk_steps": True, "set_alpha_to_one": False}),
    "heun": ("HeunDiscreteScheduler", {}),
}
_LETTERS = "abcdefghijklmnopqrstuvwxyz"


def generator(seed: int) -> Any:
    """Return a CPU generator, as the stock pipelines take it."""
    return torch.Generator("cpu").manual_seed(seed)


def load(folder: Path) -> Any:
    """Load a stock pipeline the plain way."""
    pipeline = diffusers.DiffusionPipeline.from_pretrained(str(folder))
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def scheduler(name: str) -> Any:
    """Build one of SCHEDULERS with Stable Diffusion's noise schedule."""
    class_name, options = SCHEDULERS[name]
    return getattr(diffusers, class_name)(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        steps_offset=1,
        **options,
    )


def stable_diffusion(
    folder: Path, scheduler_name: str, *, tiny_vae: bool = False, distilled: bool = False
) -> Any:
    """Build, save to `folder` and return a `StableDiffusionPipeline` of 32 px and 4 channels."""
    torch.manual_seed(7)
    pipeline = diffusers.StableDiffusionPipeline(
        vae=_tiny_vae() if tiny_vae else _vae(),
        text_encoder=_text_encoder(32),
        tokenizer=_tokenizer(folder),
        unet=_unet(cross=32, time_cond_proj_dim=16 if distilled else None),
        scheduler=scheduler(scheduler_name),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    return _saved(pipeline, folder)


def stable_diffusion_xl(folder: Path) -> Any:
    """Build, save to `folder` and return a pipeline of a family that has no adapter."""
    torch.manual_seed(8)
    pipeline = diffusers.StableDiffusionXLPipeline(
        vae=_vae(),
        text_encoder=_text_encoder(32),
        text_encoder_2=transformers.CLIPTextModelWithProjection(_text_config(32)),
        tokenizer=_tokenizer(folder),
        tokenizer_2=_tokenizer(folder),
        unet=_unet(
            cross=64,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=80,
        ),
        scheduler=scheduler("euler"),
    )
    return _saved(pipeline, folder)


def _saved(pipeline: Any, folder: Path) -> Any:
    pipeline.set_progress_bar_config(disable=True)
    pipeline.save_pretrained(str(folder), safe_serialization=True)
    return pipeline


def _vae() -> Any:
    return diffusers.AutoencoderKL(
        block_out_channels=(16, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=32,
    ).eval()


def _tiny_vae() -> Any:
    return diffusers.AutoencoderTiny(
        encoder_block_out_channels=(8,) * 6,
        decoder_block_out_channels=(8,) * 6,
        num_encoder_blocks=(1,) * 6,
        num_decoder_blocks=(1,) * 6,
        latent_channels=4,
    ).eval()


def _unet(cross: int, **options: Any) -> Any:
    return diffusers.UNet2DConditionModel(
        block_out_channels=(16, 32),
        layers_per_block=1,
        sample_size=16,
        in_channels=4,
        out_channels=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=cross,
        attention_head_dim=4,
        norm_num_groups=8,
        **options,
    ).eval()


def _text_config(width: int) -> Any:
    return transformers.CLIPTextConfig(
        hidden_size=width,
        intermediate_size=37,
        num_hidden_layers=2,
        num_attention_heads=4,
        projection_dim=32,
        vocab_size=2 + 2 * len(_LETTERS),
        max_position_embeddings=77,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )


def _text_encoder(width: int) -> Any:
    return transformers.CLIPTextModel(_text_config(width)).eval()


def _tokenizer(folder: Path) -> Any:
    """Build a CLIP tokenizer that knows the letters and nothing else."""
    words = ["<|startoftext|>", "<|endoftext|>", *_LETTERS, *(f"{one}</w>" for one in _LETTERS)]
    source = folder.with_name(f"{folder.name}-tokenizer")
    source.mkdir(parents=True, exist_ok=True)
    vocabulary = {word: number for number, word in enumerate(words)}
    (source / "vocab.json").write_text(json.dumps(vocabulary))
    (source / "merges.txt").write_text("#version: 0.2\n")
    return transformers.CLIPTokenizer.from_pretrained(str(source), model_max_length=77)
