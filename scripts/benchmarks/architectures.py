"""Models of real shape and no training, for machines that have none: the figures are the same.

What a step costs depends on the shapes of a model's weights and not on their values. The shapes are
those of the published configurations; the weights are drawn on the device and saved in the
number format that the engine computes in, which needs no network and a minute on a GPU.

Run as `python -m scripts.benchmarks.architectures NAME FOLDER DEVICE`.
"""

import json
import sys
import warnings
from pathlib import Path
from typing import Any, Final

import diffusers
import torch
import transformers

from node.engine.families.loading import best_device, number_format

_CONTEXT: Final = 77
_VOCABULARY: Final = 49408


def _unet(**shape: Any) -> Any:
    return diffusers.UNet2DConditionModel(in_channels=4, out_channels=4, **shape)


def _autoencoder(widths: tuple[int, ...], scaling_factor: float, groups: int = 32) -> Any:
    return diffusers.AutoencoderKL(
        block_out_channels=widths,
        down_block_types=("DownEncoderBlock2D",) * len(widths),
        up_block_types=("UpDecoderBlock2D",) * len(widths),
        layers_per_block=2,
        latent_channels=4,
        norm_num_groups=groups,
        scaling_factor=scaling_factor,
    )


def _text_config(width: int, layers: int, heads: int, projection: int, act: str) -> Any:
    return transformers.CLIPTextConfig(
        vocab_size=_VOCABULARY,
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        projection_dim=projection,
        hidden_act=act,
        max_position_embeddings=_CONTEXT,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )


def _clip_large() -> Any:
    return _text_config(768, 12, 12, 768, "quick_gelu")


def _scheduler() -> Any:
    with torch.device("cpu"):  # a scheduler's tables belong there, wherever its model is
        return diffusers.EulerDiscreteScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1
        )


def _tokenizer(folder: Path) -> Any:
    """Build a tokenizer that knows the letters; what a prompt says makes no difference here."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{one}</w>" for one in letters)]
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = {word: number for number, word in enumerate(words)}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return transformers.CLIPTokenizer.from_pretrained(str(folder), model_max_length=_CONTEXT)


def stable_diffusion(unet: Any, autoencoder: Any, text: Any, scratch: Path) -> Any:
    """Put a Stable Diffusion 1.x pipeline together."""
    return diffusers.StableDiffusionPipeline(
        vae=autoencoder,
        text_encoder=transformers.CLIPTextModel(text),
        tokenizer=_tokenizer(scratch),
        unet=unet,
        scheduler=_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def sd15(scratch: Path) -> Any:
    """Stable Diffusion 1.5: 860 million parameters in the UNet."""
    unet = _unet(
        sample_size=64,
        block_out_channels=(320, 640, 1280, 1280),
        layers_per_block=2,
        down_block_types=(*("CrossAttnDownBlock2D",) * 3, "DownBlock2D"),
        up_block_types=("UpBlock2D", *("CrossAttnUpBlock2D",) * 3),
        cross_attention_dim=768,
        attention_head_dim=8,
    )
    autoencoder = _autoencoder((128, 256, 512, 512), 0.18215)
    return stable_diffusion(unet, autoencoder, _clip_large(), scratch)


def sdxl(scratch: Path) -> Any:
    """SDXL base 1.0: 2,570 million parameters in the UNet."""
    unet = _unet(
        sample_size=128,
        block_out_channels=(320, 640, 1280),
        layers_per_block=2,
        down_block_types=("DownBlock2D", *("CrossAttnDownBlock2D",) * 2),
        up_block_types=(*("CrossAttnUpBlock2D",) * 2, "UpBlock2D"),
        transformer_layers_per_block=[1, 2, 10],
        attention_head_dim=[5, 10, 20],
        cross_attention_dim=2048,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=2816,
    )
    big_g = _text_config(1280, 32, 20, 1280, "gelu")
    return diffusers.StableDiffusionXLPipeline(
        vae=_autoencoder((128, 256, 512, 512), 0.13025),
        text_encoder=transformers.CLIPTextModel(_clip_large()),
        text_encoder_2=transformers.CLIPTextModelWithProjection(big_g),
        tokenizer=_tokenizer(scratch),
        tokenizer_2=_tokenizer(scratch),
        unet=unet,
        scheduler=_scheduler(),
    )


def tiny(scratch: Path) -> Any:
    """A Stable Diffusion of a million parameters, to try things on a CPU."""
    unet = _unet(
        sample_size=32,
        block_out_channels=(32, 64),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=32,
        attention_head_dim=4,
        norm_num_groups=8,
    )
    autoencoder = _autoencoder((8, 8, 16, 16), 0.18215, groups=4)
    return stable_diffusion(unet, autoencoder, _text_config(32, 2, 4, 32, "gelu"), scratch)


_ARCHITECTURES: Final = {"sd15": sd15, "sdxl": sdxl, "tiny": tiny}


def build(name: str, folder: Path, device_name: str) -> None:
    """Draw a model's weights and save them as the model folder `folder`."""
    device = best_device(device_name)
    torch.manual_seed(5)
    with torch.device(device):
        pipeline = _ARCHITECTURES[name](folder.with_name(f"{folder.name}-tokenizer"))
    pipeline.to(dtype=number_format("auto", device))
    pipeline.save_pretrained(str(folder), safe_serialization=True)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    build(sys.argv[1], Path(sys.argv[2]), sys.argv[3])
