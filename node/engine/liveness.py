"""Rules that tell a living worker from a hung one, and say when to start the next. Pure.

What tells a hung worker from a slow one is seldom the clock: a first step of a large model, a
machine that swaps or one that others keep busy may take any time. A thread that hangs in a lock
or a sleep gets no processor time, waits for no disk, and does not even want to run. One that runs
in circles gets more processor time than its work ever took.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from node.engine.protocol import Activity

#: In such activities C code (the dynamic loader, a slow disk behind a memory map) may hold the
#: interpreter lock for long, so that even the heartbeat thread falls silent; and file systems
#: behind a network may leave a thread waiting for long.
QUIET_SECONDS: Final = 60.0
STILL_READING_SECONDS: Final = 30.0
#: How many times the usual silence is forgiven while the system says that the process runs: on a
#: machine that others keep busy, its heartbeat may just not get its turn.
_STIRRING_PATIENCE: Final = 3.0
#: How many times its usual effort a piece of work may take before it is taken for running in
#: circles. The first one of a process also builds what the later ones find: caches, kernels.
_EFFORT_FACTOR: Final = 4.0
_FIRST_EFFORT_FACTOR: Final = 16.0
#: How many times longer a thread may stand still while others stir that may work for it: where
#: its work is known to be small, and where nothing is known.
_HELPED_FACTOR: Final = 2.0
_HELPED_FACTOR_UNKNOWN: Final = 10.0
#: Seconds that a GPU's queue may hold of others' work before it comes to a thread's own.
_QUEUE_SECONDS: Final = 4.0


@dataclass(frozen=True, slots=True)
class Signs:
    """What is known of a worker: when it was last heard of and what it was at then.

    `stirred_at` is when one of its threads was last seen to run or to wait for a disk.
    """

    heard_at: float
    activities: Sequence[Activity]
    stirred_at: float


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds. `hang_after` is for the silence of the process and for effort beyond its limit;
    `still_after` for a thread at work that shows no sign of life.
    """

    hang_after: float
    still_after: float


def hang_reason(signs: Signs, now: float, patience: Patience) -> str | None:
    """Say why the worker must be taken for hung; None while it may be healthy.

    Either the whole process is silent (stopped, deadlocked under the interpreter lock), or it
    still beats while one of its threads hangs.
    """
    silence = now - signs.heard_at
    stillness = now - max(signs.heard_at, signs.stirred_at)
    quiet = any(activity.kind == "read" for activity in signs.activities)
    longest = max(_STIRRING_PATIENCE * patience.hang_after, QUIET_SECONDS if quiet else 0.0)
    if stillness > patience.hang_after or silence > longest:
        return f"no sign of life for {silence:.1f} s"
    reasons = (_activity_hangs(activity, patience) for activity in signs.activities)
    return next((reason for reason in reasons if reason is not None), None)


def _activity_hangs(activity: Activity, patience: Patience) -> str | None:
    if _stands_still(activity, patience):
        return f"{activity.name}, and its thread stands still for {activity.still:.1f} s"
    if activity.limit is not None and activity.effort > activity.limit + patience.hang_after:
        return (
            f"{activity.name} took {activity.effort:.1f} s of work; {activity.limit:.1f} s are "
            "beyond all that it took before"
        )
    if activity.age > activity.allowed + patience.hang_after:
        return f"{activity.name} for {activity.age:.1f} s, {activity.allowed:.1f} s allowed"
    return None


def _stands_still(activity: Activity, patience: Patience) -> bool:
    match activity.kind:
        case "work":
            return (
                activity.still - activity.helped > patience.still_after
                or activity.still > _still_though_helped(activity, patience)
            )
        case "read":
            return activity.still > max(patience.still_after, STILL_READING_SECONDS)
        case "wait":
            return False  # for another thread, which has an activity of its own


def _still_though_helped(activity: Activity, patience: Patience) -> float:
    """Return how long a thread may stand still while others stir that may work for it.

    It may have done its share of a large convolution and wait for those that share a busy core,
    but no longer than such work can take. Or they work for another thread, and it hangs.
    """
    if activity.limit is None:
        return _HELPED_FACTOR_UNKNOWN * patience.still_after
    return max(_HELPED_FACTOR * patience.still_after, activity.limit)


def effort_limit(usual: float | None, *, done_here: bool, on_gpu: bool) -> float | None:
    """Return the effort (seconds) beyond which work must be running in circles; None: any.

    `usual` is the most it took of late, on this machine; `done_here`: by this process, too. On a
    GPU the first work of a kind may compile code, and has no limit.
    """
    if usual is None:
        return None
    if not on_gpu:
        return usual * (_EFFORT_FACTOR if done_here else _FIRST_EFFORT_FACTOR)
    return usual * _EFFORT_FACTOR + _QUEUE_SECONDS if done_here else None


@dataclass(frozen=True, slots=True)
class Pulse:
    """What the system says of a thread: its processor seconds, what it had the disk fetch into
    memory, and whether it runs, wants to, or waits for a disk right now.
    """

    used: float
    faults: int
    stirring: bool


def is_still(before: Pulse | None, now: Pulse | None) -> bool:
    """Tell whether a thread showed no sign of life between two looks at it.

    Where the system does not tell, it is not claimed.
    """
    if before is None or now is None or now.stirring:
        return False
    return (before.used, before.faults) == (now.used, now.faults)


def restart_delay(crashes: int, base: float, cap: float) -> float:
    """Return the pause before a start that follows `crashes` crashes in a row: none after one."""
    if crashes <= 1:
        return 0.0
    return float(min(cap, base * 2.0 ** min(crashes - 2, 32)))
