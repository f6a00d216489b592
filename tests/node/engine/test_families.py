"""Each family against the stock pipeline it stands in for, bit for bit."""

import functools
import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from network.units import JobId, ModelId
from node.engine.families.base import Family, InvalidJobError, SampleCancelledError
from node.engine.families.folder import ModelFolderError
from node.engine.work import ImageJob
from tests.node.engine import tiny

pytestmark = pytest.mark.filterwarnings("ignore")

_JOB = ImageJob(JobId("job"), ModelId("m"), ("a red circle",), 64, 64, 5, 7.5, (11,))


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Build each pipeline once a module."""
    root = tmp_path_factory.mktemp("models")
    built: dict[str, Path] = {}

    def folder(scheduler: str, **options: bool) -> Path:
        name = "-".join([scheduler, *sorted(options)])
        if name not in built:
            built[name] = root / name
            if scheduler == "xl":
                tiny.stable_diffusion_xl(built[name])
            else:
                tiny.stable_diffusion(built[name], scheduler, **options)
        return built[name]

    return folder


@functools.cache
def _open(folder: Path) -> Family:
    from node.engine.families.loading import best_device, open_family  # noqa: PLC0415  torch

    return open_family(folder, "auto", best_device("cpu"), lambda _: None)


def _open_whole(folder: Path) -> Family:
    """Run a pipeline whole that has an adapter: any pipeline could stand here."""
    from node.engine.families.whole import WholePipeline  # noqa: PLC0415  torch

    return WholePipeline(tiny.load(folder))


def _draw(family: Family, job: ImageJob) -> list[NDArray[np.uint8]]:
    prompt = family.encode(job)
    return [_finish(family, family.start(job, prompt, seed)) for seed in job.seeds]


def _finish(family: Family, sample: Any) -> NDArray[np.uint8]:
    while not sample.finished:
        family.step([sample], lambda _: True)
    return family.decode(sample)


@functools.cache
def _stock_pipeline(folder: Path) -> Any:
    return tiny.load(folder)


def _stock(folder: Path, job: ImageJob) -> NDArray[np.uint8]:
    """Ask the stock pipeline for the job's first image."""
    image = _stock_pipeline(folder)(
        job.prompts[0],
        negative_prompt=job.negative_prompts[0] if job.negative_prompts else None,
        width=job.width,
        height=job.height,
        num_inference_steps=job.steps,
        guidance_scale=job.guidance,
        generator=tiny.generator(job.seeds[0]),
    ).images[0]
    return np.asarray(image)


_VARIATIONS = [
    replace(_JOB),
    replace(_JOB, width=128, height=72, negative_prompts=("blue",)),
    replace(_JOB, guidance=1.0, negative_prompts=("blue",)),
    replace(_JOB, guidance=0.0, steps=1, seeds=(2**32 - 1,)),
    replace(_JOB, prompts=("a very long prompt " * 20,), guidance=1.01),
]


@pytest.mark.parametrize("scheduler", tiny.SCHEDULERS)
def test_a_sample_alone_has_the_stock_pipelines_pixels(
    folder_of: Callable[..., Path], scheduler: str
) -> None:
    family = _open(folder_of(scheduler))
    for job in _VARIATIONS:
        assert np.array_equal(_draw(family, job)[0], _stock(folder_of(scheduler), job)), job


@pytest.mark.parametrize("option", ["tiny_vae", "distilled"])
def test_other_autoencoders_and_distilled_guidance_have_the_stock_pixels_too(
    folder_of: Callable[..., Path], option: str
) -> None:
    folder = folder_of("dpm", **{option: True})
    family = _open(folder)
    for job in _VARIATIONS:
        sized = replace(job, width=96, height=64) if option == "tiny_vae" else job
        assert np.array_equal(_draw(family, sized)[0], _stock(folder, sized)), sized


@pytest.mark.parametrize("scheduler", ["dpm", "euler_a", "pndm"])
def test_samples_stepped_in_turns_are_what_each_is_alone(
    folder_of: Callable[..., Path], scheduler: str
) -> None:
    family = _open(folder_of(scheduler))
    jobs = [_JOB, replace(_JOB, prompts=("b",), steps=8, seeds=(3,)), replace(_JOB, width=72)]
    alone = [_draw(family, job)[0] for job in jobs]
    samples = [family.start(job, family.encode(job), job.seeds[0]) for job in jobs]
    for sample in itertools.islice(itertools.cycle(samples), 40):
        if not sample.finished:
            family.step([sample], lambda _: True)
    for sample, expected in zip(samples, alone, strict=True):
        assert np.array_equal(family.decode(sample), expected)


def test_every_seed_of_a_job_gives_the_image_of_its_own_single_request(
    folder_of: Callable[..., Path],
) -> None:
    family = _open(folder_of("euler_a"))
    together = _draw(family, replace(_JOB, seeds=(7, 8, 9)))
    for seed, image in zip((7, 8, 9), together, strict=True):
        assert np.array_equal(_draw(family, replace(_JOB, seeds=(seed,)))[0], image)


