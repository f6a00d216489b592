"""Requests and pixels a minute, of each key and of each team."""

from dataclasses import dataclass
from typing import Final, Literal, Protocol

from gateway.keys import Client, KeyGrant, UseLimits, called
from gateway.payments.rate import Bucket, Left
from network.errors import ProblemError
from network.runtime.clock import Clock
from network.units import Pixels
from network.wire import problems

_What = Literal["requests", "pixels"]
#: When there are so many counts, those that are as good as new are forgotten.
_MANY: Final = 10_000


@dataclass(frozen=True, slots=True)
class _Limit:
    holder: str
    called: str
    what: _What
    per_minute: int
    #: Whose count is kept with those of other addresses.
    client: Client | None = None


class Clients(Protocol):
    """Keeps the counts of addresses (`gateway.access.crowd.Crowd`)."""

    def bucket(self, client_id: str, what: str, per_minute: int, now: float) -> Bucket: ...


class Rates:
    """Kept in memory: a restart gives everybody a full minute."""

    def __init__(self, clock: Clock, clients: Clients | None = None) -> None:
        """`clients` where some have no keys, and are counted by address."""
        self._clock = clock
        self._clients = clients
        self._buckets: dict[tuple[str, _What], Bucket] = {}
        self._many = _MANY

    def take_request(self, grant: KeyGrant) -> Left | None:
        """Count a request in; of the tightest limit, what is left. Raises ProblemError 429."""
        now = self._clock.monotonic()
        lefts = [bucket.left(now) for bucket in self._take(_limits(grant, "requests"), 1, now)]
        return min(lefts, key=lambda left: left.remaining, default=None)

    def take_pixels(self, grant: KeyGrant, pixels: Pixels) -> None:
        """Raises ProblemError 429; 400 for more than there is in any minute."""
        self._take(_limits(grant, "pixels"), pixels, self._clock.monotonic())

    def check_pixels(self, grant: KeyGrant, pixels: Pixels) -> None:
        """Raise what `take_pixels` would, and take nothing."""
        self._checked(_limits(grant, "pixels"), pixels, self._clock.monotonic())

    def _take(self, limits: list[_Limit], amount: int, now: float) -> list[Bucket]:
        buckets = self._checked(limits, amount, now)
        for bucket in buckets:
            bucket.take(amount, now)
        return buckets

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
        if limit.client is not None and self._clients is not None:
            client_id = limit.client.client_id
            return self._clients.bucket(client_id, limit.what, limit.per_minute, now)
        name = (limit.holder, limit.what)
        bucket = self._buckets.get(name)
        if bucket is None or bucket.per_minute != limit.per_minute:
            if len(self._buckets) >= self._many:
                self._forget_unused(now)
            bucket = self._buckets[name] = Bucket(limit.per_minute, now)
        return bucket

    def _forget_unused(self, now: float) -> None:
        """Whose names another service gives out, there may be any number of."""
        self._buckets = {
            name: bucket for name, bucket in self._buckets.items() if bucket.left(now).reset
        }
        # Where most are in use, the next look waits until there are twice as many.
        self._many = max(_MANY, 2 * len(self._buckets))


def _limits(grant: KeyGrant, what: _What) -> list[_Limit]:
    found = [("key " + grant.key_id, called(grant.key_id), grant.limits)]
    if grant.team is not None:
        who = f"The team {grant.team.name!r} of this key"
        found.append(("team " + grant.team.name, who, grant.team.limits))
    limits = [
        _Limit(holder, who, what, per_minute)
        for holder, who, use in found
        if (per_minute := _per_minute(use, what)) is not None
    ]
    client = grant.client
    if client is not None:
        limits.append(
            _Limit(
                "client " + client.client_id,
                "Your address",
                what,
                client.requests_per_minute if what == "requests" else client.pixels_per_minute,
                client,
            )
        )
    return limits


def _per_minute(limits: UseLimits, what: _What) -> int | None:
    return limits.requests_per_minute if what == "requests" else limits.pixels_per_minute
