"""A profile's scheduler in place of a model's own, on tiny weights."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from network.units import JobId, ModelId
from node.engine.families.folder import ModelFolderError
from node.engine.work import ImageJob, SchedulerChoice
from tests.node.engine import tiny

pytestmark = pytest.mark.filterwarnings("ignore")

TRAILING = (("timestep_spacing", "trailing"),)


def opened(folder: Path, scheduler: SchedulerChoice | None) -> Any:
    from node.engine.families.loading import best_device, open_family  # noqa: PLC0415  torch

    return open_family(folder, "auto", best_device("cpu"), lambda _: None, scheduler=scheduler)


def drawn(family: Any) -> Any:
    job = ImageJob(JobId("one"), ModelId("tiny"), ("abc",), 32, 32, 4, 2.0, (5,))
    sample = family.start(job, family.encode(job), 5)
    while not sample.finished:
        family.step([sample], lambda _: True)
    return family.decode(sample)


def test_the_image_is_the_stock_pipelines_with_that_scheduler(tmp_path: Path) -> None:
    import diffusers  # noqa: PLC0415  torch

    stock = tiny.stable_diffusion(tmp_path / "model", "ddim")
    own = drawn(opened(tmp_path / "model", None))
    choice = SchedulerChoice("EulerDiscreteScheduler", TRAILING)
    replaced = drawn(opened(tmp_path / "model", choice))
    stock.scheduler = diffusers.EulerDiscreteScheduler.from_config(
        stock.scheduler.config, timestep_spacing="trailing"
    )
    expected = stock(
        "abc",
        width=32,
        height=32,
        num_inference_steps=4,
        guidance_scale=2.0,
        generator=tiny.generator(5),
        output_type="np",
    ).images[0]
    np.testing.assert_array_equal(replaced, (expected * 255).round().astype(np.uint8))
    assert not np.array_equal(replaced, own)


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        (SchedulerChoice("EulerDiscreteScheduler", (("spacing", "x"),)), "no option 'spacing'"),
        (SchedulerChoice("FlowMatchEulerDiscreteScheduler"), "cannot stand in for the model's"),
        (SchedulerChoice("DiffusionPipeline"), "cannot stand in for the model's"),
        (
            SchedulerChoice("DPMSolverMultistepScheduler", (("algorithm_type", "magic"),)),
            "magic",
        ),
    ],
)
def test_what_the_model_cannot_use_is_named(
    tmp_path: Path, choice: SchedulerChoice, words: str
) -> None:
    tiny.stable_diffusion(tmp_path / "model", "ddim")
    with pytest.raises(ModelFolderError, match=words):
        opened(tmp_path / "model", choice)
