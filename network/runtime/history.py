"""What happened in the last hours, counted in slots of time: enough for charts, bounded for ever. Pure.

Money is summed exactly. Times are kept by their order of magnitude: a percentile is within 10 % of the
true one.
"""

from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from math import floor, log2
from typing import Any, Final

#: Seconds of one slot, and how many are kept: six hours.
SLOT: Final = 15
SLOTS: Final = 1440
#: What may be looked at, in seconds, each in about sixty bins.
SPANS: Final = {900: 15, 3600: 60, 21_600: 360}

#: Distinct reasons of one slot; what comes after is counted together.
_MOST_REASONS: Final = 24
_OTHER: Final = "other"
#: Steps by which durations are told apart, for each doubling.
_STEPS: Final = 4
#: Shorter ones count as this (seconds).
_SHORTEST: Final = 1e-4


@dataclass(slots=True)
class _Slot:
    number: int
    good: int = 0
    money: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    #: Good ones by the order of magnitude of their duration.
    durations: Counter[int] = field(default_factory=Counter)


class History:
    """Times are Unix seconds; a clock that goes back counts into the latest slot."""

    def __init__(self) -> None:
        self._slots: deque[_Slot] = deque(maxlen=SLOTS)

    def good(self, now: float, seconds: float, money: int) -> None:
        """Something was delivered in `seconds` for `money` wei."""
        slot = self._at(now)
        slot.good += 1
        slot.money += money
        slot.durations[_step(seconds)] += 1

    def bad(self, now: float, reason: str) -> None:
        """Something was refused, or failed; `reason` is one of not many words."""
        reasons = self._at(now).reasons
        if reason not in reasons and len(reasons) >= _MOST_REASONS:
            reason = _OTHER
        reasons[reason] += 1

    def told(self, now: float, span: int) -> dict[str, Any]:
        """The last `span` seconds, one of SPANS, as JSON: bins with something in them, oldest first."""
        width = SPANS[span]
        until = (int(now) // width + 1) * width
        since = until - span
        bins: dict[int, list[_Slot]] = {}
        for slot in self._slots:
            began = slot.number * SLOT
            if since <= began < until:
                bins.setdefault(began // width * width, []).append(slot)
        return {
            "since": since,
            "until": until,
            "bin_seconds": width,
            "bins": [{"at": at, **_together(slots)} for at, slots in bins.items()],
            "whole": _together([slot for slots in bins.values() for slot in slots]),
        }

    def _at(self, now: float) -> _Slot:
        number = int(now) // SLOT
        if not self._slots or self._slots[-1].number < number:
            self._slots.append(_Slot(number))
        return self._slots[-1]


def _together(slots: Iterable[_Slot]) -> dict[str, Any]:
    good = money = 0
    reasons, durations = Counter[str](), Counter[int]()
    for slot in slots:
        good += slot.good
        money += slot.money
        reasons.update(slot.reasons)
        durations.update(slot.durations)
    return {
        "good": good,
        "bad": reasons.total(),
        "wei": str(money),
        "reasons": dict(reasons.most_common()),
        "p50": _percentile(durations, 50),
        "p99": _percentile(durations, 99),
    }


def _step(seconds: float) -> int:
    return floor(log2(max(seconds, _SHORTEST)) * _STEPS)


def _percentile(durations: Counter[int], percent: int) -> float | None:
    """Seconds; None of nothing."""
    rank = -(-durations.total() * percent // 100)
    for step in sorted(durations):
        rank -= durations[step]
        if rank <= 0:
            # In the middle of its step, by ratio.
            return float(f"{2 ** ((step + 0.5) / _STEPS):.4g}")
    return None
