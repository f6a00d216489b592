"""The yardstick: diffusers' own pipeline in a plain loop, in a process of its own.

Run as `python -m scripts.benchmarks.raw_loop MODEL_FOLDER DEVICE`. Each line of standard input is a
JSON list of calls of the pipeline, `{"width", "height", "steps", "seeds", "prompts"}`; a call makes
an image for every seed, as one batch. All are made, from the prompt to the PNG, and the seconds are
the answer. Nobody checks the images, as in the engine's jobs.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch

from node.engine.families.loading import best_device, number_format
from node.engine.png import encode_png
from scripts.benchmarks.wishes import GUIDANCE


def main(folder: Path, device_name: str) -> None:
    """Answer lines until the input ends."""
    device = best_device(device_name)
    pipeline = diffusers.DiffusionPipeline.from_pretrained(
        folder, use_safetensors=True, dtype=number_format("auto", device)
    ).to(device)
    pipeline.set_progress_bar_config(disable=True)
    print(json.dumps({"threads": torch.get_num_threads()}), flush=True)
    for line in sys.stdin:
        began = time.perf_counter()
        for call in json.loads(line):
            run(pipeline, call)
        answer = {"seconds": time.perf_counter() - began, "device_bytes": 0}
        if device.type == "cuda":
            answer["device_bytes"] = torch.cuda.max_memory_allocated(device)
        print(json.dumps(answer), flush=True)


def run(pipeline: Any, call: dict[str, Any]) -> None:
    """Make one call's images and encode each."""
    seeds = call["seeds"]
    images = pipeline(
        call["prompts"],
        width=call["width"],
        height=call["height"],
        num_inference_steps=call["steps"],
        guidance_scale=GUIDANCE,
        generator=[torch.Generator("cpu").manual_seed(seed) for seed in seeds],
    ).images
    for image in images:
        encode_png(np.asarray(image))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
