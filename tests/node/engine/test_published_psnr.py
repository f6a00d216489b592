"""What the documents promise of images whose steps were shared with strangers."""

import functools
import itertools
import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import node
from network.units import JobId, ModelId
from node.engine.families.base import Family
from node.engine.work import ImageJob

pytestmark = pytest.mark.filterwarnings("ignore")

_PACKAGE = Path(node.__path__[0])
_DOCUMENT = _PACKAGE.parent / "docs" / "running-a-node.md"
_JOB = ImageJob(JobId("job"), ModelId("m"), ("a small red circle",), 128, 128, 12, 7.5, (1,))


@functools.cache
def _family() -> Family:
    from node.engine.families.loading import best_device, open_family  # noqa: PLC0415  torch
    from tests.node.engine import tiny  # noqa: F401, PLC0415  one thread

    return open_family(_PACKAGE / "builtin" / "shapes", "auto", best_device("cpu"), lambda _: None)


def _draw(*jobs: ImageJob) -> list[NDArray[np.uint8]]:
    family = _family()
    samples = [family.start(job, family.encode(job), job.seeds[0]) for job in jobs]
    while running := [sample for sample in samples if not sample.finished]:
        family.step(running, lambda _: True)
    return [family.decode(sample) for sample in samples]


def _psnr(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    error = float(np.mean((one.astype(float) - other) ** 2))
    return math.inf if error == 0 else 10 * math.log10(255**2 / error)


def test_the_built_in_model_keeps_the_published_psnr_between_shared_and_solo_steps() -> None:
    published = re.search(r"(\d+) dB PSNR", _DOCUMENT.read_text())
    assert published is not None
    variety = zip(
        range(6),
        itertools.cycle((12, 8, 20)),
        itertools.cycle((7.5, 3.0)),
        itertools.cycle(("a small red circle", "two blue squares", "a green triangle")),
        strict=False,
    )
    jobs = [
        replace(_JOB, seeds=(seed,), steps=steps, guidance=guidance, prompts=(prompt,))
        for seed, steps, guidance, prompt in variety
    ]
    solo = [_draw(job)[0] for job in jobs]
    shared = _draw(*jobs)
    measured = [_psnr(one, other) for one, other in zip(solo, shared, strict=True)]
    print("PSNR of shared against solo steps:", [f"{one:.1f} dB" for one in measured])  # noqa: T201
    assert min(measured) >= float(published[1])
    assert _psnr(solo[0], solo[1]) < float(published[1]), "different images are told apart"
