"""What the operator's service said of bearers, for a while and in bounded memory. Pure.

Bearers are named by their digests; times are monotonic seconds.
"""

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from math import inf
from typing import Final

from gateway.access.verdict import Denied
from gateway.keys import KeyGrant

#: Of its time a grant is used before it is asked for anew, beside the request that uses it.
_USED_BEFORE_RENEWAL: Final = 0.8


@dataclass(frozen=True, slots=True)
class Keeping:
    """For how long answers count, in seconds."""

    grants: float
    refusals: float
    #: How long a grant counts on after its time, while the service cannot be asked.
    stale: float
    #: So many grants, and as many refusals.
    most: int


@dataclass(frozen=True, slots=True)
class Known:
    """A grant, and until when it counts."""

    grant: KeyGrant
    renew_at: float
    fresh_until: float
    stale_until: float


class Memory:
    """Refusals are kept apart from grants: guesses must not push out keys that are good."""

    def __init__(self, keeping: Keeping) -> None:
        self._keeping = keeping
        self._grants: OrderedDict[bytes, Known] = OrderedDict()
        self._refusals: OrderedDict[bytes, tuple[Denied, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._grants)

    def grants(self) -> Iterator[KeyGrant]:
        """Each identity's once, however many bearers it has."""
        return iter({one.grant.key_id: one.grant for one in self._grants.values()}.values())

    def grant(self, digest: bytes, now: float) -> Known | None:
        """What is known, fresh or stale."""
        known = self._grants.get(digest)
        if known is None:
            return None
        if now >= known.stale_until:
            del self._grants[digest]
            return None
        self._grants.move_to_end(digest)
        return known

    def refusal(self, digest: bytes, now: float) -> Denied | None:
        denied, until = self._refusals.get(digest, (None, 0.0))
        if denied is not None and now >= until:
            del self._refusals[digest]
            return None
        return denied

    def allow(self, digest: bytes, grant: KeyGrant, now: float, most: float = inf) -> None:
        """`most` is for how many seconds the service lets its word count."""
        keeping = self._keeping
        fresh = min(keeping.grants, most)
        self._refusals.pop(digest, None)
        self._grants[digest] = Known(
            grant,
            renew_at=now + fresh * _USED_BEFORE_RENEWAL,
            fresh_until=now + fresh,
            stale_until=now + fresh + keeping.stale,
        )
        self._grants.move_to_end(digest)
        while len(self._grants) > keeping.most:
            self._grants.popitem(last=False)

    def deny(self, digest: bytes, denied: Denied, now: float) -> None:
        """The service's word ends what it granted before."""
        self._grants.pop(digest, None)
        self._refusals[digest] = (denied, now + self._keeping.refusals)
        self._refusals.move_to_end(digest)
        while len(self._refusals) > self._keeping.most:
            self._refusals.popitem(last=False)
