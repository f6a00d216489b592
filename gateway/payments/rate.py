"""So much a minute, evenly or at once. Pure."""

from math import ceil

import msgspec


class Left(msgspec.Struct, frozen=True):
    """Of `limit` there is `remaining`; in `reset` seconds there is all of it again."""

    limit: int
    remaining: int
    reset: float

    def headers(self) -> dict[str, str]:
        """As in the older drafts of draft-ietf-httpapi-ratelimit-headers, which clients read."""
        return {
            "RateLimit-Limit": str(self.limit),
            "RateLimit-Remaining": str(self.remaining),
            "RateLimit-Reset": str(ceil(self.reset)),
        }


class Bucket:
    """Fills by `per_minute` in a minute, and holds no more than that. Times are monotonic seconds."""

    def __init__(self, per_minute: int, now: float) -> None:
        self.per_minute = per_minute
        self._level = float(per_minute)
        self._at = now

    def wait(self, amount: int, now: float) -> float:
        """Seconds until `amount` could be taken; 0 for now."""
        self._fill(now)
        return max(0.0, amount - self._level) * 60 / self.per_minute

    def take(self, amount: int, now: float) -> None:
        """Take what `wait` allows."""
        self._fill(now)
        self._level = max(0.0, self._level - amount)

    def left(self, now: float) -> Left:
        self._fill(now)
        return Left(
            self.per_minute,
            int(self._level),
            (self.per_minute - self._level) * 60 / self.per_minute,
        )

    def _fill(self, now: float) -> None:
        if now <= self._at:
            return
        gained = (now - self._at) * self.per_minute / 60
        self._level = min(self.per_minute, self._level + gained)
        self._at = now
