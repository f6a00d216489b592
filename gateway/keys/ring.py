"""Keys checked from memory."""

import asyncio
import hmac
import re
from collections.abc import Collection
from typing import Final

import structlog

from gateway.keys.model import KeyGrant, KeyRecord, digest_of
from gateway.keys.store import Stamp, list_keys, read_stamp
from network.errors import DatabaseError
from network.runtime.clock import Clock
from network.runtime.database import Database

_log = structlog.get_logger(__name__)

_BEARER: Final = re.compile(r"limner_([0-9a-f]{12})_[A-Za-z0-9_-]{43}")
#: Compared with when the key id is unknown, so that the answer takes as long as for a known one.
_NO_DIGEST: Final = bytes(32)
#: How often unknown keys may send us to the database: a guesser must not buy reads with guesses.
_MISS_INTERVAL: Final = 1.0


class KeyRing:
    """The keys as the gateway last read them; checks never wait for the database once it knows a key.

    Fails static: when the database is gone, known keys go on working. Rows are never deleted, so
    a key missing from a read means a lost database, not a revocation, and is kept.
    """

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._records: dict[str, KeyRecord] = {}
        self._stamp: Stamp | None = None
        self._reading = asyncio.Lock()
        self._missing = asyncio.Lock()
        #: Reads of the database begun and ended so far; one at a time.
        self._begun = self._ended = 0
        self._next_miss_read = 0.0
        self._failing = False

    def __len__(self) -> int:
        now = self._clock.now()
        return sum(record.is_live(now) for record in self._records.values())

    @property
    def have_dollars(self) -> bool:
        """Whether a live key, or the team of one, has a budget in dollars."""
        return any(
            limits.are_in_dollars
            for grant in self.grants()
            for limits in (grant.limits, *(() if grant.team is None else (grant.team.limits,)))
        )

    def grants(self) -> tuple[KeyGrant, ...]:
        """Those of the live keys, as last read."""
        now = self._clock.now()
        return tuple(one.grant for one in self._records.values() if one.is_live(now))

    def grant_of(self, key_id: str) -> KeyGrant | None:
        """What the live key of this id grants, as last read."""
        record = self._records.get(key_id)
        return record.grant if record is not None and record.is_live(self._clock.now()) else None

    async def check(self, bearer: str) -> KeyGrant | None:
        """The grant of a presented key, or None. The first use of a new key reads the database."""
        grant, is_known = self._lookup(bearer)
        begun = self._begun
        # A read that was under way when we missed may help; only one begun later is the last word.
        while not is_known and self._ended <= begun:
            await self._read_for_miss(self._ended)
            grant, is_known = self._lookup(bearer)
        return grant

    async def refresh(self) -> None:
        """Read what changed; keeps what is known when the database cannot be read."""
        async with self._reading:
            self._begun += 1
            try:
                stamp = await self._database.read(read_stamp)
                if stamp != self._stamp:
                    self._take(await list_keys(self._database))
                    self._stamp = stamp
            except DatabaseError as error:
                if not self._failing:
                    _log.error("keys_not_read", error=str(error), kept=len(self._records))
                self._failing = True
            else:
                self._failing = False
            finally:
                self._ended += 1

    def _lookup(self, bearer: str) -> tuple[KeyGrant | None, bool]:
        match = _BEARER.fullmatch(bearer)
        if match is None:
            return None, True
        record = self._records.get(match[1])
        digest = _NO_DIGEST if record is None else record.digest
        proven = hmac.compare_digest(digest_of(bearer), digest)
        if record is None:
            return None, False
        if not proven or not record.is_live(self._clock.now()):
            return None, True
        return record.grant, True

    async def _read_for_miss(self, ended: int) -> None:
        """Return when one more read than `ended` has ended; all who wait share it."""
        async with self._missing:
            if self._ended > ended:
                return
            pause = self._next_miss_read - self._clock.monotonic()
            if pause > 0:
                await asyncio.sleep(pause)
            self._next_miss_read = self._clock.monotonic() + _MISS_INTERVAL
            await self.refresh()

    def _take(self, records: Collection[KeyRecord]) -> None:
        fresh = {record.grant.key_id: record for record in records}
        lost = self._records.keys() - fresh.keys()
        if lost:
            _log.error("keys_missing_from_database", kept=len(lost))
        self._records |= fresh
