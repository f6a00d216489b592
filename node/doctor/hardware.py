"""Whether the GPUs, their driver and torch's build fit together. Torch is asked in a process of its own."""

import asyncio
import importlib.util
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import orjson

from network.findings import Finding, fail, ok, skip, warn
from node.discovery.hardware import GpuReading, read_nvml

_TORCH_SECONDS: Final = 10.0
_GIB: Final = 2**30
_CUDA: Final = "cuda"
_PROGRAM: Final = """
import json, torch
print(json.dumps({
    "version": torch.__version__,
    "cuda": torch.version.cuda or "",
    "devices": torch.cuda.device_count() if torch.cuda.is_available() else 0,
}))
"""


@dataclass(frozen=True, slots=True)
class TorchFacts:
    """What torch says of itself; `cuda` "" is a build without it. `problem` is why nothing is known."""

    version: str = ""
    cuda: str = ""
    devices: int = 0
    problem: str = ""
    #: It may be there, and was not asked to the end.
    is_unsure: bool = False


AskTorch = Callable[[], Awaitable[TorchFacts]]


async def look_at_hardware(device: str, ask: AskTorch) -> tuple[Finding, ...]:
    """Look at what `engine.device` would be."""
    readings, driver, torch = await asyncio.gather(
        asyncio.to_thread(read_nvml), asyncio.to_thread(driver_version), ask()
    )
    return (judge_gpus(readings, device, driver), judge_torch(torch, readings, device))


def driver_version() -> str:
    """Return NVIDIA's driver's; "" where there is none, or it does not tell. Blocks."""
    try:
        import pynvml  # noqa: PLC0415  as `read_nvml` does
    except ImportError:
        return ""
    try:
        pynvml.nvmlInit()
        told = pynvml.nvmlSystemGetDriverVersion()
        pynvml.nvmlShutdown()
    except pynvml.NVMLError:
        return ""
    return told.decode() if isinstance(told, bytes) else str(told)


def judge_gpus(readings: Sequence[GpuReading], device: str, driver: str = "") -> Finding:
    """Say whether the driver shows the device that is wanted."""
    what = "GPU"
    if not readings:
        if device.startswith(_CUDA):
            return fail(
                what,
                f"engine.device is {device}, and NVIDIA's driver shows no GPU",
                "install the driver (nvidia-smi shows whether it works), or in a container pass "
                "--gpus all",
            )
        advice = "" if device == "cpu" else "images are made on the CPU, which is slow"
        return skip(what, "none that NVIDIA's driver shows", advice)
    index = int(device.partition(":")[2] or 0)
    if device.startswith(_CUDA) and index >= len(readings):
        return fail(what, f"there is no {device}, only {len(readings)}", "correct engine.device")
    shown = ", ".join(
        f"{one.gpu.name} ({one.gpu.memory_free / _GIB:.1f} of "
        f"{one.gpu.memory_total / _GIB:.1f} GiB free)"
        for one in readings
    )
    return ok(what, f"{shown}, driver {driver}" if driver else shown)


def judge_torch(torch: TorchFacts, readings: Sequence[GpuReading], device: str) -> Finding:
    """Say whether torch can use the device that is wanted."""
    what = "PyTorch"
    if torch.is_unsure:
        return warn(what, torch.problem, "try again while the machine is less busy")
    if torch.problem:
        return fail(what, torch.problem, 'install limner with its extra "node": scripts/setup')
    build = f"{torch.version}, built for {f'CUDA {torch.cuda}' if torch.cuda else 'CPUs only'}"
    wants_gpu = device.startswith(_CUDA) or (device == "auto" and bool(readings))
    if not wants_gpu or torch.devices:
        return ok(what, build if not torch.devices else f"{build}, sees {torch.devices} GPU(s)")
    judge = fail if device.startswith(_CUDA) else warn
    if not torch.cuda:
        return judge(what, build, "install PyTorch's CUDA build, or set engine.device to cpu")
    return judge(
        what,
        f"{build}, and sees no GPU",
        f"the driver may be older than CUDA {torch.cuda} needs: update it",
    )


async def ask_torch(
    python: str = sys.executable, program: str = _PROGRAM, seconds: float = _TORCH_SECONDS
) -> TorchFacts:
    """Have another process import torch; it is killed when it takes too long. Raises nothing."""
    if importlib.util.find_spec("torch") is None:
        return TorchFacts(problem="it is not installed")
    try:
        process = await asyncio.create_subprocess_exec(
            python,
            "-c",
            program,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
    except OSError as error:
        return TorchFacts(problem=f"no process to ask it in: {error.strerror}")
    try:
        async with asyncio.timeout(seconds):
            told, complaint = await process.communicate()
    except TimeoutError:
        return TorchFacts(problem=f"importing it takes more than {seconds:g} s", is_unsure=True)
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
    try:
        found = orjson.loads(told)
        return TorchFacts(found["version"], found["cuda"], found["devices"])
    except (ValueError, KeyError, TypeError):
        last = complaint.decode("utf-8", "replace").strip().splitlines()[-1:]
        return TorchFacts(problem=f"it cannot be imported: {''.join(last)[:200]}")
