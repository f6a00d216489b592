"""Puts trained weights together as a stock pipeline directory."""

import json
import os
import shutil
import tempfile
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline

from scripts.builtin_model.autoencoder import build_autoencoder
from scripts.builtin_model.denoiser import build_scheduler
from scripts.builtin_model.tokenizer import build_tokenizer, save_tokenizer
from scripts.builtin_model.training import Model


def assemble(work_dir: Path) -> StableDiffusionPipeline:
    """Build a pipeline from the averaged weights of the last checkpoints, in float32."""
    tokenizer = build_tokenizer()
    model = Model(tokenizer)
    state = torch.load(work_dir / "denoiser.pt", weights_only=True)
    model.load_state_dict(state["average"])
    autoencoder = build_autoencoder()
    if (work_dir / "decoder.pt").exists():
        state = torch.load(work_dir / "decoder.pt", weights_only=True)
        autoencoder.load_state_dict(state["average"])
    return StableDiffusionPipeline(
        vae=autoencoder.eval(),
        text_encoder=model.text_encoder.eval(),
        tokenizer=tokenizer,
        unet=model.denoiser.eval(),
        scheduler=build_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def export(work_dir: Path, directory: Path) -> None:
    """Write the pipeline to a directory, which appears whole or not at all.

    The text encoder stays float32 on disk: loaded without a dtype, transformers keeps what the
    file says while diffusers converts to float32, and the two would not fit together.
    """
    pipeline = assemble(work_dir)
    pipeline.unet.half()
    pipeline.vae.half()
    directory.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=".fresh-", dir=directory.parent))
    fresh.chmod(0o755)
    pipeline.save_pretrained(fresh, safe_serialization=True)
    save_tokenizer(pipeline.tokenizer, fresh / "tokenizer")
    _drop_unknown_key(fresh / "vae" / "config.json")
    for path in fresh.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    old = directory.with_name(f".old-{os.getpid()}")
    if directory.exists():
        directory.rename(old)
    fresh.rename(directory)
    shutil.rmtree(old, ignore_errors=True)


def load(directory: Path) -> StableDiffusionPipeline:
    """Load the pipeline for use on a CPU, without progress bars."""
    pipeline = StableDiffusionPipeline.from_pretrained(directory, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _drop_unknown_key(path: Path) -> None:
    """Remove a key that AutoencoderTiny writes but reports as unexpected when it loads."""
    config = json.loads(path.read_text())
    config.pop("block_out_channels", None)
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
