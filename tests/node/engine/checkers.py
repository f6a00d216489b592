"""Safety checkers small enough to build here: weights set by hand, or at random with a set verdict."""

import warnings
from pathlib import Path
from typing import Any

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import torch
    import transformers
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker


def red_is_unsafe(folder: Path, *, labels: tuple[str, str] = ("sfw", "NSFW")) -> Path:
    """Save a classifier to which a picture is the less safe the redder it is.

    The first convolution takes each channel as it is, the only layer adds nothing, and of the
    channels' means the head makes `20 (red - green - blue) - 5` against 0.
    """
    config = transformers.ResNetConfig(
        embedding_size=3,
        hidden_sizes=[3],
        depths=[1],
        layer_type="basic",
        id2label=dict(enumerate(labels)),
        label2id={label: number for number, label in enumerate(labels)},
    )
    model: Any = transformers.ResNetForImageClassification(config).eval()
    with torch.no_grad():
        for name, weights in model.named_parameters():
            if "layers" in name:
                weights.zero_()
        convolution = model.resnet.embedder.embedder.convolution.weight
        convolution.zero_()
        for channel in range(3):
            convolution[channel, channel, 3, 3] = 1.0
        head = model.classifier[1]
        head.weight.copy_(torch.tensor([[0.0, 0.0, 0.0], [20.0, -20.0, -20.0]]))
        head.bias.copy_(torch.tensor([0.0, -5.0]))
    model.save_pretrained(folder)
    processor = transformers.ViTImageProcessorPil(
        size={"height": 32, "width": 32}, image_mean=[0.0] * 3, image_std=[1.0] * 3
    )
    processor.save_pretrained(folder)
    return folder


def stable_diffusion_checker(folder: Path, *, unsafe: bool) -> Path:
    """Save Stable Diffusion's checker with random weights and thresholds beyond its cosines."""
    torch.manual_seed(3)
    vision = {
        "hidden_size": 32,
        "intermediate_size": 37,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "image_size": 32,
        "patch_size": 8,
    }
    config = transformers.CLIPConfig(vision_config=vision, projection_dim=16)
    model: Any = StableDiffusionSafetyChecker(config).eval()
    model.concept_embeds_weights.data.fill_(-2.0 if unsafe else 2.0)
    model.special_care_embeds_weights.data.fill_(2.0)
    model.save_pretrained(folder)
    transformers.CLIPImageProcessorPil(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
    ).save_pretrained(folder)
    return folder


def without_safetensors(folder: Path) -> Path:
    """Turn a saved checker into one that has pickled weights only."""
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    return folder
