"""Rules that tell a living worker from a hung one, and say when to start the next. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from node.engine.protocol import Activity

#: Activities in which C code (the dynamic loader, a slow disk behind a memory map) may hold the
#: interpreter lock for long, so that even the heartbeat thread falls silent.
QUIET_ACTIVITIES = frozenset({"starting", "loading"})
QUIET_SECONDS = 60.0
#: How many times the usual silence is forgiven while the system says that the process runs: on a
#: machine that others keep busy, its heartbeat may just not get its turn.
_STIRRING_PATIENCE = 3.0


@dataclass(frozen=True, slots=True)
class Signs:
    """What is known of a worker: when it was last heard of and what it was at then.

    `stirred_at` is when one of its threads was last seen to run or to wait for a disk.
    """

    heard_at: float
    activities: Sequence[Activity]
    stirred_at: float


def hang_reason(signs: Signs, now: float, hang_after: float) -> str | None:
    """Say why the worker must be taken for hung; None while it may be healthy.

    Two ways to hang: the whole process is silent (stopped, deadlocked under the interpreter
    lock), or it still beats while one thread is at the same thing for longer than that may take.
    """
    silence = now - signs.heard_at
    stillness = now - max(signs.heard_at, signs.stirred_at)
    quiet = any(activity.name in QUIET_ACTIVITIES for activity in signs.activities)
    patience = max(_STIRRING_PATIENCE * hang_after, QUIET_SECONDS if quiet else 0.0)
    if stillness > hang_after or silence > patience:
        return f"no sign of life for {silence:.1f} s"
    for activity in signs.activities:
        if activity.age > activity.allowed + hang_after:
            return f"{activity.name} for {activity.age:.1f} s, {activity.allowed:.1f} s allowed"
    return None


def step_allowance(expected: float | None, longest: float) -> float:
    """Return how long a denoise step may take (seconds) before it counts as hung.

    `expected` is what the model's measured pace says; without one only the ceiling is known. The
    factor leaves room for a machine that others use as well, and is small enough to find a step
    of half a second hung within ten.
    """
    return longest if expected is None else min(longest, 8.0 * expected + 1.0)


def restart_delay(crashes: int, base: float, cap: float) -> float:
    """Return the pause before a start that follows `crashes` crashes in a row: none after one."""
    if crashes <= 1:
        return 0.0
    return float(min(cap, base * 2.0 ** min(crashes - 2, 32)))
