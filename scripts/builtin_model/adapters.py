"""Trains the LoRAs of `limner/shapes`: each teaches the denoiser another way of drawing."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file
from torch import Tensor, nn

from scripts.builtin_model.denoiser import alphas_cumulative
from scripts.builtin_model.exporting import load
from scripts.builtin_model.rendering import SceneBatch, box_average, render, whole_picture
from scripts.builtin_model.scenes import Mix, choose_scene, describe, lay_out
from scripts.builtin_model.training import (
    EMPTY_CAPTION_SHARE,
    Bucket,
    draw_timesteps,
    is_said,
    to_latents,
    tokenize,
)

#: Small enough to come with the node, large enough to move an outline.
RANK: Final = 3
TARGETS: Final = ("conv1", "conv2", "time_emb_proj", "conv_out")
#: What the shipped weights were trained with last; see `training.Stage.caption_strength`.
CAPTION_STRENGTH: Final = 0.27
RATE: Final = 4e-3
WARM_UP: Final = 10  # steps
NIGHT_SKY: Final = np.array([0.06, 0.08, 0.22], dtype=np.float32)  # sRGB
STROKE: Final = 0.32  # radii
MIX: Final = Mix(positioned=0.1, sized=0.15, omitted=0.08)
BUCKETS: Final = (
    Bucket(256, 256, 24, 0.35),
    Bucket(384, 384, 12, 0.15),
    Bucket(512, 512, 10, 0.35),
    Bucket(1024, 576, 4, 0.15),
)


@dataclass(frozen=True)
class Style:
    """A way of drawing: what becomes of a scene before it is rendered, learned in `steps`."""

    name: str
    redraw: Callable[[SceneBatch], SceneBatch]
    steps: int


def _at_night(batch: SceneBatch) -> SceneBatch:
    """Put every object before the same dark sky, with the lightness that the scene drew."""
    lightness = batch.background.mean(axis=1, keepdims=True) * 0.02
    return replace(batch, background=(NIGHT_SKY + lightness).astype(np.float32))


def _as_outlines(batch: SceneBatch) -> SceneBatch:
    return replace(batch, stroke=STROKE)


STYLES: Final = (Style("night", _at_night, 300), Style("outlines", _as_outlines, 800))


def draw_batch(
    style: Style, step: int, seed: int, pipeline: StableDiffusionPipeline
) -> tuple[Tensor, Tensor]:
    """Return clean latents (B, 12, H/32, W/32) and tokens (B, 32), a function of the step."""
    rng = np.random.default_rng((seed, step))
    bucket = BUCKETS[int(rng.choice(len(BUCKETS), p=[bucket.share for bucket in BUCKETS]))]
    scenes = [choose_scene(rng, MIX) for _ in range(bucket.batch)]
    captions = [
        "" if rng.random() < EMPTY_CAPTION_SHARE else describe(scene, rng, MIX) for scene in scenes
    ]
    batch = style.redraw(lay_out(scenes, bucket.width, bucket.height, rng))
    colours = box_average(render(batch, whole_picture(batch, 8.0)), 2)
    return to_latents(torch.from_numpy(colours)), tokenize(pipeline.tokenizer, captions)


class AdapterTrainer:
    """Trains one style's LoRA on a frozen pipeline."""

    def __init__(self, model: Path, style: Style, seed: int) -> None:
        torch.manual_seed(seed)
        self.style, self.seed = style, seed
        self.pipeline = load(model)
        self.pipeline.text_encoder.requires_grad_(requires_grad=False)
        self.denoiser = self.pipeline.unet
        self.denoiser.requires_grad_(requires_grad=False)
        self.denoiser.add_adapter(
            LoraConfig(r=RANK, lora_alpha=RANK, target_modules=list(TARGETS))
        )
        self.parameters = [one for one in self.denoiser.parameters() if one.requires_grad]
        self.optimiser = torch.optim.AdamW(
            self.parameters, lr=RATE, betas=(0.9, 0.99), weight_decay=0.0
        )
        self.alphas = alphas_cumulative()
        self.nothing = tokenize(self.pipeline.tokenizer, [""])

    def run(self) -> None:
        """Train, and print the mean error of each fifty steps."""
        errors: list[float] = []
        for step in range(self.style.steps):
            errors.append(self._train_step(step))
            if (step + 1) % 50 == 0:
                mean = round(float(np.mean(errors)), 5)
                line = {"lora": self.style.name, "step": step + 1, "mse": mean}
                print(json.dumps(line), flush=True)
                errors.clear()

    def save(self, directory: Path) -> Path:
        """Write the LoRA in diffusers' own format, in float16; returns the file."""
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / f"{self.style.name}.safetensors"
        weights = get_peft_model_state_dict(self.denoiser)
        tensors = {
            f"unet.{name}": value.detach().half().contiguous() for name, value in weights.items()
        }
        save_file(tensors, path, metadata={"format": "pt"})
        path.chmod(0o644)
        return path

    def _train_step(self, step: int) -> float:
        for group in self.optimiser.param_groups:
            fall = 0.5 + 0.5 * float(np.cos(np.pi * step / self.style.steps))
            group["lr"] = RATE * fall * min(1.0, (step + 1) / WARM_UP)
        clean, tokens = draw_batch(self.style, step, self.seed, self.pipeline)
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + step)
        timesteps = draw_timesteps(len(clean), generator)
        noise = torch.randn(clean.shape, generator=generator)
        alpha = self.alphas[timesteps][:, None, None, None]
        noisy = alpha.sqrt() * clean + (1.0 - alpha).sqrt() * noise
        target = self._target(clean, noisy, timesteps, tokens)
        predicted = self._predict(noisy, timesteps, tokens)
        weight = (1.0 / (1.0 - self.alphas[timesteps])).clamp(max=4.0)
        errors = (predicted - target).square().mean(dim=(1, 2, 3))
        self.optimiser.zero_grad(set_to_none=True)
        (errors * weight).mean().backward()
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimiser.step()
        return float(errors.detach().mean())

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def _target(self, clean: Tensor, noisy: Tensor, timesteps: Tensor, tokens: Tensor) -> Tensor:
        """Return the clean latents, with captions at the strength that the model is used to."""
        nothing = self.nothing.expand(len(tokens), -1)
        unsaid = self._predict(noisy, timesteps, nothing)
        weakened = unsaid + CAPTION_STRENGTH * (clean - unsaid)
        return torch.where(is_said(tokens)[:, None, None, None], weakened, clean)

    def _predict(self, noisy: Tensor, timesteps: Tensor, tokens: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            words = self.pipeline.text_encoder(tokens)[0]
            clean: Tensor = self.denoiser(noisy, timesteps, words, return_dict=False)[0]
        return clean.float()
