"""Whether a silent process is at something, as the system sees it from outside."""

from pathlib import Path
from typing import Final

#: Running or ready to run; in a wait that nothing interrupts, which is one for a disk.
_STIRRING: Final = frozenset({"R", "D"})


def is_stirring(pid: int) -> bool:
    """Tell whether any thread of a process runs, wants to, or waits for a disk.

    A stopped process does not stir, nor one whose threads all wait for one another. True where
    the system does not tell; blocks for as long as reading a few small files takes.
    """
    try:
        threads = list(Path(f"/proc/{pid}/task").iterdir())
    except OSError:
        return True
    return not threads or any(_state(thread) in _STIRRING for thread in threads)


def _state(thread: Path) -> str:
    try:
        # The name before it stands in parentheses and may hold anything.
        return (thread / "stat").read_text(errors="replace").rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return ""  # the thread ended meanwhile
