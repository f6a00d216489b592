"""How often a key may look for jobs that are not under way: each look reads the database. Pure."""

from collections import OrderedDict
from typing import Final

from gateway.payments.rate import Bucket
from network.errors import ProblemError
from network.wire import problems

#: Ten jobs that are over can be looked at every second.
PER_MINUTE: Final = 600
#: Keys that are counted; of more, whoever looked longest ago has everything again.
_MOST: Final = 10_000


class Looks:
    """One per gateway; what is under way is looked at in memory, and is not counted."""

    def __init__(self) -> None:
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, owner: str, now: float) -> None:
        """`now` in monotonic seconds. Raises ProblemError 429."""
        bucket = self._buckets.get(owner)
        if bucket is None:
            bucket = self._buckets[owner] = Bucket(PER_MINUTE, now)
            if len(self._buckets) > _MOST:
                self._buckets.popitem(last=False)
        self._buckets.move_to_end(owner)
        wait = bucket.wait(1, now)
        if wait > 0:
            message = f"You may look {PER_MINUTE} times a minute for jobs that are not under way."
            raise ProblemError(problems.rate_limited(wait, message, bucket.left(now).headers()))
        bucket.take(1, now)
