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
        diffusers.StableDiffusion3Pipeline,
        diffusers.FluxPipeline,
        transformers.CLIPTextModel,
        transformers.T5EncoderModel,
        transformers.T5Tokenizer,
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
#: What the distillates of SDXL ship: Turbo, Lightning, LCM.
FEW_STEP_SCHEDULERS: dict[str, tuple[str, dict[str, Any]]] = {
    "turbo": ("EulerAncestralDiscreteScheduler", {"timestep_spacing": "trailing"}),
    "lightning": ("EulerDiscreteScheduler", {"timestep_spacing": "trailing"}),
    "lcm": ("LCMScheduler", {}),
}
_LETTERS = "abcdefghijklmnopqrstuvwxyz"


def generator(seed: int) -> Any:
    """Return a CPU generator, as the stock pipelines take it."""
    return torch.Generator("cpu").manual_seed(seed)


def load(folder: Path, dtype: str = "float32") -> Any:
    """Load a stock pipeline the plain way, SD3 without T5 as its documentation says."""
    options = {}
    if "StableDiffusion3" in (folder / "model_index.json").read_text():
        missing = [n for n in ("text_encoder_3", "tokenizer_3") if not (folder / n).is_dir()]
        options = dict.fromkeys(missing)
    pipeline = diffusers.DiffusionPipeline.from_pretrained(
        str(folder), dtype=getattr(torch, dtype), **options
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def scheduler(name: str) -> Any:
    """Build one of the schedulers above with Stable Diffusion's noise schedule."""
    class_name, options = (SCHEDULERS | FEW_STEP_SCHEDULERS)[name]
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


def stable_diffusion_xl(
    folder: Path,
    scheduler_name: str = "euler",
    *,
    distilled: bool = False,
    force_zeros: bool = True,
    centred: bool = False,
) -> Any:
    """Build, save to `folder` and return an SDXL pipeline of the same size.

    `distilled` gives its UNet a guidance input, `centred` its autoencoder a mean and deviation.
    """
    torch.manual_seed(8)
    statistics = {"latents_mean": [0.1, -0.2, 0.3, 0.0], "latents_std": [1.1, 0.9, 1.2, 0.8]}
    pipeline = diffusers.StableDiffusionXLPipeline(
        vae=_vae(**statistics if centred else {}),
        text_encoder=_text_encoder(32),
        text_encoder_2=_projecting_encoder(),
        tokenizer=_tokenizer(folder),
        tokenizer_2=_tokenizer(folder),
        unet=_unet(
            cross=64,
            time_cond_proj_dim=16 if distilled else None,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=80,
        ),
        scheduler=scheduler(scheduler_name),
        force_zeros_for_empty_prompt=force_zeros,
    )
    return _saved(pipeline, folder)


def stable_diffusion_3(folder: Path, *, t5: bool = True, dynamic: bool = False) -> Any:
    """Build, save to `folder` and return an SD3 pipeline, of at most 128 px a side.

    `dynamic` lets its scheduler shift the steps by the image's size, as SD 3.5 does.
    """
    torch.manual_seed(9)
    pipeline = diffusers.StableDiffusion3Pipeline(
        transformer=diffusers.SD3Transformer2DModel(
            sample_size=16,
            in_channels=4,
            out_channels=4,
            num_layers=2,
            attention_head_dim=8,
            num_attention_heads=4,
            joint_attention_dim=72,
            caption_projection_dim=32,
            pooled_projection_dim=64,
            pos_embed_max_size=32,
            dual_attention_layers=(0,),
            qk_norm="rms_norm",
        ).eval(),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(
            shift=3.0, use_dynamic_shifting=dynamic
        ),
        vae=_vae(scaling_factor=1.5305, shift_factor=0.0609),
        text_encoder=_projecting_encoder(),
        tokenizer=_tokenizer(folder),
        text_encoder_2=_projecting_encoder(),
        tokenizer_2=_tokenizer(folder),
        text_encoder_3=_t5(72) if t5 else None,
        tokenizer_3=_t5_tokenizer() if t5 else None,
    )
    return _saved(pipeline, folder)


def flux(folder: Path, *, schnell: bool = False) -> Any:
    """Build, save to `folder` and return a FLUX pipeline: dev's form, or schnell's."""
    torch.manual_seed(10)
    pipeline = diffusers.FluxPipeline(
        transformer=diffusers.FluxTransformer2DModel(
            in_channels=16,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=40,
            pooled_projection_dim=32,
            guidance_embeds=not schnell,
            axes_dims_rope=(4, 6, 6),
        ).eval(),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(
            shift=1.0 if schnell else 3.0, use_dynamic_shifting=not schnell
        ),
        vae=_vae(scaling_factor=0.3611, shift_factor=0.1159),
        text_encoder=_text_encoder(32),
        tokenizer=_tokenizer(folder),
        text_encoder_2=_t5(40),
        tokenizer_2=_t5_tokenizer(),
    )
    return _saved(pipeline, folder)


def _saved(pipeline: Any, folder: Path) -> Any:
    pipeline.set_progress_bar_config(disable=True)
    pipeline.save_pretrained(str(folder), safe_serialization=True)
    return pipeline


def _vae(**options: Any) -> Any:
    return diffusers.AutoencoderKL(
        block_out_channels=(16, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=32,
        **options,
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


def _projecting_encoder() -> Any:
    return transformers.CLIPTextModelWithProjection(_text_config(32)).eval()


def _t5(width: int) -> Any:
    config = transformers.T5Config(
        vocab_size=4 + len(_LETTERS), d_model=width, d_kv=8, d_ff=32, num_layers=2, num_heads=4
    )
    return transformers.T5EncoderModel(config).eval()


def _t5_tokenizer() -> Any:
    """Build a T5 tokenizer that knows the letters and nothing else."""
    marks = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("\N{LOWER ONE EIGHTH BLOCK}", -2.0)]
    letters = [(letter, -3.0) for letter in _LETTERS]
    return transformers.T5Tokenizer(marks + letters, extra_ids=0, model_max_length=512)


def _tokenizer(folder: Path) -> Any:
    """Build a CLIP tokenizer that knows the letters and nothing else."""
    words = ["<|startoftext|>", "<|endoftext|>", *_LETTERS, *(f"{one}</w>" for one in _LETTERS)]
    source = folder.with_name(f"{folder.name}-tokenizer")
    source.mkdir(parents=True, exist_ok=True)
    vocabulary = {word: number for number, word in enumerate(words)}
    (source / "vocab.json").write_text(json.dumps(vocabulary))
    (source / "merges.txt").write_text("#version: 0.2\n")
    return transformers.CLIPTokenizer.from_pretrained(str(source), model_max_length=77)
