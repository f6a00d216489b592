"""Trains the decoder on crops of rendered scenes, resumable at any step."""

import json
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from scripts.builtin_model.autoencoder import build_autoencoder, restoration_loss
from scripts.builtin_model.rendering import Window, box_average, render
from scripts.builtin_model.scenes import Mix, choose_scene, lay_out
from scripts.builtin_model.training import to_latents

CROP = 256  # pixels
MIX = Mix(pairs=0.2, positioned=0.3, sized=0.5)
SIZES = ((512, 512), (1024, 576), (576, 1024), (768, 768), (1024, 1024), (384, 384))
LARGEST_NOISE = 0.05  # the sampler's latents are not exact either


@dataclass(frozen=True)
class DecoderStage:
    """A part of the decoder's training; the rate falls along half a cosine."""

    name: str
    steps: int
    batch: int
    rate: float
    final_rate: float


DECODER_STAGES = (DecoderStage("decoder", 3000, 8, 1.5e-3, 2e-5),)


def draw_crops(count: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Return latents (B, 12, 8, 8) and pictures (B, 3, 256, 256) in -1..1 around objects."""
    width, height = SIZES[int(rng.integers(len(SIZES)))]
    scenes = [choose_scene(rng, MIX) for _ in range(count)]
    batch = lay_out(scenes, width, height, rng)
    slot = (batch.shape >= 0).sum(axis=1) - 1
    rows = np.arange(count)
    reach = batch.radius[rows, slot] * 1.1
    corners = []
    for centre, limit in ((batch.x, width), (batch.y, height)):
        near = centre[rows, slot] + rng.uniform(-1.0, 1.0, count) * reach
        corner = np.round((near - CROP / 2) / 32) * 32
        corners.append(np.clip(corner, 0, limit - CROP).astype(np.float32))
    pictures = render(batch, Window(corners[0], corners[1], CROP, CROP, 1.0))
    latents = to_latents(torch.from_numpy(box_average(pictures, 16)))
    return latents, torch.from_numpy(pictures).permute(0, 3, 1, 2) * 2.0 - 1.0


class DecoderTrainer:
    """Owns the autoencoder, its average and the optimiser."""

    def __init__(self, work_dir: Path, seed: int) -> None:
        torch.manual_seed(seed + 1)
        self.work_dir, self.seed = work_dir, seed
        self.autoencoder = build_autoencoder().to(memory_format=torch.channels_last)
        self.average = build_autoencoder()
        self.average.load_state_dict(self.autoencoder.state_dict())
        self.optimiser = torch.optim.AdamW(
            self.autoencoder.decoder.parameters(), lr=1e-3, betas=(0.9, 0.99), weight_decay=0.0
        )
        self.done = 0

    def resume(self) -> None:
        """Continue from the last checkpoint in the work directory, if there is one."""
        path = self.work_dir / "decoder.pt"
        if path.exists():
            state = torch.load(path, weights_only=True)
            self.autoencoder.load_state_dict(state["model"])
            self.average.load_state_dict(state["average"])
            self.optimiser.load_state_dict(state["optimiser"])
            self.done = int(state["done"])

    def save(self) -> None:
        """Write a checkpoint; the rename keeps the old one whole until the new one is."""
        path = self.work_dir / "decoder.pt"
        state = {
            "model": self.autoencoder.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "done": self.done,
        }
        torch.save(state, path.with_suffix(".part"))
        path.with_suffix(".part").replace(path)

    def run(self, stages: tuple[DecoderStage, ...], save_every: int = 100) -> None:
        """Train the steps that are not done yet."""
        before = 0
        for stage in stages:
            losses: list[float] = []
            began = time.monotonic()
            for step in range(max(0, self.done - before), stage.steps):
                losses.append(self._train_step(stage, step))
                self.done += 1
                if (step + 1) % 50 == 0:
                    seconds = (time.monotonic() - began) / len(losses)
                    self._report(stage, step + 1, float(np.mean(losses)), seconds)
                    losses.clear()
                    began = time.monotonic()
                if (step + 1) % save_every == 0 or step + 1 == stage.steps:
                    self.save()
            before += stage.steps

    def _train_step(self, stage: DecoderStage, step: int) -> float:
        fall = 0.5 + 0.5 * float(np.cos(np.pi * step / stage.steps))
        rate = stage.final_rate + (stage.rate - stage.final_rate) * fall
        for group in self.optimiser.param_groups:
            group["lr"] = rate * min(1.0, (step + 1) / 50)
        rng = np.random.default_rng((self.seed, 11, self.done))
        latents, pictures = draw_crops(stage.batch, rng)
        noise = rng.standard_normal(latents.shape, dtype=np.float32)
        level = rng.uniform(0.0, LARGEST_NOISE, (len(latents), 1, 1, 1)).astype(np.float32)
        noisy = (latents + torch.from_numpy(noise * level)).clamp(-1.0, 1.0)
        with torch.autocast("cpu", torch.bfloat16):
            restored = self.autoencoder.decoder(noisy)
        loss = restoration_loss(restored.float(), pictures)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.autoencoder.decoder.parameters(), 1.0)
        self.optimiser.step()
        self._follow(min(0.995, (1.0 + self.done) / (10.0 + self.done)))
        return float((restored.detach().float() - pictures).square().mean())

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def _follow(self, decay: float) -> None:
        averages = list(self.average.decoder.parameters())
        torch._foreach_lerp_(averages, list(self.autoencoder.decoder.parameters()), 1.0 - decay)

    def _report(self, stage: DecoderStage, step: int, error: float, seconds: float) -> None:
        psnr = 10.0 * float(np.log10(4.0 / error))
        line = {"stage": stage.name, "step": step, "psnr": round(psnr, 2)}
        text = json.dumps(line | {"seconds_per_step": round(seconds, 3)})
        with (self.work_dir / "metrics.jsonl").open("a") as file:
            file.write(text + "\n")
        print(text, flush=True)
