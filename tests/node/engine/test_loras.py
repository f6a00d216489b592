"""LoRAs against the stock pipeline with `set_adapters`, bit for bit, and what they cost."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch._dynamo.utils import counters

from network.units import JobId, ModelId
from node.config.lora_file import LoraBounds
from node.engine.families import acceleration
from node.engine.families.base import Family, InvalidJobError, Loras
from node.engine.families.loading import best_device, open_family
from node.engine.families.stable_diffusion import StableDiffusion
from node.engine.families.whole import WholePipeline
from node.engine.loras import switch
from node.engine.loras.library import Library
from node.engine.loras.switch import loras_of
from node.engine.protocol import Lora
from node.engine.work import ImageJob, LoraSet
from tests.node.engine import tiny, tiny_loras

pytestmark = pytest.mark.filterwarnings("ignore")

_JOB = ImageJob(JobId("job"), ModelId("m"), ("a red circle",), 64, 64, 3, 7.5, (11,))
_NAMES = ("plain", "rank-5", "text", "kohya", "kohya-text")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return where a tiny model and LoRAs of every format lie."""
    root = tmp_path_factory.mktemp("loras")
    pipeline = tiny.stable_diffusion(root / "model", "dpm")
    plain = tiny_loras.tensors_for(pipeline, 1)
    text = tiny_loras.tensors_for(pipeline, 2, text=True)
    half = {name: one.half() for name, one in tiny_loras.tensors_for(pipeline, 3, rank=5).items()}
    for name, tensors in {
        "plain": plain,
        "rank-5": half,
        "text": text,
        "kohya": tiny_loras.as_kohya(plain, alpha=3.0),
        "kohya-text": tiny_loras.as_kohya(text, alpha=1.0),
    }.items():
        tiny_loras.write(root / f"{name}.safetensors", tensors)
    return root


@pytest.fixture(scope="module")
def stock(root: Path) -> Any:
    """Return the stock pipeline with every LoRA loaded."""
    pipeline = tiny.load(root / "model")
    for name in _NAMES:
        pipeline.load_lora_weights(root, weight_name=f"{name}.safetensors", adapter_name=name)
    return pipeline


def _open(folder: Path, loras: Mapping[str, Path], max_bytes: int = 10**8) -> Family:
    library = Library(
        [Lora(name, str(path)) for name, path in loras.items()], LoraBounds(), max_bytes
    )
    return open_family(folder, "auto", best_device("cpu"), lambda _: None, library=library)


def _open_all(root: Path, max_bytes: int = 10**8) -> Family:
    files = {name: root / f"{name}.safetensors" for name in _NAMES}
    return _open(root / "model", files, max_bytes)


def _loras(family: Family) -> Loras:
    assert family.loras is not None
    return family.loras


def _begin(family: Family, job: ImageJob) -> Any:
    _loras(family).activate(job.lora_set)
    return family.start(job, family.encode(job), job.seeds[0])


def _draw(family: Family, job: ImageJob) -> NDArray[np.uint8]:
    sample = _begin(family, job)
    while not sample.finished:
        _loras(family).activate(job.lora_set)
        family.step([sample], lambda _: True)
    return family.decode(sample)


def _stock_draws(pipeline: Any, loras: LoraSet) -> NDArray[np.uint8]:
    if loras:
        pipeline.enable_lora()
        pipeline.set_adapters([name for name, _ in loras], [weight for _, weight in loras])
    else:
        pipeline.disable_lora()
    image = pipeline(
        _JOB.prompts[0],
        width=_JOB.width,
        height=_JOB.height,
        num_inference_steps=_JOB.steps,
        guidance_scale=_JOB.guidance,
        generator=tiny.generator(_JOB.seeds[0]),
    ).images[0]
    return np.asarray(image)


