"""Keys and teams in the gateway's database."""

import json
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final, NamedTuple, TypeVar

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Float,
    Integer,
    LargeBinary,
    MetaData,
    RowMapping,
    Table,
    Text,
    func,
    insert,
    select,
    update,
)

from gateway.keys.model import (
    KeyGrant,
    KeyRecord,
    Team,
    UseLimits,
    digest_of,
    mint_bearer,
    price_text,
)
from network.dollars import AttoUsd
from network.prices import Price, parse_price
from network.runtime.clock import Clock
from network.runtime.database import Database, WeiText
from network.units import ModelId, Wei

_T = TypeVar("_T")

_METADATA: Final = MetaData()


def _limit_columns() -> tuple[Column[Any], ...]:
    return (
        Column("wei_per_day", WeiText),
        Column("wei_per_month", WeiText),
        # In 10**-18 dollars, which outgrow 64 bits as wei do.
        Column("usd_per_day", WeiText),
        Column("usd_per_month", WeiText),
        Column("requests_per_minute", BigInteger),
        Column("pixels_per_minute", BigInteger),
    )


#: The migrations of `gateway.accounting` make these tables; both name the same columns.
API_KEYS: Final = Table(
    "api_keys",
    _METADATA,
    Column("key_id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Column("models", Text),
    Column("max_price", Text),
    Column("max_in_flight", Integer),
    Column("created_at", Float, nullable=False),
    Column("expires_at", Float),
    Column("revoked_at", Float),
    Column("team", Text),
    *_limit_columns(),
    Column("metadata", Text),
    Column("changed_at", Float),
)
TEAMS: Final = Table(
    "teams",
    _METADATA,
    Column("name", Text, primary_key=True),
    *_limit_columns(),
    Column("changed_at", Float, nullable=False),
)

_LONGEST_NAME: Final = 100


class Stamp(NamedTuple):
    """Changes whenever a key or a team does."""

    made: int
    revoked: int
    key_changed: float
    team_changed: float


async def create_key(
    database: Database,
    clock: Clock,
    *,
    name: str,
    models: Collection[ModelId] = (),
    max_price: Price | None = None,
    expires_at: float | None = None,
    max_in_flight: int | None = None,
    limits: UseLimits | None = None,
    team: str | None = None,
    metadata: Mapping[str, str] | None = None,
) -> tuple[KeyGrant, str]:
    """Store a new key and return what it grants with the key itself, which is kept nowhere.

    Raises ValueError for a name that cannot be used or a team that does not exist, DatabaseError
    when it could not be stored.
    """
    _check_name("key", name)
    found = None if team is None else await _team(database, team)
    key_id, bearer = mint_bearer()
    grant = KeyGrant(
        key_id,
        name,
        frozenset(models) or None,
        max_price,
        expires_at,
        max_in_flight,
        limits or UseLimits(),
        found,
        dict(metadata or {}),
    )
    row = {
        "key_id": key_id,
        "name": name,
        "digest": digest_of(bearer),
        "models": json.dumps(sorted(grant.models)) if grant.models else None,
        "max_price": None if max_price is None else price_text(max_price),
        "max_in_flight": max_in_flight,
        "created_at": clock.now(),
        "expires_at": expires_at,
        "team": team,
        **_limit_values(grant.limits),
        "metadata": json.dumps(grant.metadata) if grant.metadata else None,
    }
    await database.execute([insert(API_KEYS).values(row)])
    return grant, bearer


async def list_keys(database: Database) -> tuple[KeyRecord, ...]:
    """Every key ever made, oldest first; revoked ones stay for the record."""
    return await database.read(_read_keys)


async def revoke_key(database: Database, clock: Clock, key_id: str) -> KeyRecord | None:
    """Revoke a key; returns its record, or None when there is no such key. Repeating it is harmless."""
    still_live = (API_KEYS.c.key_id == key_id, API_KEYS.c.revoked_at.is_(None))
    await database.execute([update(API_KEYS).where(*still_live).values(revoked_at=clock.now())])
    return await _key(database, key_id)


async def limit_key(
    database: Database, clock: Clock, key_id: str, changes: Mapping[str, int | None]
) -> KeyRecord | None:
    """Change some of a key's limits, named as in UseLimits; None where there is no such key."""
    values = {**_named(changes), "changed_at": clock.now()}
    await database.execute([update(API_KEYS).where(API_KEYS.c.key_id == key_id).values(values)])
    return await _key(database, key_id)


async def set_team(
    database: Database, clock: Clock, name: str, changes: Mapping[str, int | None]
) -> Team:
    """Make a team or change some of its limits, named as in UseLimits. Raises ValueError."""
    _check_name("team", name)
    values = {**_named(changes), "changed_at": clock.now()}
    if any(team.name == name for team in await list_teams(database)):
        await database.execute([update(TEAMS).where(TEAMS.c.name == name).values(values)])
    else:
        await database.execute([insert(TEAMS).values(name=name, **values)])
    return await _team(database, name)


async def list_teams(database: Database) -> tuple[Team, ...]:
    """Every team, in order of name."""
    teams = await database.read(_read_teams)
    return tuple(teams[name] for name in sorted(teams))


def read_stamp(connection: Connection) -> Stamp:
    keys = select(
        func.count(API_KEYS.c.key_id),
        func.count(API_KEYS.c.revoked_at),
        func.coalesce(func.max(API_KEYS.c.changed_at), 0.0),
    )
    teams = select(func.coalesce(func.max(TEAMS.c.changed_at), 0.0))
    made, revoked, changed = connection.execute(keys).one()
    return Stamp(made, revoked, changed, connection.execute(teams).scalar_one())


async def _key(database: Database, key_id: str) -> KeyRecord | None:
    records = await list_keys(database)
    return next((record for record in records if record.grant.key_id == key_id), None)


async def _team(database: Database, name: str) -> Team:
    for team in await list_teams(database):
        if team.name == name:
            return team
    raise ValueError(f"there is no team {name!r}; `limner-gateway keys team {name}` makes it")


def _check_name(of: str, name: str) -> None:
    if not name.strip() or len(name) > _LONGEST_NAME or not name.isprintable():
        raise ValueError(f"a {of}'s name is 1 to {_LONGEST_NAME} printable characters")


def _named(changes: Mapping[str, int | None]) -> dict[str, int | None]:
    unknown = changes.keys() - _limit_values(UseLimits()).keys()
    if unknown:
        raise ValueError(f"no such limits: {', '.join(sorted(unknown))}")
    return dict(changes)


def _limit_values(limits: UseLimits) -> dict[str, int | None]:
    return {
        "wei_per_day": limits.wei_per_day,
        "wei_per_month": limits.wei_per_month,
        "usd_per_day": limits.usd_per_day,
        "usd_per_month": limits.usd_per_month,
        "requests_per_minute": limits.requests_per_minute,
        "pixels_per_minute": limits.pixels_per_minute,
    }


def _read_teams(connection: Connection) -> dict[str, Team]:
    rows = connection.execute(select(TEAMS)).mappings()
    return {row["name"]: Team(row["name"], _limits(row)) for row in rows}


def _read_keys(connection: Connection) -> tuple[KeyRecord, ...]:
    teams = _read_teams(connection)
    rows = connection.execute(select(API_KEYS).order_by(API_KEYS.c.created_at)).mappings()
    return tuple(_record(row, teams) for row in rows)


def _record(columns: RowMapping, teams: Mapping[str, Team]) -> KeyRecord:
    models, price, notes = columns["models"], columns["max_price"], columns["metadata"]
    grant = KeyGrant(
        columns["key_id"],
        columns["name"],
        None if models is None else frozenset(ModelId(model) for model in json.loads(models)),
        None if price is None else parse_price(price),
        columns["expires_at"],
        columns["max_in_flight"],
        _limits(columns),
        None if columns["team"] is None else teams[columns["team"]],
        {} if notes is None else json.loads(notes),
    )
    return KeyRecord(grant, columns["digest"], columns["created_at"], columns["revoked_at"])


def _limits(columns: RowMapping) -> UseLimits:
    return UseLimits(
        wei_per_day=_amount(Wei, columns["wei_per_day"]),
        wei_per_month=_amount(Wei, columns["wei_per_month"]),
        usd_per_day=_amount(AttoUsd, columns["usd_per_day"]),
        usd_per_month=_amount(AttoUsd, columns["usd_per_month"]),
        requests_per_minute=columns["requests_per_minute"],
        pixels_per_minute=columns["pixels_per_minute"],
    )


def _amount(unit: Callable[[int], _T], value: int | None) -> _T | None:
    return None if value is None else unit(value)
