"""What of the worker needs torch: the device that models run on. Imports it when it is opened."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from node.engine.ladder import Rung
from node.engine.loader import LoadedModel, Opener
from node.engine.loras.library import Library
from node.engine.memory import default_budget, trim
from node.engine.options import SafetyOptions
from node.engine.previewer import Latents
from node.engine.protocol import Hello, Model, Setup
from node.engine.residency import Budget
from node.engine.safety import SafetyChecker
from node.engine.shelf import Estimator
from node.engine.stopwatch import EventLap, HostLap, Lap, Stopwatch


@dataclass(frozen=True, slots=True)
class Device:
    """`signature` names all that a step's time depends on beside the step.

    `on_gpu`: calls return when the work is queued, and the first of a kind may compile code.
    """

    open_model: Opener
    estimate: Estimator
    budget: Budget
    rungs: tuple[Rung, ...]
    relieve: Callable[[], None]
    stopwatch: Stopwatch
    latents: Latents
    prepare_checker: Callable[[SafetyOptions], Callable[[], SafetyChecker]]
    signature: str
    hello: Hello
    on_gpu: bool


#: Opens the device that a setup asks for, with the LoRAs that its models may use.
DeviceOpener = Callable[[Setup, Library], Device]


def open_device(setup: Setup, library: Library) -> Device:
    """Import the heavy libraries, which takes seconds, and find the device."""
    import torch  # noqa: PLC0415

    from node.engine.checkers.opening import prepare_checker  # noqa: PLC0415
    from node.engine.families.latents import FamilyLatents  # noqa: PLC0415
    from node.engine.families.loading import (  # noqa: PLC0415
        best_device,
        open_model,
        weight_bytes,
    )

    device = best_device(setup.device)
    on_gpu = device.type == "cuda"

    def relieve() -> None:
        trim()
        if on_gpu:
            torch.cuda.empty_cache()

    def open_one(model: Model, on_progress: Callable[[float], None]) -> LoadedModel:
        with library.building:
            return open_model(
                Path(model.path),
                model.dtype,
                device,
                on_progress,
                setup.acceleration,
                library=library,
                scheduler=model.scheduler,
            )

    def lap() -> Lap:
        if on_gpu:
            stream = torch.cuda.current_stream(device)
            return EventLap(lambda: torch.cuda.Event(enable_timing=True), stream)
        return HostLap(time.monotonic, time.thread_time)

    name = torch.cuda.get_device_name(device) if on_gpu else device.type
    threads = torch.get_num_threads()
    parts = [name, f"{threads} threads", f"torch {torch.__version__}"]
    return Device(
        open_model=open_one,
        estimate=lambda model: weight_bytes(Path(model.path), model.dtype, device),
        budget=_budget(setup, torch.cuda.mem_get_info(device)[1] if on_gpu else None),
        # On a CPU, what left the device would still be in the same memory.
        rungs=(Rung.TILED, Rung.OFFLOADED) if on_gpu else (Rung.TILED,),
        relieve=relieve,
        stopwatch=lap,
        latents=FamilyLatents(),
        prepare_checker=lambda options: prepare_checker(options, str(device)),
        signature=", ".join([*parts, *([repr(setup.acceleration)] if on_gpu else [])]),
        hello=Hello(name, threads),
        on_gpu=on_gpu,
    )


def _budget(setup: Setup, device_bytes: int | None) -> Budget:
    """Return what the operator grants, and where they leave it to us, a share of what there is.

    `device_bytes` is None where the device has no memory of its own.
    """
    default = default_budget(device_bytes)
    device = default.device if setup.memory_budget is None else setup.memory_budget
    host = default.host if setup.host_memory_budget is None else setup.host_memory_budget
    return Budget(device, 0 if device_bytes is None else host)
