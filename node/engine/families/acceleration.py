"""Makes a loaded model faster on CUDA. What it draws changes by rounding only, on CPUs not at all.

Attention goes through torch's `scaled_dot_product_attention` in all stock models as they are, which
takes the fastest kernel that the device has. Nothing here approximates.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch._dynamo import config as dynamo
from torch.fx.experimental import _config as symbols

from network.units import JobId, ModelId
from node.engine.families.base import Family
from node.engine.options import Acceleration
from node.engine.work import ImageJob

#: Batch sizes, sizes of text and widths of layers each may need a variant of a block's code.
_MOST_VARIANTS = 256
#: The blocks of models whose class does not say which of its blocks repeat.
_REPEATED_BLOCKS = {"SD3Transformer2DModel": ("JointTransformerBlock",)}
_WARM_GUIDANCE = (1.0, 5.0)  # without the unconditional half, and with it


def accelerate(pipeline: Any, device: torch.device, wanted: Acceleration) -> bool:
    """Prepare a pipeline that lies on `device`; tells whether its blocks will be compiled."""
    if device.type != "cuda":
        return False
    model = _denoiser(pipeline)
    use_channels_last(model)
    use_channels_last(pipeline.vae)
    if wanted.fuse_projections:
        fuse_projections(model)
    if wanted.compile == "off":
        return False
    return compile_blocks(model, "inductor")


def use_channels_last(model: Any) -> None:
    """Lay out the weights of convolutions as tensor cores read them."""
    model.to(memory_format=torch.channels_last)


def fuse_projections(model: Any) -> None:
    """Compute query, key and value by one matrix.

    It is made beside the three it stands for, so it takes their memory once more, and a LoRA
    that changes those has no effect any more.
    """
    # Diffusers' fused attention of SD 3 cannot do the layers that attend to the image alone.
    if hasattr(model, "fuse_qkv_projections") and not model.config.get("dual_attention_layers"):
        model.fuse_qkv_projections()


def compile_blocks(model: Any, backend: str) -> bool:
    """Compile the blocks that a model repeats, at their first use; False if it names none.

    All blocks of a kind share their code, so this takes seconds where a whole model takes minutes.
    Sizes are symbols: another batch or image size compiles nothing anew.
    """
    # Two sizes that are equal by chance in the first step are not for that the same size.
    symbols.use_duck_shape = False
    dynamo.recompile_limit = _MOST_VARIANTS
    dynamo.accumulated_recompile_limit = 4 * _MOST_VARIANTS
    blocks = list(_blocks(model))
    for block in blocks:
        block.compile(backend=backend, fullgraph=True, dynamic=True)
    return bool(blocks)


def leave_uncompiled(model: Any) -> None:
    """Take `compile_blocks` back."""
    for block in _blocks(model):
        block._compiled_call_impl = None  # noqa: SLF001  torch offers no other way back


def warm_up(family: Family, pipeline: Any, on_progress: Callable[[float], None]) -> None:
    """Take the steps that compile a model's blocks, before anybody waits for them.

    Where compilation does not work (no C compiler, say), the model goes on without it, and the
    log says why.
    """
    jobs = warm_jobs(family)
    try:
        for number, job in enumerate(jobs, start=1):
            prompt = family.encode(job)
            family.step([family.start(job, prompt, seed) for seed in job.seeds], lambda _: True)
            on_progress(number / len(jobs))
    except Exception as error:  # noqa: BLE001  compilers raise anything
        leave_uncompiled(_denoiser(pipeline))
        reason = str(error).strip().partition("\n")[0][:300]
        sys.stdout.write(f"the model runs uncompiled: {type(error).__name__}: {reason}\n")


def warm_jobs(family: Family) -> Sequence[ImageJob]:
    """Return jobs of empty prompts that between them use every variant of the blocks' code.

    A batch of one gets code of its own, all larger ones share theirs.
    """
    multiple = family.facts.size_multiple
    side = max(multiple, (family.facts.native_size or 512) // multiple * multiple)
    job = ImageJob(JobId("warm-up"), ModelId(""), ("",), side, side, 4, 1.0, (0,))
    return [
        replace(job, guidance=guidance, seeds=seeds)
        for guidance in _WARM_GUIDANCE
        for seeds in ((0,), (0, 1))
    ]


def _denoiser(pipeline: Any) -> Any:
    return getattr(pipeline, "transformer", None) or pipeline.unet


def _blocks(model: Any) -> Iterator[Any]:
    known = _REPEATED_BLOCKS.get(type(model).__name__, ())
    names = getattr(model, "_repeated_blocks", None) or known
    return (module for module in model.modules() if type(module).__name__ in names)
