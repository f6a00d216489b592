"""Trains the text encoder and the denoiser together, stage by stage, resumable at any step."""

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPTextModel, CLIPTokenizer

from scripts.builtin_model.denoiser import alphas_cumulative, build_denoiser, build_text_encoder
from scripts.builtin_model.rendering import box_average, render, whole_picture
from scripts.builtin_model.scenes import Mix, choose_scene, describe, lay_out
from scripts.builtin_model.tokenizer import build_tokenizer

LAST_TIMESTEP = 999
EMPTY_CAPTION_SHARE = 0.1
EVEN_SHARE = 0.5
PURE_NOISE_SHARE = 0.15
#: Numbers that the loss of one step is split by, to see where the network fails.
NOISE_BANDS = ((0, 500), (500, 900), (900, 999), (999, 1000))


@dataclass(frozen=True)
class Bucket:
    """A picture size and the number of pictures of that size in one step."""

    width: int
    height: int
    batch: int
    share: float = 1.0


@dataclass(frozen=True)
class Stage:
    """A part of the curriculum; the rate falls along a cosine from `rate` to `final_rate`."""

    name: str
    steps: int
    rate: float
    final_rate: float
    mix: Mix
    buckets: tuple[Bucket, ...]
    ema: float = 0.999
    warm_up: int = 100
    #: How far a caption moves the prediction away from that of the empty caption. Guidance g
    #: then acts like g times this factor does on a model that was trained with 1.0.
    caption_strength: float = 1.0


PLACES = Mix(pairs=0.04, positioned=0.25, sized=0.35, omitted=0.1)
SMALL_SIZES = (
    Bucket(256, 256, 96, 0.3),
    Bucket(384, 384, 48, 0.25),
    Bucket(512, 512, 28, 0.25),
    Bucket(512, 288, 48, 0.1),
    Bucket(288, 512, 48, 0.1),
)
COMMON = Mix(positioned=0.12, sized=0.12, omitted=0.1)
MAIN_SIZES = (
    Bucket(512, 512, 28, 0.5),
    Bucket(1024, 576, 12, 0.36),
    Bucket(256, 256, 96, 0.07),
    Bucket(384, 384, 48, 0.07),
)
LATE = Mix(positioned=0.12, sized=0.25, omitted=0.08)
LATE_SIZES = (
    Bucket(512, 512, 28, 0.42),
    Bucket(1024, 576, 12, 0.42),
    Bucket(256, 256, 96, 0.08),
    Bucket(384, 384, 48, 0.08),
)
EVERYTHING = Mix(pairs=0.08, positioned=0.25, sized=0.3, omitted=0.1)
ALL_SIZES = (
    Bucket(256, 256, 64, 0.08),
    Bucket(384, 384, 40, 0.12),
    Bucket(512, 512, 28, 0.25),
    Bucket(1024, 576, 12, 0.2),
    Bucket(576, 1024, 12, 0.1),
    Bucket(768, 768, 12, 0.1),
    Bucket(1024, 1024, 6, 0.05),
    Bucket(768, 512, 18, 0.05),
    Bucket(512, 768, 18, 0.05),
)

#: Small pictures teach the shapes at the least cost; later stages add what else captions say
#: and the sizes at which people ask for pictures.
STAGES = (
    Stage("shapes", 2400, 1.5e-3, 4e-4, Mix(), (Bucket(256, 256, 96),)),
    Stage("places", 800, 1.2e-3, 9e-4, PLACES, SMALL_SIZES),
    Stage("frames", 2000, 1.2e-3, 3e-4, COMMON, MAIN_SIZES),
    Stage("sizes", 2200, 9e-4, 3e-4, EVERYTHING, ALL_SIZES),
    Stage("strength", 1650, 8e-4, 2e-5, EVERYTHING, ALL_SIZES, caption_strength=0.27),
    Stage("polish", 550, 4e-4, 1e-5, COMMON, MAIN_SIZES, ema=0.998, caption_strength=0.27),
    Stage("outlines", 950, 7e-4, 1e-5, LATE, LATE_SIZES, ema=0.998, caption_strength=0.27),
)


