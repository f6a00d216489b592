"""How many failed attempts may be followed by others, over all requests. Pure.

Where everybody fails, as in an outage of what they share, trying each request at several of them
multiplies the load on those that still work.
"""

from typing import Final

#: Seconds in which the spare retries come back where there are no requests.
_REFILL: Final = 60.0


class RetryBudget:
    """A share of the requests may be retried, and some more at a time.

    `spare` are those more: one orchestrator that dies takes all its jobs with it, and these should
    be delivered by others.
    """

    def __init__(self, share: float, spare: int) -> None:
        self._share = share
        self._spare = spare
        self._most = max(float(spare), 1.0)
        self._left = float(spare)
        self._counted_at = float("-inf")

    def earn(self) -> None:
        """A request came."""
        self._left = min(self._left + self._share, self._most)

    def spend(self, now: float) -> bool:
        """Whether one failed attempt more may be followed by another; `now` is monotonic seconds."""
        passed = min(now - self._counted_at, _REFILL)
        self._counted_at = now
        self._left = min(self._left + self._spare * passed / _REFILL, self._most)
        if self._left < 1:
            return False
        self._left -= 1
        return True