def test_every_set_has_the_stock_pixels_in_any_order_of_switching(root: Path, stock: Any) -> None:
    family = _open_all(root)
    sets: list[LoraSet] = [
        (),
        (("plain", 1.0),),
        (("rank-5", 0.7),),
        (("text", 1.0),),
        (("kohya", 1.0),),
        (("kohya-text", 1.5),),
        (),
        (("plain", 0.5), ("rank-5", 2.0)),
        (("kohya", 0.3), ("plain", 0.3), ("rank-5", 0.3), ("text", 0.3)),
        (("plain", 1.0),),
    ]
    seen = [_draw(family, replace(_JOB, loras=loras)) for loras in sets]
    for loras, image in zip(sets, seen, strict=True):
        assert np.array_equal(image, _stock_draws(stock, loras)), loras
    # A LoRA that changes nothing would equal the stock one that changes nothing.
    assert len({image.tobytes() for image in seen}) == len(set(sets))


def test_a_set_is_the_same_in_any_order_and_without_those_of_no_weight() -> None:
    job = replace(_JOB, loras=(("b", 0.5), ("c", 0.0), ("a", 1.0)))
    assert job.lora_set == (("a", 1.0), ("b", 0.5))


def test_a_model_after_loras_is_made_of_the_modules_of_one_that_never_saw_any(root: Path) -> None:
    family = _open_all(root)
    pipeline: Any = family._pipeline  # type: ignore[attr-defined]
    before = _modules(pipeline)
    fresh = _draw(_open_all(root), _JOB)
    _draw(family, replace(_JOB, loras=(("text", 1.0), ("plain", 1.0))))
    assert _modules(pipeline) != before
    assert np.array_equal(_draw(family, _JOB), fresh)
    assert _modules(pipeline) == before


def _modules(pipeline: Any) -> list[int]:
    parts = (pipeline.unet, pipeline.text_encoder)
    return [id(module) for part in parts for module in part.modules()]


def test_samples_of_several_sets_stepped_in_turns_are_what_each_is_alone(root: Path) -> None:
    sets: list[LoraSet] = [
        (),
        (("plain", 1.0),),
        (("text", 0.8),),
        (("plain", 0.4), ("rank-5", 1.0)),
    ]
    jobs = [replace(_JOB, loras=loras) for loras in sets]
    alone = [_draw(_open_all(root), job) for job in jobs]
    family = _open_all(root)
    samples = [_begin(family, job) for job in jobs]
    for _ in range(_JOB.steps):
        for job, sample in zip(jobs, samples, strict=True):
            _loras(family).activate(job.lora_set)
            family.step([sample], lambda _: True)
    for sample, expected in zip(samples, alone, strict=True):
        assert np.array_equal(family.decode(sample), expected)


def test_a_weight_scales_what_a_lora_changes(root: Path) -> None:
    family = _open_all(root)
    plain = _draw(family, _JOB).astype(int)
    changes = [
        float(np.abs(_draw(family, replace(_JOB, loras=(("plain", weight),))) - plain).mean())
        for weight in (0.0, 0.1, 0.3, 1.0)
    ]
    assert changes[0] == 0
    assert changes == sorted(changes)
    assert changes[-1] > 2 * changes[1] > 0


def test_the_thirteenth_lora_and_many_more_work_under_a_bound_of_a_few(tmp_path: Path) -> None:
    pipeline = tiny.stable_diffusion(tmp_path / "model", "dpm")
    files = {
        f"l{seed}": tiny_loras.write(
            tmp_path / f"{seed}.safetensors", tiny_loras.tensors_for(pipeline, seed)
        )
        for seed in range(14)
    }
    size = files["l0"].stat().st_size
    family = _open(tmp_path / "model", files, max_bytes=3 * size)
    images = {name: _draw(family, replace(_JOB, steps=1, loras=((name, 1.0),))) for name in files}
    assert len({image.tobytes() for image in images.values()}) == 14
    assert [name for name in files if _loras(family).holds(name)][-1] == "l13"
    assert 2 <= sum(_loras(family).holds(name) for name in files) <= 3
    again = replace(_JOB, steps=1, loras=(("l0", 1.0),))
    assert np.array_equal(_draw(family, again), images["l0"])
    # More at once than are kept: those in use stay, whatever the bound is.
    four = replace(again, loras=tuple((f"l{number}", 0.5) for number in range(4)))
    assert np.array_equal(_draw(family, four), _draw(_open(tmp_path / "model", files), four))


