"""Random LoRAs for the tiny pipelines, in the formats that people's files have."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

_DENOISER = ("to_q", "to_v", "conv1")
_TEXT = ("q_proj", "out_proj", "fc1")


def tensors_for(
    pipeline: Any, seed: int, *, rank: int = 2, text: bool = False, strength: float = 0.5
) -> dict[str, torch.Tensor]:
    """Return a random LoRA by its modules' names: `<component>.<module>.lora_A.weight` and B."""
    random = torch.Generator().manual_seed(seed)
    tensors = {}
    denoiser = "transformer" if hasattr(pipeline, "transformer") else "unet"
    components = [(denoiser, _DENOISER), *([("text_encoder", _TEXT)] if text else [])]
    for component, kinds in components:
        for name, module in _layers(getattr(pipeline, component), kinds):
            down, up = _matrices(module.weight.shape, rank, random, strength)
            tensors[f"{component}.{name}.lora_A.weight"] = down
            tensors[f"{component}.{name}.lora_B.weight"] = up
    return tensors


def write(path: Path, tensors: dict[str, torch.Tensor]) -> Path:
    """Write a safetensors file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    return path


def as_kohya(tensors: dict[str, torch.Tensor], alpha: float) -> dict[str, torch.Tensor]:
    """Rename a LoRA as kohya's scripts do: underscores for dots, and an alpha for each layer."""
    renamed = {}
    for name, tensor in tensors.items():
        module, _, kind = name.removesuffix(".weight").rpartition(".")
        component, _, path = module.partition(".")
        # In older versions of transformers, whose names such files have, all layers lie one deeper.
        prefix = {"unet": "lora_unet", "text_encoder": "lora_te_text_model"}[component]
        stem = f"{prefix}_{path.replace('.', '_')}"
        renamed[f"{stem}.{'lora_down' if kind == 'lora_A' else 'lora_up'}.weight"] = tensor
        renamed[f"{stem}.alpha"] = torch.tensor(alpha)
    return renamed


def _layers(model: Any, kinds: tuple[str, ...]) -> Iterable[tuple[str, Any]]:
    for name, module in model.named_modules():
        if name.endswith(kinds) and hasattr(module, "weight"):
            yield name, module


def _matrices(
    shape: tuple[int, ...], rank: int, random: torch.Generator, strength: float
) -> tuple[torch.Tensor, torch.Tensor]:
    down = torch.randn((rank, *shape[1:]), generator=random)
    up = torch.randn((shape[0], rank, *(1 for _ in shape[2:])), generator=random)
    size = down[0].numel() ** 0.5
    return down / size, strength * up / rank**0.5
