"""Loads a model folder into the family that knows its pipeline class."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers

from node.engine.families.acceleration import accelerate, warm_up
from node.engine.families.base import Family, InvalidJobError
from node.engine.families.flux import Flux
from node.engine.families.folder import (
    MAY_BE_LEFT_OUT,
    NEVER_LOADED,
    ModelFolder,
    ModelFolderError,
    inspect_folder,
)
from node.engine.families.placement import PlacedPipeline
from node.engine.families.scheduler import replace_scheduler
from node.engine.families.stable_diffusion import StableDiffusion
from node.engine.families.stable_diffusion_3 import StableDiffusion3
from node.engine.families.stable_diffusion_xl import StableDiffusionXL
from node.engine.families.whole import WholePipeline
from node.engine.loras.library import Library
from node.engine.loras.switch import loras_of
from node.engine.options import Acceleration
from node.engine.weights import estimated_bytes, read_ahead
from node.engine.work import SchedulerChoice

_DEFAULT = Acceleration()
_READ = 0.7  # the share of loading that is done when all weights have been read from the disk
_LOADED = 0.8  # the share of loading that is done when all weights are in memory
_WARMING = 1 - _LOADED
#: The pipelines whose steps we take ourselves; all others run whole.
_ADAPTERS: dict[str, Callable[[Any], Family]] = {
    "StableDiffusionPipeline": StableDiffusion,
    "StableDiffusionXLPipeline": StableDiffusionXL,
    "StableDiffusion3Pipeline": StableDiffusion3,
    "FluxPipeline": Flux,
}


def best_device(wanted: str) -> torch.device:
    """Return the device for "auto", "cpu", "cuda" or "cuda:1"."""
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(wanted)


def number_format(wanted: str, device: torch.device) -> torch.dtype:
    """Return the floating-point type for "auto" or a named one.

    CPUs compute in float32: fp16 is many times slower there, and bf16 gives other bits. GPUs
    take bf16 where they have it, which cannot overflow as fp16 does.
    """
    if wanted != "auto":
        return {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}[
            wanted
        ]
    if device.type != "cuda":
        return torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16


def open_family(
    path: Path,
    dtype: str,
    device: torch.device,
    on_progress: Callable[[float], None],
    acceleration: Acceleration = _DEFAULT,
    *,
    library: Library | None = None,
    scheduler: SchedulerChoice | None = None,
) -> Family:
    """Load a model as `open_model` does, and bring it to the device. Raises ModelFolderError."""
    model = open_model(
        path, dtype, device, on_progress, acceleration, library=library, scheduler=scheduler
    )
    return model.attach()


def weight_bytes(path: Path, dtype: str, device: torch.device) -> int:
    """Return the bytes that a model will take, from its files' headers. Raises ModelFolderError."""
    float_bytes = number_format(dtype, device).itemsize
    return estimated_bytes(inspect_folder(path), float_bytes)


def open_model(
    path: Path,
    dtype: str,
    device: torch.device,
    on_progress: Callable[[float], None],
    acceleration: Acceleration = _DEFAULT,
    *,
    library: Library | None = None,
    scheduler: SchedulerChoice | None = None,
) -> PlacedPipeline:
    """Load a model from its folder, and bring it to the device unless there is no room for it.

    Raises ModelFolderError. `library` has the LoRAs for the model, `scheduler` replaces its own;
    `on_progress` gets the share that is loaded, from 0 to 1.
    """
    folder = inspect_folder(path)
    pipeline_class = getattr(diffusers, folder.pipeline, None)
    if not isinstance(pipeline_class, type) or not issubclass(
        pipeline_class, diffusers.DiffusionPipeline
    ):
        raise ModelFolderError(f"{path}: no stock pipeline is called {folder.pipeline}")
    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()

    def adapted(pipeline: Any) -> Family:
        family = _adapted(
            pipeline, device, acceleration, lambda share: on_progress(_LOADED + share * _WARMING)
        )
        if library is not None:
            family.loras = loras_of(pipeline, library)
        return family

    try:
        read_ahead(folder, lambda share: on_progress(_READ * share))
        pipeline = _load(pipeline_class, folder, number_format(dtype, device))
        on_progress(_LOADED)
        if scheduler is not None:
            replace_scheduler(pipeline, scheduler)
        model = PlacedPipeline(pipeline, device, adapted)
        model.attach_if_it_fits()
    except (OSError, ValueError, TypeError, ImportError, AttributeError, InvalidJobError) as error:
        raise ModelFolderError(f"{path}: {error}") from error
    return model


def _adapted(
    pipeline: Any,
    device: torch.device,
    acceleration: Acceleration,
    on_progress: Callable[[float], None],
) -> Family:
    adapter = _ADAPTERS.get(type(pipeline).__name__)
    if adapter is None:
        return WholePipeline(pipeline)
    is_compiled = accelerate(pipeline, device, acceleration)
    family = adapter(pipeline)
    if is_compiled:
        warm_up(family, pipeline, on_progress)
    return family


def _load(pipeline_class: Any, folder: ModelFolder, dtype: torch.dtype) -> Any:
    unused: dict[str, bool | None] = {
        name: None for name in NEVER_LOADED if name in _optional_parts(pipeline_class)
    }
    accepted = pipeline_class.__init__.__code__.co_varnames
    for name in MAY_BE_LEFT_OUT:
        if name in accepted and not (folder.path / name).is_dir():
            unused[name] = None
    if "requires_safety_checker" in accepted:
        unused["requires_safety_checker"] = False
    if "add_watermarker" in accepted:
        # SDXL marks its images if some package happens to be installed; ours never do.
        unused["add_watermarker"] = False
    pipeline = pipeline_class.from_pretrained(
        str(folder.path),
        dtype=dtype,
        variant=folder.variant,
        use_safetensors=True,
        local_files_only=True,
        trust_remote_code=False,
        **unused,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _optional_parts(pipeline_class: Any) -> frozenset[str]:
    return frozenset(getattr(pipeline_class, "_optional_components", ()))
