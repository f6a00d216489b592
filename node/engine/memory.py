"""The worker process's memory, as Linux sees it. Does nothing where there is no glibc."""

import ctypes
import os
from pathlib import Path

from node.engine.residency import Budget

_STATM = Path("/proc/self/statm")
#: A container's limit by control groups, version 2 and 1.
_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)
#: The rest of a device is for what steps and decoding need beside the weights: at 1024 pixels a
#: few GiB. The rest of the host's is for the system, its file cache and the node.
_DEVICE_SHARE = 0.7
_HOST_SHARE = 0.5


def resident_bytes() -> int:
    """Return the resident set in bytes; 0 where the system does not tell."""
    try:
        pages = int(_STATM.read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def host_bytes() -> int:
    """Return how much memory this process may have at most: the machine's, or the container's."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for limit in _LIMITS:
        try:
            return min(total, int(limit.read_text(encoding="ascii")))
        except (OSError, ValueError):
            continue  # not there, or "max"
    return total


def default_budget(device_bytes: int | None) -> Budget:
    """Return how much weights may take where nobody says; None: the device is the CPU."""
    host = int(_HOST_SHARE * host_bytes())
    return (
        Budget(host) if device_bytes is None else Budget(int(_DEVICE_SHARE * device_bytes), host)
    )


def trim() -> None:
    """Give freed memory back to the system: glibc keeps what a large decode has used."""
    try:
        libc = ctypes.CDLL(None)
        libc.malloc_trim(0)
    except (OSError, AttributeError):
        return
