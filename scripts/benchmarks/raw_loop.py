"""The yardstick: diffusers' own pipeline in a plain loop, in a process of its own.

Run as `python -m scripts.benchmarks.raw_loop MODEL_FOLDER WIDTH HEIGHT STEPS`. For every number it
reads from standard input it makes so many images, PNG included, and answers with the seconds.
"""

import json
import sys
import time

import diffusers
import numpy as np
import torch

from node.engine.png import encode_png

PROMPT = "a small red circle on a blue background"


def main(folder: str, width: int, height: int, steps: int) -> None:
    """Answer numbers until the input ends."""
    pipeline = diffusers.DiffusionPipeline.from_pretrained(folder, use_safetensors=True)
    pipeline.set_progress_bar_config(disable=True)
    seed = 0
    print(json.dumps({"threads": torch.get_num_threads()}), flush=True)
    for line in sys.stdin:
        began = time.perf_counter()
        for _ in range(int(line)):
            seed += 1
            image = pipeline(
                PROMPT,
                width=width,
                height=height,
                num_inference_steps=steps,
                guidance_scale=7.5,
                generator=torch.Generator("cpu").manual_seed(seed),
            ).images[0]
            encode_png(np.asarray(image))
        print(json.dumps({"seconds": time.perf_counter() - began}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:5]))