class Model(nn.Module):  # type: ignore[misc]
    """The two trained networks as one module."""

    def __init__(self, tokenizer: CLIPTokenizer) -> None:
        super().__init__()
        self.text_encoder: CLIPTextModel = build_text_encoder(tokenizer)
        self.denoiser: UNet2DConditionModel = build_denoiser()

    def forward(self, noisy: Tensor, timesteps: Tensor, tokens: Tensor) -> Tensor:
        """Predict the clean latent: (B, 12, h, w), (B,), (B, 32) -> (B, 12, h, w)."""
        words = self.text_encoder(tokens)[0]
        clean: Tensor = self.denoiser(noisy, timesteps, words, return_dict=False)[0]
        return clean


def draw_batch(
    stage: Stage, step: int, seed: int, tokenizer: CLIPTokenizer
) -> tuple[Tensor, Tensor]:
    """Return clean latents (B, 12, H/32, W/32) and tokens (B, 32), a function of the step."""
    rng = np.random.default_rng((seed, step))
    shares = np.array([bucket.share for bucket in stage.buckets])
    bucket = stage.buckets[int(rng.choice(len(shares), p=shares / shares.sum()))]
    scenes = [choose_scene(rng, stage.mix) for _ in range(bucket.batch)]
    captions = [
        "" if rng.random() < EMPTY_CAPTION_SHARE else describe(scene, rng, stage.mix)
        for scene in scenes
    ]
    batch = lay_out(scenes, bucket.width, bucket.height, rng)
    colours = box_average(render(batch, whole_picture(batch, 8.0)), 2)
    return to_latents(torch.from_numpy(colours)), tokenize(tokenizer, captions)


def to_latents(colours: Tensor) -> Tensor:
    """Turn (B, H/16, W/16, 3) colours in 0..1 into latents of 2 x 2 cells in -1..1."""
    return functional.pixel_unshuffle(colours.permute(0, 3, 1, 2) * 2.0 - 1.0, 2)


def tokenize(tokenizer: CLIPTokenizer, captions: list[str]) -> Tensor:
    """Return (B, 32) token ids, padded with the end token."""
    encoded = tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt")
    tokens: Tensor = encoded.input_ids
    return tokens


def is_said(tokens: Tensor) -> Tensor:
    """Tell for each row (B,) whether its caption has any words."""
    said: Tensor = tokens[:, 1] != tokens[:, -1]
    return said


def draw_timesteps(count: int, generator: torch.Generator) -> Tensor:
    """Draw half of the timesteps evenly and half near pure noise, where the text decides."""
    even = torch.rand(count, generator=generator)
    late = 1.0 - torch.rand(count, generator=generator) ** 2
    which = torch.rand(count, generator=generator)
    share = torch.where(which < EVEN_SHARE, even, late)
    share = torch.where(which > 1.0 - PURE_NOISE_SHARE, torch.ones(()), share)
    return (share * 1000.0).long().clamp(0, LAST_TIMESTEP)


