"""What makes models faster on GPUs: nothing on CPUs, and each measure alone keeps the picture."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from network.units import JobId, ModelId
from node.engine.families import acceleration, loading
from node.engine.families.base import Family
from node.engine.launch import worker_environment
from node.engine.options import Acceleration
from node.engine.work import ImageJob
from tests.node.engine import tiny

pytestmark = pytest.mark.filterwarnings("ignore")

_JOB = ImageJob(JobId("job"), ModelId("m"), ("a red circle",), 64, 64, 2, 7.5, (11, 12))
_CPU = loading.best_device("cpu")
_BUILDERS: dict[str, Callable[[Path], Any]] = {
    "StableDiffusionPipeline": lambda folder: tiny.stable_diffusion(folder, "dpm"),
    "StableDiffusionXLPipeline": tiny.stable_diffusion_xl,
    "StableDiffusion3Pipeline": tiny.stable_diffusion_3,
    "FluxPipeline": tiny.flux,
}


@pytest.fixture(params=_BUILDERS)
def pipeline(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """Return a stock pipeline of each family."""
    return _BUILDERS[request.param](tmp_path / "model")


def _family(pipeline: Any) -> Family:
    return loading._ADAPTERS[type(pipeline).__name__](pipeline)


def _draw(pipeline: Any, job: ImageJob = _JOB) -> NDArray[np.uint8]:
    family = _family(pipeline)
    prompt = family.encode(job)
    samples = [family.start(job, prompt, seed) for seed in job.seeds]
    while not samples[0].finished:
        family.step(samples, lambda _: True)
    return np.stack([family.decode(sample) for sample in samples])


def _model(pipeline: Any) -> Any:
    return acceleration._denoiser(pipeline)


def _compiled(pipeline: Any) -> list[bool]:
    blocks = acceleration._blocks(_model(pipeline))
    return [block._compiled_call_impl is not None for block in blocks]


def _channels_last(model: Any) -> list[bool]:
    weights = [weight for weight in model.parameters() if weight.ndim == 4 and weight.shape[2] > 1]
    return [weight.stride(1) == 1 for weight in weights]


def test_nothing_changes_on_a_cpu(pipeline: Any) -> None:
    before = _draw(pipeline)
    processors = {name: type(one) for name, one in _model(pipeline).attn_processors.items()}
    everything = Acceleration("auto", fuse_projections=True)
    assert not acceleration.accelerate(pipeline, _CPU, everything)
    assert not any(_compiled(pipeline))
    assert not any(_channels_last(pipeline.vae))
    after = {name: type(one) for name, one in _model(pipeline).attn_processors.items()}
    assert after == processors
    assert np.array_equal(_draw(pipeline), before)


def test_channels_last_and_fused_projections_keep_the_picture(pipeline: Any) -> None:
    before = _draw(pipeline).astype(int)
    acceleration.use_channels_last(_model(pipeline))
    acceleration.use_channels_last(pipeline.vae)
    assert all(_channels_last(pipeline.vae))
    acceleration.fuse_projections(_model(pipeline))
    modules = list(_model(pipeline).modules())
    fused = any(getattr(module, "fused_projections", False) for module in modules)
    assert fused != bool(_model(pipeline).config.get("dual_attention_layers"))
    assert np.abs(_draw(pipeline) - before).max() <= 1


@pytest.mark.parametrize(
    "pipeline",
    [name for name in _BUILDERS if name != "StableDiffusionPipeline"],  # its UNet is SDXL's
    indirect=True,
)
def test_a_block_is_compiled_whole_and_for_every_batch_and_size(pipeline: Any) -> None:
    import torch  # noqa: PLC0415  slow

    before = _draw(pipeline).astype(int)
    torch._dynamo.reset()
    # The traced graphs, run without code generation: a break in one raises, thanks to fullgraph.
    assert acceleration.compile_blocks(_model(pipeline), "eager")
    assert all(_compiled(pipeline))
    told: list[float] = []
    acceleration.warm_up(_family(pipeline), pipeline, told.append)
    assert told == sorted(told)
    assert told[-1] == 1.0
    assert all(_compiled(pipeline))
    variants = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    assert np.abs(_draw(pipeline) - before).max() <= 1
    for width, guidance, seeds in ((96, 1.0, (1,)), (64, 5.0, (1, 2, 3)), (96, 5.0, (1, 2))):
        job = ImageJob(JobId("j"), ModelId("m"), ("b",), width, 64, 1, guidance, seeds)
        assert _draw(pipeline, job).shape == (len(seeds), 64, width, 3)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == variants


def test_a_model_that_cannot_be_compiled_runs_as_it_is(
    pipeline: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(_graph: Any, inputs: Any) -> Any:
        raise RuntimeError(f"no C compiler for {len(inputs)}\nand more")

    before = _draw(pipeline)
    for block in acceleration._blocks(_model(pipeline)):
        block.compile(backend=broken, fullgraph=True, dynamic=True)
    acceleration.warm_up(_family(pipeline), pipeline, lambda _: None)
    assert not any(_compiled(pipeline))
    assert "the model runs uncompiled: " in capsys.readouterr().out
    assert np.array_equal(_draw(pipeline), before)


def test_compiled_code_outlives_the_machine_where_it_is_told_to(tmp_path: Path) -> None:
    assert "TORCHINDUCTOR_CACHE_DIR" not in worker_environment({}, 1)
    environment = worker_environment({}, 1, tmp_path / "compiled")
    assert environment["TORCHINDUCTOR_CACHE_DIR"] == str(tmp_path / "compiled")
