"""What happened in the last hours, counted in bins of time: enough for charts, bounded for ever. Pure.

Money is summed exactly. Times are kept by their order of magnitude: a percentile is within 10 % of the
true one. What happens is counted once, into the finest bin; when that is over, it is added to the coarser ones.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from math import floor, log2
from typing import Any, Final

#: Seconds of the finest bin.
SLOT: Final = 15
#: What may be looked at, in seconds, each in sixty bins.
SPANS: Final = {900: SLOT, 3600: 60, 21_600: 360}

_BINS: Final = 61
#: Distinct reasons of one bin; what comes after is counted together.
_MOST_REASONS: Final = 24
_OTHER: Final = "other"
#: Steps by which durations are told apart, for each doubling.
_STEPS: Final = 4
#: Shorter ones count as this (seconds).
_SHORTEST: Final = 1e-4


@dataclass(slots=True)
class _Bin:
    #: Unix seconds of its beginning.
    at: int
    good: int = 0
    money: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    #: Good ones by the order of magnitude of their duration.
    durations: dict[int, int] = field(default_factory=dict)

    def note(self, reason: str, times: int = 1) -> None:
        reasons = self.reasons
        if reason not in reasons and len(reasons) >= _MOST_REASONS:
            reason = _OTHER
        reasons[reason] = reasons.get(reason, 0) + times

    def add(self, other: "_Bin") -> None:
        self.good += other.good
        self.money += other.money
        for reason, times in other.reasons.items():
            self.note(reason, times)
        durations = self.durations
        for step, times in other.durations.items():
            durations[step] = durations.get(step, 0) + times

    def as_json(self) -> dict[str, Any]:
        frequent = sorted(self.reasons.items(), key=lambda pair: -pair[1])
        return {
            "at": self.at,
            "good": self.good,
            "bad": sum(self.reasons.values()),
            "wei": str(self.money),
            "reasons": dict(frequent),
            "p50": _percentile(self.durations, 50),
            "p99": _percentile(self.durations, 99),
        }


class History:
    """Times are Unix seconds; a clock that goes back counts into the latest bin."""

    def __init__(self) -> None:
        self._open: _Bin | None = None
        self._closed: dict[int, deque[_Bin]] = {
            width: deque(maxlen=_BINS) for width in SPANS.values()
        }

    def good(self, now: float, seconds: float, money: int) -> None:
        """Something was delivered in `seconds` for `money` wei."""
        found = self._at(now)
        found.good += 1
        found.money += money
        step = _step(seconds)
        found.durations[step] = found.durations.get(step, 0) + 1

    def bad(self, now: float, reason: str) -> None:
        """Something was refused, or failed; `reason` is one of not many words."""
        self._at(now).note(reason)

    def told(self, now: float, span: int) -> dict[str, Any]:
        """The last `span` seconds, one of SPANS, as JSON: bins with something in them, oldest first."""
        width = SPANS[span]
        until = (int(now) // width + 1) * width
        since = until - span
        bins = [one for one in self._with_open(width) if since <= one.at < until]
        return {
            "since": since,
            "until": until,
            "bin_seconds": width,
            "bins": [one.as_json() for one in bins],
            "whole": _together(since, bins).as_json(),
        }

    def _at(self, now: float) -> _Bin:
        at = int(now) // SLOT * SLOT
        if self._open is None or self._open.at < at:
            self._close()
            self._open = _Bin(at)
        return self._open

    def _close(self) -> None:
        if self._open is None:
            return
        for width, bins in self._closed.items():
            at = self._open.at // width * width
            if not bins or bins[-1].at < at:
                bins.append(_Bin(at))
            bins[-1].add(self._open)

    def _with_open(self, width: int) -> list[_Bin]:
        bins = list(self._closed[width])
        if self._open is not None:
            at = self._open.at // width * width
            same = [bins.pop()] if bins and bins[-1].at == at else []
            bins.append(_together(at, [*same, self._open]))
        return bins


def _together(at: int, bins: Iterable[_Bin]) -> _Bin:
    found = _Bin(at)
    for one in bins:
        found.add(one)
    return found


def _step(seconds: float) -> int:
    return floor(log2(max(seconds, _SHORTEST)) * _STEPS)


def _percentile(durations: dict[int, int], percent: int) -> float | None:
    """Seconds; None of nothing."""
    rank = -(-sum(durations.values()) * percent // 100)
    for step in sorted(durations):
        rank -= durations[step]
        if rank <= 0:
            # In the middle of its step, by ratio.
            return float(f"{2 ** ((step + 0.5) / _STEPS):.4g}")
    return None
