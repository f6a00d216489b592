"""What a worker did and held during a stretch of time: steps by batch size, seconds, memory."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import psutil
import pynvml

from node.engine.work import Tally
from scripts.benchmarks.raw_process import cpu_seconds

_BEAT_SECONDS = 1.2  # a heartbeat is at most so long away
_SAMPLE_SECONDS = 0.05


@dataclass(slots=True)
class Reading:
    """Filled in when the stretch is over. Bytes are the most there were."""

    batches: Counter[int] = field(default_factory=Counter)
    step_seconds: float = 0.0
    cpu_seconds: float = 0.0
    resident_bytes: int = 0
    device_bytes: int = 0

    @property
    def mean_batch(self) -> float:
        """Images in a step, on average over the steps."""
        steps = self.batches.total()
        return sum(size * count for size, count in self.batches.items()) / max(1, steps)


class Meter:
    """Reads one worker process. `device` is an NVML index, None on a CPU."""

    def __init__(
        self, tally: Callable[[], Tally], pid: Callable[[], int | None], device: int | None
    ) -> None:
        self._tally = tally
        self._pid = pid
        self._device = device

    async def settle(self) -> None:
        """Wait until the worker has told all that it did until now."""
        await asyncio.sleep(_BEAT_SECONDS)

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[Reading]:
        """Watch for the length of the block, and until all of it is told. Settle before."""
        reading = Reading()
        before, cpu = self._tally(), cpu_seconds(self._pid())
        sampling = asyncio.create_task(self._sample(reading))
        try:
            yield reading
            reading.cpu_seconds = cpu_seconds(self._pid()) - cpu
        finally:
            sampling.cancel()
            await asyncio.wait([sampling])
        await self.settle()
        after = self._tally()
        reading.batches = Counter(after.batches)
        reading.batches.subtract(before.batches)
        reading.batches = +reading.batches
        reading.step_seconds = after.step_seconds - before.step_seconds

    async def _sample(self, reading: Reading) -> None:
        process = psutil.Process(self._pid())
        while True:
            resident = int(process.memory_info().rss)
            reading.resident_bytes = max(reading.resident_bytes, resident)
            reading.device_bytes = max(reading.device_bytes, self._device_bytes())
            await asyncio.sleep(_SAMPLE_SECONDS)

    def _device_bytes(self) -> int:
        if self._device is None:
            return 0
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByIndex(self._device)
        processes = pynvml.nvmlDeviceGetComputeRunningProcesses(handle)
        return sum(one.usedGpuMemory or 0 for one in processes if one.pid == self._pid())