def _broken(change: Callable[[dict[str, torch.Tensor]], None]) -> Callable[[Any], Any]:
    def made(pipeline: Any) -> dict[str, torch.Tensor]:
        tensors = tiny_loras.tensors_for(pipeline, 9)
        change(tensors)
        return tensors

    return made


_SOMEWHERE = "unet.mid_block.resnets.0.conv1.lora_A.weight"


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (
            _broken(
                lambda one: one.update({_SOMEWHERE: torch.full_like(one[_SOMEWHERE], np.nan)})
            ),
            "'odd' cannot be used: its file is damaged: .* not finite",
        ),
        (
            _broken(lambda one: one.update({_SOMEWHERE: torch.ones(2, 3, 3, 3)})),
            "incompatible with base model: 'odd', its layers have other sizes",
        ),
        (
            _broken(
                lambda one: one.update(
                    {
                        "unet.no.such.lora_A.weight": torch.ones(2, 4),
                        "unet.no.such.lora_B.weight": torch.ones(4, 2),
                    }
                )
            ),
            r"incompatible with base model: 'odd', it changes \d+ layers, of which this model has",
        ),
        (
            lambda _: {
                "transformer.a.lora_A.weight": torch.ones(2, 4),
                "transformer.a.lora_B.weight": torch.ones(4, 2),
            },
            "incompatible with base model: 'odd'",
        ),
    ],
)
def test_a_lora_that_does_not_fit_is_refused_and_leaves_nothing_behind(
    tmp_path: Path, root: Path, made: Callable[[Any], dict[str, torch.Tensor]], message: str
) -> None:
    odd = tiny_loras.write(tmp_path / "odd.safetensors", made(tiny.load(root / "model")))
    family = _open(root / "model", {"odd": odd, "plain": root / "plain.safetensors"})
    good = replace(_JOB, loras=(("plain", 1.0),))
    before = (_draw(family, _JOB), _draw(family, good))
    for _ in range(2):
        with pytest.raises(InvalidJobError, match=message):
            _draw(family, replace(_JOB, loras=(("plain", 1.0), ("odd", 1.0))))
    after = (_draw(family, _JOB), _draw(family, good))
    assert all(np.array_equal(one, other) for one, other in zip(before, after, strict=True))


def test_a_lora_whose_file_has_gone_is_named(root: Path) -> None:
    family = _open(root / "model", {"gone": root / "gone.safetensors"})
    with pytest.raises(InvalidJobError, match="'gone' cannot be used: its file cannot be read"):
        _draw(family, replace(_JOB, loras=(("gone", 1.0),)))
    with pytest.raises(
        InvalidJobError, match="'other' cannot be used: its file is not configured"
    ):
        _draw(family, replace(_JOB, loras=(("other", 1.0),)))


def test_more_loras_than_a_job_may_have_are_refused(root: Path) -> None:
    family = _open_all(root)
    job = replace(_JOB, loras=tuple((name, 1.0) for name in _NAMES))
    with pytest.raises(InvalidJobError, match="at most 4 LoRAs"):
        family.encode(job)


_FAMILIES: dict[str, Callable[[Path], Any]] = {
    "xl": tiny.stable_diffusion_xl,
    "sd3": tiny.stable_diffusion_3,
    "flux": tiny.flux,
}


