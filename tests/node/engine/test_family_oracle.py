"""The families with several encoders against their stock pipelines; batches against being alone."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from network.units import JobId, ModelId
from node.engine.families.base import Family, InvalidJobError
from node.engine.work import ImageJob
from tests.node.engine import tiny

pytestmark = pytest.mark.filterwarnings("ignore")

_JOB = ImageJob(JobId("job"), ModelId("m"), ("a red circle",), 64, 64, 4, 7.5, (11,))

_XL = tiny.stable_diffusion_xl
_MODELS: dict[str, Callable[[Path], Any]] = {
    "sd-dpm": lambda folder: tiny.stable_diffusion(folder, "dpm"),
    "sd-euler_a": lambda folder: tiny.stable_diffusion(folder, "euler_a"),
    "sd-lcm": lambda folder: tiny.stable_diffusion(folder, "lcm", distilled=True),
    "xl-euler": _XL,
    "xl-dpm": lambda folder: _XL(folder, "dpm", force_zeros=False, centred=True),
    "xl-turbo": lambda folder: _XL(folder, "turbo"),
    "xl-lightning": lambda folder: _XL(folder, "lightning"),
    "xl-lcm": lambda folder: _XL(folder, "lcm", distilled=True),
    "sd3": tiny.stable_diffusion_3,
    "sd3-dynamic": lambda folder: tiny.stable_diffusion_3(folder, dynamic=True),
    "sd3-without-t5": lambda folder: tiny.stable_diffusion_3(folder, t5=False),
    "flux-dev": tiny.flux,
    "flux-schnell": lambda folder: tiny.flux(folder, schnell=True),
}
_PARTS = {"sd": 1, "xl": 2, "sd3": 3, "flux": 2}


def _parts(model: str) -> int:
    return 2 if model == "sd3-without-t5" else _PARTS[model.partition("-")[0]]


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Build each model once a module."""
    root = tmp_path_factory.mktemp("families")

    @functools.cache
    def folder(model: str) -> Path:
        _MODELS[model](root / model)
        return root / model

    return folder


@functools.cache
def _open(folder: Path, dtype: str = "auto") -> Family:
    from node.engine.families.loading import best_device, open_family  # noqa: PLC0415  torch

    return open_family(folder, dtype, best_device("cpu"), lambda _: None)


@functools.cache
def _stock_pipeline(folder: Path, dtype: str) -> Any:
    return tiny.load(folder, dtype)


def _stock(folder: Path, job: ImageJob, dtype: str = "float32") -> NDArray[np.uint8]:
    names = ("prompt", "prompt_2", "prompt_3")
    texts = dict(zip(names, job.prompts, strict=False))
    texts |= {f"negative_{n}": t for n, t in zip(names, job.negative_prompts, strict=False)}
    options = {"true_cfg_scale": job.true_guidance} if folder.name.startswith("flux") else {}
    image = _stock_pipeline(folder, dtype)(
        **texts,
        **options,
        width=job.width,
        height=job.height,
        num_inference_steps=job.steps,
        guidance_scale=job.guidance,
        generator=tiny.generator(job.seeds[0]),
    ).images[0]
    return np.asarray(image)


def _begin(family: Family, job: ImageJob) -> Any:
    return family.start(job, family.encode(job), job.seeds[0])


def _draw(family: Family, job: ImageJob) -> NDArray[np.uint8]:
    sample = _begin(family, job)
    while not sample.finished:
        family.step([sample], lambda _: True)
    return family.decode(sample)


def _variations(model: str) -> list[ImageJob]:
    texts = ("a blue square", "at night", "in oil")[: _parts(model)]
    jobs = [
        _JOB,
        replace(_JOB, width=96, height=72, prompts=texts, negative_prompts=texts[::-1]),
        replace(_JOB, guidance=1.0, negative_prompts=("blue",)),
        replace(_JOB, guidance=0.0, steps=1, seeds=(2**32 - 1,)),
        replace(_JOB, prompts=("a very long prompt " * 40,), guidance=1.01, steps=2),
    ]
    if model.startswith("flux"):
        jobs += [
            replace(_JOB, negative_prompts=("red",), true_guidance=3.0),
            replace(_JOB, prompts=texts, negative_prompts=texts[::-1], true_guidance=1.5),
            replace(_JOB, true_guidance=3.0),
        ]
    return jobs


@pytest.mark.parametrize("model", [model for model in _MODELS if model != "sd-dpm"])
def test_a_sample_alone_has_the_stock_pipelines_pixels(
    folder_of: Callable[[str], Path], model: str
) -> None:
    family = _open(folder_of(model))
    assert not family.alone
    assert family.facts.prompt_parts == _parts(model)
    images = []
    for job in _variations(model):
        images.append(_draw(family, job))
        assert np.array_equal(images[-1], _stock(folder_of(model), job)), job
    # A model that ignores guidance, or a true one without a negative prompt, repeats its image.
    assert len({image.tobytes() for image in images}) >= len(images) - 2


