"""Requests and pixels a minute, of each key and of each team."""

from dataclasses import dataclass
from typing import Literal

from gateway.keys import KeyGrant, UseLimits
from gateway.payments.rate import Bucket, Left
from network.errors import ProblemError
from network.runtime.clock import Clock
from network.units import Pixels
from network.wire import problems

_What = Literal["requests", "pixels"]


@dataclass(frozen=True, slots=True)
class _Limit:
    holder: str
    called: str
    what: _What
    per_minute: int


class Rates:
    """Kept in memory: a restart gives everybody a full minute."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._buckets: dict[tuple[str, _What], Bucket] = {}

    def take_request(self, grant: KeyGrant) -> Left | None:
        """Count a request in; of the tightest limit, what is left. Raises ProblemError 429."""
        return self._take(_limits(grant, "requests"), 1)

    def take_pixels(self, grant: KeyGrant, pixels: Pixels) -> None:
        """Raises ProblemError 429; 400 for more than there is in any minute."""
        self._take(_limits(grant, "pixels"), pixels)

    def check_pixels(self, grant: KeyGrant, pixels: Pixels) -> None:
        """Raise what `take_pixels` would, and take nothing."""
        self._checked(_limits(grant, "pixels"), pixels, self._clock.monotonic())

    def _take(self, limits: list[_Limit], amount: int) -> Left | None:
        now = self._clock.monotonic()
        lefts = [bucket.take(amount, now) for bucket in self._checked(limits, amount, now)]
        return min(lefts, key=lambda left: left.remaining, default=None)

    def _checked(self, limits: list[_Limit], amount: int, now: float) -> list[Bucket]:
        """The buckets of the limits, each of which has so much. Raises ProblemError."""
        buckets = [self._bucket(limit, now) for limit in limits]
        # All of them allow it, or none is charged.
        for limit, bucket in zip(limits, buckets, strict=True):
            if amount > limit.per_minute:
                message = (
                    f"{limit.called} may use {limit.per_minute} {limit.what} a minute; "
                    f"this request alone needs {amount}."
                )
                raise ProblemError(problems.bad_request(message, "above_rate_limit"))
            wait = bucket.wait(amount, now)
            if wait > 0:
                message = f"{limit.called} may use {limit.per_minute} {limit.what} a minute."
                raise ProblemError(
                    problems.rate_limited(wait, message, bucket.left(now).headers())
                )
        return buckets

    def _bucket(self, limit: _Limit, now: float) -> Bucket:
        name = (limit.holder, limit.what)
        bucket = self._buckets.get(name)
        if bucket is None or bucket.per_minute != limit.per_minute:
            bucket = self._buckets[name] = Bucket(limit.per_minute, now)
        return bucket


def _limits(grant: KeyGrant, what: _What) -> list[_Limit]:
    found = [("key " + grant.key_id, "This key", grant.limits)]
    if grant.team is not None:
        called = f"The team {grant.team.name!r} of this key"
        found.append(("team " + grant.team.name, called, grant.team.limits))
    return [
        _Limit(holder, called, what, per_minute)
        for holder, called, limits in found
        if (per_minute := _per_minute(limits, what)) is not None
    ]


def _per_minute(limits: UseLimits, what: _What) -> int | None:
    return limits.requests_per_minute if what == "requests" else limits.pixels_per_minute