@pytest.mark.parametrize("name", _FAMILIES)
def test_every_family_draws_with_the_weights_that_peft_would_add(
    tmp_path: Path, name: str
) -> None:
    pipeline = _FAMILIES[name](tmp_path / "model")
    tensors = tiny_loras.tensors_for(pipeline, 4, text=True, strength=2.0)
    file = tiny_loras.write(tmp_path / "x.safetensors", tensors)
    family = _open(tmp_path / "model", {"x": file})
    assert family.facts.max_loras == 4
    job = replace(_JOB, loras=(("x", 0.6),))
    plain, image = _draw(family, _JOB), _draw(family, job)
    assert not np.array_equal(image, plain)
    assert np.array_equal(_draw(family, _JOB), plain)
    pipeline.load_lora_weights(str(tmp_path), weight_name="x.safetensors", adapter_name="x")
    pipeline.set_adapters(["x"], [0.6])
    assert np.array_equal(image, _draw_without_switch(type(family)(pipeline), _JOB))  # type: ignore[call-arg]


def _draw_without_switch(family: Family, job: ImageJob) -> NDArray[np.uint8]:
    sample = family.start(job, family.encode(job), job.seeds[0])
    while not sample.finished:
        family.step([sample], lambda _: True)
    return family.decode(sample)


def test_a_pipeline_that_runs_whole_takes_loras_too(root: Path, stock: Any) -> None:
    whole = WholePipeline(tiny.load(root / "model"))
    library = Library(
        [Lora("plain", str(root / "plain.safetensors"))], LoraBounds(), max_bytes=10**8
    )
    whole.loras = loras_of(whole._pipeline, library)
    assert whole.facts.max_loras == 4
    loras: LoraSet = (("plain", 0.6),)
    assert np.array_equal(_draw(whole, replace(_JOB, loras=loras)), _stock_draws(stock, loras))
    assert np.array_equal(_draw(whole, _JOB), _stock_draws(stock, ()))


def test_a_model_with_fused_projections_says_that_it_takes_none(root: Path) -> None:
    pipeline = tiny.load(root / "model")
    acceleration.fuse_projections(pipeline.unet)
    assert StableDiffusion(pipeline).facts.max_loras == 0
    assert loras_of(pipeline, Library([], LoraBounds(), max_bytes=1)) is None


def test_compiled_blocks_run_as_written_beneath_a_lora_and_nothing_is_compiled_anew(
    root: Path, stock: Any
) -> None:
    family = _open_all(root)
    pipeline: Any = family._pipeline  # type: ignore[attr-defined]
    plain = _draw(family, _JOB)
    assert acceleration.compile_blocks(pipeline.unet, "eager")
    try:
        assert np.array_equal(_draw(family, _JOB), plain)
        compiled = counters["stats"]["unique_graphs"]
        assert compiled
        for loras in ((("plain", 1.0),), (("rank-5", 0.5),), ()):
            image = _draw(family, replace(_JOB, loras=loras))
            assert np.array_equal(image, _stock_draws(stock, loras))
        assert counters["stats"]["unique_graphs"] == compiled
        blocks = acceleration._blocks(pipeline.unet)
        assert all(block._compiled_call_impl is not None for block in blocks)
    finally:
        torch._dynamo.reset()


def test_a_lora_for_which_there_is_no_memory_leaves_nothing_in_the_model(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    family = _open_all(root)
    plain = _draw(family, _JOB)
    dressed: list[object] = []
    dress = switch._Place.dress

    def fail_at_the_third(place: Any, parts: Any) -> None:
        dressed.append(place)
        if len(dressed) == 3:
            raise torch.OutOfMemoryError("no memory")
        dress(place, parts)

    monkeypatch.setattr(switch._Place, "dress", fail_at_the_third)
    with pytest.raises(torch.OutOfMemoryError):
        _loras(family).activate((("plain", 1.0),))
    assert np.array_equal(_draw(family, _JOB), plain)
    assert not np.array_equal(_draw(family, replace(_JOB, loras=(("plain", 1.0),))), plain)
