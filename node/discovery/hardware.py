"""The machine's GPUs as the driver tells them; nothing where there is no driver."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import structlog

from network.runtime.clock import Clock
from network.wire.codec import Gpu

_FRESH_SECONDS: Final = 1.0

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class GpuReading:
    """A device and how busy it is, in percent."""

    gpu: Gpu
    utilization_compute: int
    utilization_memory: int


class Hardware:
    """Readings of NVML, at most one a second and never on the event loop."""

    def __init__(
        self, clock: Clock, read: Callable[[], tuple[GpuReading, ...]] | None = None
    ) -> None:
        self._clock = clock
        self._read = read or read_nvml
        self._lock = asyncio.Lock()
        self._readings: tuple[GpuReading, ...] = ()
        self._read_at: float | None = None

    @property
    def latest(self) -> tuple[GpuReading, ...]:
        """The last reading, from memory."""
        return self._readings

    async def refresh(self) -> tuple[GpuReading, ...]:
        """Read again unless that was done within the second."""
        async with self._lock:
            now = self._clock.monotonic()
            if self._read_at is None or now - self._read_at >= _FRESH_SECONDS:
                self._readings = await asyncio.to_thread(self._read)
                self._read_at = now
            return self._readings


def read_nvml() -> tuple[GpuReading, ...]:
    """Read every GPU; empty without NVIDIA's library, driver or device."""
    try:
        import pynvml  # noqa: PLC0415  part of the node's extra, absent on machines without a GPU
    except ImportError:
        return ()
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return ()
    try:
        return tuple(
            _reading(pynvml, pynvml.nvmlDeviceGetHandleByIndex(index))
            for index in range(pynvml.nvmlDeviceGetCount())
        )
    except pynvml.NVMLError as error:
        log.warning("cannot read the GPUs", error=str(error))
        return ()
    finally:
        pynvml.nvmlShutdown()


def _reading(nvml: Any, handle: Any) -> GpuReading:
    memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    major, minor = nvml.nvmlDeviceGetCudaComputeCapability(handle)
    try:
        use = nvml.nvmlDeviceGetUtilizationRates(handle)
        compute, transfer = int(use.gpu), int(use.memory)
    except nvml.NVMLError:  # a device split into MIG instances tells no utilization
        compute = transfer = 0
    gpu = Gpu(
        id=_text(nvml.nvmlDeviceGetUUID(handle)),
        name=_text(nvml.nvmlDeviceGetName(handle)),
        major=int(major),
        minor=int(minor),
        memory_free=int(memory.free),
        memory_total=int(memory.total),
    )
    return GpuReading(gpu, compute, transfer)


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
