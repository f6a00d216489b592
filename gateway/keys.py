"""The bearer keys of clients: made, kept as hashes, and checked from memory.

A key reads `limner_<key id>_<secret>`. The id finds the entry; the secret, 256 random bits, is known
to its holder alone. Only SHA-256 of the whole key is stored: fast is fine for a secret that
nobody can guess, and a stolen database opens nothing.
"""

import asyncio
import hashlib
import hmac
import json
import re
import secrets
from collections.abc import Collection
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final

import structlog
from sqlalchemy import (
    Column,
    Connection,
    Float,
    Integer,
    LargeBinary,
    MetaData,
    Row,
    RowMapping,
    Table,
    Text,
    func,
    insert,
    select,
    update,
)

from network.errors import DatabaseError
from network.runtime.clock import Clock
from network.runtime.database import Database
from network.units import ModelId

_log = structlog.get_logger(__name__)

#: The migrations of `gateway.accounting` make this table; both name the same columns.
API_KEYS: Final = Table(
    "api_keys",
    MetaData(),
    Column("key_id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Column("models", Text),
    Column("max_price", Text),
    Column("max_in_flight", Integer),
    Column("created_at", Float, nullable=False),
    Column("expires_at", Float),
    Column("revoked_at", Float),
)

_BEARER: Final = re.compile(r"limner_([0-9a-f]{12})_[A-Za-z0-9_-]{43}")
#: Compared with when the key id is unknown, so that the answer takes as long as for a known one.
_NO_DIGEST: Final = bytes(32)
#: How often unknown keys may send us to the database: a guesser must not buy reads with guesses.
_MISS_INTERVAL: Final = 1.0
_LONGEST_NAME: Final = 100


@dataclass(frozen=True, slots=True)
class KeyGrant:
    """What the holder of one key may do; prices in wei per pixel, times in unix seconds."""

    key_id: str
    name: str
    #: None allows every model.
    models: frozenset[ModelId] | None = None
    max_price: Fraction | None = None
    expires_at: float | None = None
    #: Requests at a time; None leaves it to the gateway's own setting.
    max_in_flight: int | None = None

    def allows(self, model: ModelId) -> bool:
        return self.models is None or model in self.models


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """One row: a grant, what proves it, and its history."""

    grant: KeyGrant
    digest: bytes
    created_at: float
    revoked_at: float | None

    def is_live(self, now: float) -> bool:
        expires = self.grant.expires_at
        return self.revoked_at is None and (expires is None or now < expires)


def mint_bearer() -> tuple[str, str]:
    """A new key id and the key to hand out once."""
    key_id = secrets.token_hex(6)
    return key_id, f"limner_{key_id}_{secrets.token_urlsafe(32)}"


def digest_of(bearer: str) -> bytes:
    """What is stored of a key, 32 bytes."""
    return hashlib.sha256(bearer.encode()).digest()


async def create_key(
    database: Database,
    clock: Clock,
    *,
    name: str,
    models: Collection[ModelId] = (),
    max_price: Fraction | None = None,
    expires_at: float | None = None,
    max_in_flight: int | None = None,
) -> tuple[KeyGrant, str]:
    """Store a new key and return what it grants with the key itself, which is kept nowhere.

    Raises ValueError for a name that cannot be used, DatabaseError when it could not be stored.
    """
    if not name.strip() or len(name) > _LONGEST_NAME or not name.isprintable():
        raise ValueError(f"a key's name is 1 to {_LONGEST_NAME} printable characters")
    key_id, bearer = mint_bearer()
    grant = KeyGrant(key_id, name, frozenset(models) or None, max_price, expires_at, max_in_flight)
    row = {
        "key_id": key_id,
        "name": name,
        "digest": digest_of(bearer),
        "models": json.dumps(sorted(grant.models)) if grant.models else None,
        "max_price": None if max_price is None else str(max_price),
        "max_in_flight": max_in_flight,
        "created_at": clock.now(),
        "expires_at": expires_at,
    }
    await database.execute([insert(API_KEYS).values(row)])
    return grant, bearer


async def list_keys(database: Database) -> tuple[KeyRecord, ...]:
    """Every key ever made, oldest first; revoked ones stay for the record."""
    return await database.read(_read_all)


async def revoke_key(database: Database, clock: Clock, key_id: str) -> KeyRecord | None:
    """Revoke a key; returns its record, or None when there is no such key. Repeating it is harmless."""
    still_live = (API_KEYS.c.key_id == key_id, API_KEYS.c.revoked_at.is_(None))
    await database.execute([update(API_KEYS).where(*still_live).values(revoked_at=clock.now())])
    records = await list_keys(database)
    return next((record for record in records if record.grant.key_id == key_id), None)


class KeyRing:
    """The keys as the gateway last read them; checks never wait for the database once it knows a key.

    Fails static: when the database is gone, known keys go on working. Rows are never deleted, so
    a key missing from a read means a lost database, not a revocation, and is kept.
    """

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._records: dict[str, KeyRecord] = {}
        self._stamp: tuple[int, int] | None = None
        self._reading = asyncio.Lock()
        self._missing = asyncio.Lock()
        #: Reads of the database begun and ended so far; one at a time.
        self._begun = self._ended = 0
        self._next_miss_read = 0.0
        self._failing = False

    def __len__(self) -> int:
        now = self._clock.now()
        return sum(record.is_live(now) for record in self._records.values())

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
                stamp = await self._database.read(_read_stamp)
                if stamp != self._stamp:
                    self._take(await self._database.read(_read_all))
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


def _read_stamp(connection: Connection) -> tuple[int, int]:
    """Changes whenever a key is made or revoked: keys ever made, keys ever revoked."""
    counts = select(func.count(API_KEYS.c.key_id), func.count(API_KEYS.c.revoked_at))
    made, revoked = connection.execute(counts).one()
    return made, revoked


def _read_all(connection: Connection) -> tuple[KeyRecord, ...]:
    rows = connection.execute(select(API_KEYS).order_by(API_KEYS.c.created_at))
    return tuple(_record(row) for row in rows)


def _record(row: Row[Any]) -> KeyRecord:
    columns: RowMapping = row._mapping  # noqa: SLF001 - SQLAlchemy's public name for it
    models, price = columns["models"], columns["max_price"]
    grant = KeyGrant(
        columns["key_id"],
        columns["name"],
        None if models is None else frozenset(ModelId(model) for model in json.loads(models)),
        None if price is None else Fraction(price),
        columns["expires_at"],
        columns["max_in_flight"],
    )
    return KeyRecord(grant, columns["digest"], columns["created_at"], columns["revoked_at"])
