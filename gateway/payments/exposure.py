"""What we may have to pay for tickets that are out, over all orchestrators; and how much goes out. Pure.

Every orchestrator sees its own tickets only, while one deposit stands behind all of them. So it is the
payer who has to count. What tickets are worth is counted against the deposit until they expire; what goes out in
an hour is bounded for the gateway, for one client's key and for one orchestrator.
"""

import itertools
import math
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

from network.units import Address, Wei

HOUR: Final = 3600.0
#: Seconds that are counted together, and expire together.
_BUCKET: Final = 10
_BUCKETS: Final = int(HOUR) // _BUCKET


class Cap(Enum):
    """What may stand in a payment's way, in words for the operator."""

    GATEWAY_HOUR = "what the gateway may pay in an hour (payments.max_wei_per_hour)"
    KEY_HOUR = "what one key may spend in an hour (payments.max_wei_per_hour_per_key)"
    ORCHESTRATOR_HOUR = (
        "what one orchestrator may be paid in an hour (payments.max_wei_per_hour_per_orchestrator)"
    )
    DEPOSIT = "the deposit, against what tickets that have not expired are worth"
    FACE_VALUE = "what tickets that have not expired could cost if all of them won (payments.max_face_value)"


@dataclass(frozen=True, slots=True)
class Caps:
    """In wei; None stands for no cap."""

    per_hour: Wei | None = None
    per_hour_and_key: Wei | None = None
    per_hour_and_orchestrator: Wei | None = None
    #: The face values together of all tickets that have not expired.
    face_value: Wei | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """The tickets of one attempt."""

    attempt_id: str
    key_id: str
    recipient: Address
    #: What they are worth and what they would cost if all won, in wei.
    value: Wei
    face_value: Wei
    creation_round: int
    #: Unix seconds.
    made_at: float


@dataclass(frozen=True, slots=True)
class CapReached:
    """A batch that may not go out; nothing was counted."""

    cap: Cap
    limit: Wei
    #: Unix seconds from which there is room again.
    frees_at: float | None = None
    #: Or so many rounds from now, when the oldest tickets expire. Where both are None, time does
    #: not help.
    frees_in_rounds: int | None = None


@dataclass(frozen=True, slots=True)
class Outstanding:
    """Tickets that may still be redeemed, in wei."""

    value: Wei
    face_value: Wei


class _LastHour:
    """The sum of an hour, kept so that neither adding nor asking looks at all of it."""

    __slots__ = ("_buckets", "_total")

    def __init__(self) -> None:
        #: By tens of seconds, the oldest first.
        self._buckets: dict[int, int] = {}
        self._total = 0

    def sum(self, now: float) -> int:
        oldest = _bucket(now) - _BUCKETS
        for bucket in list(itertools.takewhile(lambda bucket: bucket <= oldest, self._buckets)):
            self._total -= self._buckets.pop(bucket)
        return self._total

    def add(self, amount: int, at: float) -> None:
        bucket = _bucket(at)
        self._buckets[bucket] = self._buckets.get(bucket, 0) + amount
        self._total += amount

    def take_back(self, amount: int, at: float) -> None:
        """An amount that was added at that time; what no longer counts is gone already."""
        if _bucket(at) in self._buckets:
            self.add(-amount, at)

    def frees_at(self, room: int) -> float | None:
        """When no more than `room` is left of what counts now; None for never."""
        left = self._total
        for bucket, amount in self._buckets.items():
            left -= amount
            if left <= room:
                return float((bucket + _BUCKETS) * _BUCKET)
        return None