@pytest.mark.parametrize("guided", [True, False])
@pytest.mark.parametrize("scheduler", tiny.SCHEDULERS)
def test_samples_that_share_a_forward_pass_stay_within_a_level_of_their_solo_pixels(
    folder_of: Callable[..., Path], scheduler: str, *, guided: bool
) -> None:
    family = _open(folder_of(scheduler))
    jobs = [
        replace(
            _JOB,
            guidance=guidance if guided else 1.0,
            steps=steps,
            seeds=(seed,),
            prompts=(prompt,),
        )
        for steps, seed, prompt, guidance in ((4, 1, "a", 7.5), (7, 2, "b", 2.0), (4, 3, "c", 9))
    ]
    samples = [family.start(job, family.encode(job), job.seeds[0]) for job in jobs]
    assert len({sample.key for sample in samples}) == 1
    while running := [sample for sample in samples if not sample.finished]:
        family.step(running, lambda _: True)
    for sample, job in zip(samples, jobs, strict=True):
        difference = family.decode(sample).astype(int) - _draw(family, job)[0]
        assert np.abs(difference).max() <= 1


def test_progress_counts_the_steps_that_were_asked_for(folder_of: Callable[..., Path]) -> None:
    family = _open(folder_of("pndm"))
    sample = family.start(_JOB, family.encode(_JOB), 1)
    counts = [sample.done]
    while not sample.finished:
        family.step([sample], lambda _: True)
        counts.append(sample.done)
    assert counts == sorted(counts)
    assert (counts[0], counts[-1]) == (0, _JOB.steps)


def test_any_other_pipeline_runs_whole_with_progress_and_the_stock_pixels(
    folder_of: Callable[..., Path],
) -> None:
    folder = folder_of("xl")
    family = _open_whole(folder)
    assert family.alone
    assert family.facts.prompt_parts == 2
    sample = family.start(_JOB, family.encode(_JOB), 11)
    counts: list[int] = []

    def checkpoint(done: int) -> bool:
        counts.append(done)
        return True

    family.step([sample], checkpoint)
    assert counts == [1, 2, 3, 4, 5]
    assert np.array_equal(family.decode(sample), _stock(folder, _JOB))


def test_a_whole_pipeline_stops_at_the_step_in_which_it_is_cancelled(
    folder_of: Callable[..., Path],
) -> None:
    family = _open_whole(folder_of("xl"))
    sample = family.start(_JOB, family.encode(_JOB), 11)
    with pytest.raises(SampleCancelledError):
        family.step([sample], lambda done: done < 2)
    assert sample.done == 2
    assert not sample.finished
    assert _draw(family, _JOB)[0].shape == (64, 64, 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": 60}, "width must be a multiple of 8"),
        ({"height": 0}, "height must be a multiple of 8"),
        ({"steps": 2000}, "2000 steps"),
        ({"prompts": ("a", "b")}, "1 prompt part"),
        ({"loras": tuple((name, 0.5) for name in "abcde")}, "at most 4 LoRAs; asked for: a, b"),
        ({"guidance": float("inf")}, "guidance"),
        ({"seeds": ()}, "seed"),
    ],
)
def test_what_a_model_cannot_do_is_said(
    folder_of: Callable[..., Path], change: dict[str, Any], message: str
) -> None:
    family = _open(folder_of("ddim"))
    job = replace(_JOB, **change)
    with pytest.raises(InvalidJobError, match=message):
        family.start(job, family.encode(job), 1)


def test_the_size_multiple_follows_from_the_autoencoder(folder_of: Callable[..., Path]) -> None:
    assert _open(folder_of("dpm")).facts.size_multiple == 8
    assert _open(folder_of("dpm", tiny_vae=True)).facts.size_multiple == 32


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("model_index.json", None, "model_index.json is missing"),
        ("model_index.json", "[1]", "is not a JSON object"),
        ("model_index.json", '{"_class_name": ["my", "Pipeline"]}', "no stock pipeline class"),
        ("model_index.json", '{"_class_name": "os"}', "no stock pipeline is called os"),
        ("unet/diffusion_pytorch_model.bin", "pickle", "safetensors files only"),
        ("unet/config.json", "{}", "expected shape"),
    ],
)
def test_a_folder_that_holds_no_safe_model_is_refused_with_the_reason(
    tmp_path: Path, file: str, content: str | None, message: str
) -> None:
    folder = tmp_path / "model"
    tiny.stable_diffusion(folder, "ddim")
    (folder / file).unlink(missing_ok=True)
    if content is not None:
        (folder / file).write_text(content)
    if file.endswith(".bin"):
        (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(ModelFolderError, match=message):
        _open(folder)


def test_a_folder_that_brings_its_own_code_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    tiny.stable_diffusion(folder, "ddim")
    index = (folder / "model_index.json").read_text()
    (folder / "model_index.json").write_text(
        index.replace('"diffusers",\n    "UNet2DConditionModel"', '"mine",\n    "Model"')
    )
    (folder / "unet" / "mine.py").write_text("raise SystemExit\n")
    with pytest.raises(ModelFolderError, match="brings its own code"):
        _open(folder)


def test_weights_that_exist_as_fp16_variant_only_are_found(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    tiny.stable_diffusion(folder, "ddim").save_pretrained(
        str(folder), variant="fp16", safe_serialization=True
    )
    for name in ("unet", "vae", "text_encoder"):
        plain = [p for p in (folder / name).glob("*.safetensors") if ".fp16." not in p.name]
        for path in plain:
            path.unlink()
    assert _draw(_open(folder), _JOB)[0].shape == (64, 64, 3)
