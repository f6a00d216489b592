"""Whether processes and threads are at something, as the system sees it from outside."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from node.engine.liveness import Pulse

#: Running or ready to run; in a wait that nothing interrupts, which is one for a disk.
_STIRRING: Final = frozenset({"R", "D"})
_STATE, _MAJOR_FAULTS, _USER_TIME, _SYSTEM_TIME = 0, 9, 11, 12  # fields behind a thread's name
_MOST_CHILDREN: Final = 256


def is_stirring(pid: int) -> bool:
    """Tell whether any thread of a process runs, wants to, or waits for a disk.

    A stopped process does not stir, nor one whose threads all wait for one another. True where
    the system does not tell; blocks for as long as reading a few small files takes.
    """
    try:
        threads = list(Path(f"/proc/{pid}/task").iterdir())
    except OSError:
        return True
    return not threads or any(_fields(thread)[_STATE] in _STIRRING for thread in threads)


def thread_pulse(thread_id: int) -> Pulse | None:
    """Return what the system says of one of this process's threads, by its native id."""
    fields = _fields(Path(f"/proc/self/task/{thread_id}"))
    try:
        ticks = int(fields[_USER_TIME]) + int(fields[_SYSTEM_TIME])
        faults = int(fields[_MAJOR_FAULTS])
    except (IndexError, ValueError):
        return None
    return Pulse(ticks / os.sysconf("SC_CLK_TCK"), faults, fields[_STATE] in _STIRRING)


def stirring_threads() -> frozenset[int]:
    """Return the native ids of this process's threads that run, want to, or wait for a disk."""
    try:
        threads = list(Path("/proc/self/task").iterdir())
    except OSError:
        return frozenset()
    return frozenset(int(one.name) for one in threads if _fields(one)[_STATE] in _STIRRING)


def children_stir() -> bool:
    """Tell whether a process that this one started is at something: a compiler, say."""
    return any(is_stirring(pid) for pid in _descendants(os.getpid()))


def _descendants(pid: int) -> Iterator[int]:
    waiting = [pid]
    for _ in range(_MOST_CHILDREN):
        if not waiting:
            return
        parent = waiting.pop()
        for children in Path(f"/proc/{parent}/task").glob("*/children"):
            with suppress(OSError):
                found = [int(child) for child in children.read_text(encoding="ascii").split()]
                waiting += found
                yield from found


def _fields(thread: Path) -> list[str]:
    try:
        # The name before them stands in parentheses and may hold anything.
        return (thread / "stat").read_text(errors="replace").rpartition(")")[2].split() or [""]
    except OSError:
        return [""]  # the thread ended meanwhile