class Exposure:
    """Counts batches of tickets from before they are signed."""

    def __init__(self, caps: Caps) -> None:
        self._caps = caps
        self._hours: dict[Hashable, _LastHour] = {}
        #: By creation round.
        self._value: Counter[int] = Counter()
        self._face_value: Counter[int] = Counter()
        #: Those of attempts under way, which may turn out not to have been sent.
        self._open: dict[str, Batch] = {}

    def outstanding(self, oldest_round: int) -> Outstanding:
        """What tickets of that creation round and later may still cost."""
        return Outstanding(
            Wei(sum(v for r, v in self._value.items() if r >= oldest_round)),
            Wei(sum(v for r, v in self._face_value.items() if r >= oldest_round)),
        )

    def paid_in_the_last_hour(self, now: float) -> Wei:
        """Over all orchestrators; `now` in unix seconds."""
        hour = self._hours.get(Cap.GATEWAY_HOUR)
        return Wei(0 if hour is None else hour.sum(now))

    def count(self, batch: Batch, deposit: Wei, oldest_round: int) -> CapReached | None:
        """Count a batch that is about to be signed, unless a cap forbids it.

        `deposit` as last read from the chain; `oldest_round` is that of the oldest tickets that may
        still be redeemed.
        """
        reached = self._spent(batch) or self._uncovered(batch, deposit, oldest_round)
        if reached is None:
            self._add(batch)
            self._open[batch.attempt_id] = batch
        return reached

    def keep(self, attempt_id: str) -> None:
        """They reached the orchestrator, which may redeem them whatever became of the job."""
        self._open.pop(attempt_id, None)

    def undo(self, attempt_id: str) -> None:
        """The batch never left. Undoing one that was kept, or undone before, changes nothing."""
        batch = self._open.pop(attempt_id, None)
        if batch is None:
            return
        self._value[batch.creation_round] -= batch.value
        self._face_value[batch.creation_round] -= batch.face_value
        for _, subject, _ in self._hourly(batch):
            hour = self._hours.get(subject)
            if hour is not None:
                hour.take_back(batch.value, batch.made_at)

    def restore(self, batch: Batch) -> None:
        """Count what an earlier process sent. To be called in the order of time."""
        self._add(batch)

    def forget(self, oldest_round: int, now: float) -> None:
        """Drop what has expired; no answer for these or later arguments changes."""
        for subject, hour in list(self._hours.items()):
            if not hour.sum(now):
                del self._hours[subject]
        for counter in (self._value, self._face_value):
            for number in [r for r in counter if r < oldest_round]:
                del counter[number]

    def _add(self, batch: Batch) -> None:
        self._value[batch.creation_round] += batch.value
        self._face_value[batch.creation_round] += batch.face_value
        for _, subject, _ in self._hourly(batch):
            self._hours.setdefault(subject, _LastHour()).add(batch.value, batch.made_at)

    def _hourly(self, batch: Batch) -> Sequence[tuple[Cap, Hashable, Wei | None]]:
        caps = self._caps
        return (
            (Cap.GATEWAY_HOUR, Cap.GATEWAY_HOUR, caps.per_hour),
            (Cap.KEY_HOUR, (Cap.KEY_HOUR, batch.key_id), caps.per_hour_and_key),
            (
                Cap.ORCHESTRATOR_HOUR,
                (Cap.ORCHESTRATOR_HOUR, batch.recipient),
                caps.per_hour_and_orchestrator,
            ),
        )

    def _spent(self, batch: Batch) -> CapReached | None:
        """The hourly caps."""
        for cap, subject, limit in self._hourly(batch):
            if limit is None:
                continue
            room = limit - batch.value
            if room < 0:
                return CapReached(cap, limit)
            hour = self._hours.get(subject)
            if hour is not None and hour.sum(batch.made_at) > room:
                return CapReached(cap, limit, frees_at=hour.frees_at(room))
        return None

    def _uncovered(self, batch: Batch, deposit: Wei, oldest_round: int) -> CapReached | None:
        """What tickets that are out may cost, against what there is for them."""
        out = self.outstanding(oldest_round)
        limits = (
            (Cap.DEPOSIT, out.value + batch.value, deposit),
            (Cap.FACE_VALUE, out.face_value + batch.face_value, self._caps.face_value),
        )
        for cap, cost, limit in limits:
            if limit is not None and cost > limit:
                oldest = min(
                    (r for r, v in self._value.items() if v and r >= oldest_round), default=None
                )
                rounds = None if oldest is None else oldest - oldest_round + 1
                return CapReached(cap, limit, frees_in_rounds=rounds)
        return None


def _bucket(at: float) -> int:
    return math.floor(at / _BUCKET)