class Trainer:
    """Owns networks, optimiser and averages; `run` carries a list of stages to their end."""

    def __init__(self, work_dir: Path, seed: int) -> None:
        torch.manual_seed(seed)
        self.work_dir, self.seed = work_dir, seed
        self.tokenizer = build_tokenizer()
        self.model = Model(self.tokenizer)
        self.average = Model(self.tokenizer)
        self.average.load_state_dict(self.model.state_dict())
        self.optimiser = torch.optim.AdamW(
            self.model.parameters(), lr=1e-3, betas=(0.9, 0.99), weight_decay=0.01
        )
        self.alphas = alphas_cumulative()
        self.done: dict[str, Any] = {"stage": "", "step": 0, "total": 0}

    def resume(self) -> None:
        """Continue from the last checkpoint in the work directory, if there is one."""
        path = self.work_dir / "denoiser.pt"
        if path.exists():
            state = torch.load(path, weights_only=True)
            self.model.load_state_dict(state["model"])
            self.average.load_state_dict(state["average"])
            self.optimiser.load_state_dict(state["optimiser"])
            self.done = state["done"]

    def save(self) -> None:
        """Write a checkpoint; the rename keeps the old one whole until the new one is."""
        path = self.work_dir / "denoiser.pt"
        state = {
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "done": self.done,
        }
        torch.save(state, path.with_suffix(".part"))
        path.with_suffix(".part").replace(path)

    def run(self, stages: tuple[Stage, ...], only: str | None, save_every: int = 100) -> None:
        """Train the stages that are not done yet."""
        names = [stage.name for stage in stages]
        begin = names.index(str(self.done["stage"])) if self.done["stage"] else 0
        for index, stage in enumerate(stages):
            if index < begin or (only and stage.name != only):
                continue
            first = int(self.done["step"]) if stage.name == self.done["stage"] else 0
            meter = Meter(self.work_dir / "metrics.jsonl", stage)
            for step in range(first, stage.steps):
                meter.add(self._train_step(stage, step))
                total = int(self.done["total"]) + 1
                self.done = {"stage": stage.name, "step": step + 1, "total": total}
                if (step + 1) % 50 == 0:
                    meter.report(step + 1, total)
                if (step + 1) % save_every == 0 or step + 1 == stage.steps:
                    self.save()

    def _train_step(self, stage: Stage, step: int) -> dict[str, Tensor]:
        total = int(self.done["total"])
        for group in self.optimiser.param_groups:
            group["lr"] = rate_at(stage, step)
        clean, tokens = draw_batch(stage, total, self.seed, self.tokenizer)
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + total)
        timesteps = draw_timesteps(len(clean), generator)
        noise = torch.randn(clean.shape, generator=generator)
        alpha = self.alphas[timesteps][:, None, None, None]
        noisy = alpha.sqrt() * clean + (1.0 - alpha).sqrt() * noise
        target = self._target(stage, clean, noisy, timesteps, tokens)
        with torch.autocast("cpu", torch.bfloat16):
            predicted = self.model(noisy, timesteps, tokens)
        errors = (predicted.float() - target).square().mean(dim=(1, 2, 3))
        weight = (1.0 / (1.0 - self.alphas[timesteps])).clamp(max=4.0)
        loss = (errors * weight).mean()
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimiser.step()
        self._follow(min(stage.ema, (1.0 + total) / (10.0 + total)))
        said = is_said(tokens)
        return {"errors": errors.detach()[said], "timesteps": timesteps[said]}

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def _target(
        self, stage: Stage, clean: Tensor, noisy: Tensor, timesteps: Tensor, tokens: Tensor
    ) -> Tensor:
        """Return the clean latents, drawn towards the empty caption's prediction if asked.

        Guidance computes u + g (c - u) from the predictions u without and c with a caption.
        A network whose c is u + k (c' - u) makes g = 7.5 act like 7.5 k on c', which keeps
        colours from clipping, while g and negative prompts keep their meaning.
        """
        if stage.caption_strength == 1.0:
            return clean
        nothing = tokenize(self.tokenizer, [""]).expand(len(tokens), -1)
        with torch.autocast("cpu", torch.bfloat16):
            unsaid = self.average(noisy, timesteps, nothing).float()
        weakened = unsaid + stage.caption_strength * (clean - unsaid)
        return torch.where(is_said(tokens)[:, None, None, None], weakened, clean)

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def _follow(self, decay: float) -> None:
        """Move the averaged weights towards the trained ones."""
        averages = list(self.average.parameters())
        torch._foreach_lerp_(averages, list(self.model.parameters()), 1.0 - decay)


def rate_at(stage: Stage, step: int) -> float:
    """Return the learning rate: linear warm-up, then half a cosine."""
    fall = 0.5 + 0.5 * float(np.cos(np.pi * step / stage.steps))
    rate = stage.final_rate + (stage.rate - stage.final_rate) * fall
    return rate * min(1.0, (step + 1) / stage.warm_up)


class Meter:
    """Averages errors by noise band and writes them as JSON lines."""

    def __init__(self, path: Path, stage: Stage) -> None:
        self.path, self.stage = path, stage
        self.rows: list[dict[str, Tensor]] = []
        self.began = time.monotonic()

    def add(self, row: dict[str, Tensor]) -> None:
        """Keep the errors of one step."""
        self.rows.append(row)

    def report(self, step: int, total: int) -> None:
        """Print and write the averages since the last report."""
        errors = torch.cat([row["errors"] for row in self.rows])
        timesteps = torch.cat([row["timesteps"] for row in self.rows])
        line: dict[str, Any] = {"stage": self.stage.name, "step": step, "total": total}
        for low, high in NOISE_BANDS:
            inside = (timesteps >= low) & (timesteps < high)
            line[f"mse_{low}"] = round(float(errors[inside].mean()), 5)
        line["seconds_per_step"] = round((time.monotonic() - self.began) / len(self.rows), 3)
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")
        print(json.dumps(line), flush=True)
        self.rows.clear()
        self.began = time.monotonic()
