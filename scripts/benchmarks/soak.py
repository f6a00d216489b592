"""Gigabytes of images through the gateway, and what of them stays in its memory."""

import time
from dataclasses import dataclass

from scripts.benchmarks.ways import Case, Way

_READINGS = 20


@dataclass(frozen=True, slots=True)
class Soaked:
    """Resident megabytes after each twentieth of the images, the first reading before any."""

    image_bytes: int
    seconds: float
    resident_mb: tuple[float, ...]

    @property
    def growth_mb(self) -> float:
        """From a quarter of the way, when all pools and caches are filled, to the end."""
        return self.resident_mb[-1] - self.resident_mb[_READINGS // 4]


async def soak(way: Way, case: Case, total_bytes: int, image_bytes: int) -> Soaked:
    """Let images of `image_bytes` each pass through `way` until they come to `total_bytes`."""
    each = max(1, round(total_bytes / image_bytes / case.images / _READINGS))
    readings = [way.resident_mb()]
    load = way.load(case)
    started = time.perf_counter()
    for _ in range(_READINGS):
        await load.run(requests=each, connections=case.connections)
        readings.append(way.resident_mb())
    passed = each * _READINGS * case.images * image_bytes
    return Soaked(passed, time.perf_counter() - started, tuple(readings))
