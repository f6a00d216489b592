"""How much each of many addresses used in this minute, in bounded memory. Pure.

Whoever has many addresses must gain nothing by them: not our memory, and not that somebody's count, their own
or another's, is forgotten while it still limits anything.
"""

from collections import OrderedDict
from typing import Final

from gateway.payments.rate import Bucket

#: Seconds after which any bucket is full again, and says nothing that a new one would not.
_FULL_AFTER: Final = 60.0
#: Counts that those share who come while the table is full.
_SHARED: Final = 256


class Crowd:
    """The counts of addresses.

    An address that was not heard of for a minute has everything again, so its entry can go; no other
    ever goes. While there is no room, newcomers share a few counts, picked by their ids. These are drawn
    by a secret, so that nobody can choose with whom to share.
    """

    def __init__(self, most: int) -> None:
        """`most` addresses have a count of their own."""
        self._most = most
        #: The one that was heard of longest ago is the first.
        self._own: OrderedDict[str, _Entry] = OrderedDict()
        self._shared = [_Entry() for _ in range(_SHARED)]

    def __len__(self) -> int:
        return len(self._own)

    def bucket(self, client_id: str, what: str, per_minute: int, now: float) -> Bucket:
        """Where a client's use of `what` is counted; `client_id` in hex, `now` in monotonic seconds."""
        entry = self._entry(client_id, now)
        bucket = entry.buckets.get(what)
        if bucket is None:
            bucket = entry.buckets[what] = Bucket(per_minute, now)
            if entry.before is not None and what in entry.before.buckets:
                # What it used while it shared a count must not be forgotten now that it has its own.
                left = entry.before.buckets[what].left(now).remaining
                bucket.take(per_minute - left, now)
        return bucket

    def _entry(self, client_id: str, now: float) -> "_Entry":
        self._forget(now)
        entry = self._own.get(client_id)
        shared = self._shared[int(client_id, 16) % _SHARED]
        if entry is None:
            if len(self._own) >= self._most:
                return shared
            entry = self._own[client_id] = _Entry(shared)
        else:
            self._own.move_to_end(client_id)
        entry.seen = now
        return entry

    def _forget(self, now: float) -> None:
        while self._own:
            client_id, entry = next(iter(self._own.items()))
            if now - entry.seen < _FULL_AFTER:
                return
            del self._own[client_id]


class _Entry:
    __slots__ = ("before", "buckets", "seen")

    def __init__(self, before: "_Entry | None" = None) -> None:
        self.buckets: dict[str, Bucket] = {}
        #: Where it counted before it had an entry.
        self.before = before
        self.seen = 0.0