@pytest.mark.parametrize("model", ["sd-euler_a", "xl-dpm", "sd3-dynamic", "flux-dev"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_sample_alone_has_the_stock_pixels_in_the_number_formats_of_gpus(
    folder_of: Callable[[str], Path], model: str, dtype: str
) -> None:
    family = _open(folder_of(model), dtype)
    for job in (_JOB, replace(_JOB, guidance=1.0, steps=2)):
        assert np.array_equal(_draw(family, job), _stock(folder_of(model), job, dtype))


def _strangers(model: str) -> list[ImageJob]:
    """Return jobs that share a key and nothing else."""
    texts = ("a blue square", "at night", "in oil")[: _parts(model)]
    few = model.endswith(("turbo", "lightning", "lcm", "schnell"))
    scales = (0.0, 0.5, 1.0) if few else (7.5, 3.0, 1.5)
    return [
        replace(
            _JOB,
            prompts=texts[number:] or texts,
            negative_prompts=("", *texts)[number : number + 1],
            guidance=scale,
            steps=3 + number,
            seeds=(100 * number,),
        )
        for number, scale in enumerate(scales)
    ]


def _run_together(family: Family, jobs: Sequence[ImageJob]) -> list[Any]:
    """Step samples in one batch that grows by one each step and shrinks as they finish."""
    samples: list[Any] = []
    waiting = list(jobs)
    while waiting or any(not sample.finished for sample in samples):
        if waiting:
            samples.append(_begin(family, waiting.pop(0)))
        assert len({sample.key for sample in samples}) == 1
        family.step([one for one in samples if not one.finished], lambda _: True)
    return samples


#: In levels of 255. A batch takes other kernels than one sample: the last bits of its floats
#: differ, and where a value lies half-way between two levels one bit decides between them.
_LARGEST_DIFFERENCE = 1
_LEAST_PSNR = 60.0


@pytest.mark.parametrize("model", _MODELS)
def test_samples_that_share_forward_passes_stay_within_the_stated_difference(
    folder_of: Callable[[str], Path], model: str
) -> None:
    family = _open(folder_of(model))
    jobs = _strangers(model)
    alone = [_draw(family, job) for job in jobs]
    for sample, expected in zip(_run_together(family, jobs), alone, strict=True):
        difference = family.decode(sample).astype(int) - expected
        assert np.abs(difference).max() <= _LARGEST_DIFFERENCE
        error = float(np.mean(difference.astype(float) ** 2))
        assert error == 0 or 10 * np.log10(255**2 / error) >= _LEAST_PSNR
    assert len({image.tobytes() for image in alone}) == len(alone)


def test_true_guidance_of_several_samples_shares_both_passes(
    folder_of: Callable[[str], Path],
) -> None:
    family = _open(folder_of("flux-dev"))
    jobs = [
        replace(_JOB, negative_prompts=("red",), true_guidance=scale, steps=steps)
        for scale, steps in ((4.0, 3), (2.0, 5), (1.5, 4))
    ]
    alone = [_draw(family, job) for job in jobs]
    for sample, expected in zip(_run_together(family, jobs), alone, strict=True):
        difference = family.decode(sample).astype(int) - expected
        assert np.abs(difference).max() <= _LARGEST_DIFFERENCE


@pytest.mark.parametrize(
    ("model", "guidances"),
    [("xl-euler", (7.5, 1.0)), ("sd3", (7.5, 1.0))],
)
def test_samples_with_and_without_an_unconditional_half_never_share_a_pass(
    folder_of: Callable[[str], Path], model: str, guidances: tuple[float, float]
) -> None:
    family = _open(folder_of(model))
    keys = {_begin(family, replace(_JOB, guidance=scale)).key for scale in guidances}
    assert len(keys) == 2


def test_images_of_as_many_pixels_but_another_shape_never_share_a_pass(
    folder_of: Callable[[str], Path],
) -> None:
    family = _open(folder_of("flux-schnell"))
    wide, high = replace(_JOB, width=96), replace(_JOB, height=96)
    assert _begin(family, wide).key != _begin(family, high).key


@pytest.mark.parametrize(
    ("model", "native_size", "guided", "few_steps"),
    [
        ("sd-dpm", 32, True, False),
        ("xl-euler", 32, True, False),
        ("xl-turbo", 32, True, True),
        ("xl-lcm", 32, True, True),
        ("sd3", 32, True, False),
        ("flux-dev", 256, True, False),
        ("flux-schnell", 256, False, True),
    ],
)
def test_a_model_says_how_it_wants_to_be_used(
    folder_of: Callable[[str], Path],
    model: str,
    native_size: int,
    guided: bool,  # noqa: FBT001  a table's column
    few_steps: bool,  # noqa: FBT001  likewise
) -> None:
    facts = _open(folder_of(model)).facts
    assert (facts.native_size, facts.guided, facts.few_steps) == (native_size, guided, few_steps)


@pytest.mark.parametrize(
    ("model", "change", "message"),
    [
        ("sd3", {"width": 136}, "at most 128 pixels a side"),
        ("sd3-without-t5", {"prompts": ("a", "b", "c")}, "2 prompt parts"),
        ("flux-dev", {"height": 60}, "height must be a multiple of 8"),
        ("flux-dev", {"true_guidance": float("nan")}, "true guidance"),
        ("xl-lcm", {"steps": 51}, "51 steps"),
    ],
)
def test_what_a_model_cannot_do_is_said(
    folder_of: Callable[[str], Path], model: str, change: dict[str, Any], message: str
) -> None:
    family = _open(folder_of(model))
    with pytest.raises(InvalidJobError, match=message):
        _begin(family, replace(_JOB, **change))
