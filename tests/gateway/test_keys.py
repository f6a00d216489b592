"""Keys: shown once, kept as hashes, checked from memory, revoked within seconds."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import pytest

from gateway.accounting.journal import MIGRATIONS
from gateway.keys import KeyRing, create_key, list_keys, revoke_key
from gateway.keys.model import digest_of, mint_bearer
from network.runtime.clock import SystemClock
from network.runtime.database import Database, open_database
from network.units import ModelId


@dataclass
class HandClock:
    time: float = 1_000_000.0

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    async with open_database(f"sqlite:///{tmp_path / 'gateway.sqlite3'}", MIGRATIONS) as opened:
        yield opened


async def test_a_new_key_works_at_its_first_use(database: Database, clock: HandClock) -> None:
    ring = KeyRing(database, clock)
    await ring.refresh()
    grant, bearer = await create_key(database, clock, name="me")
    assert await ring.check(bearer) == grant
    assert len(ring) == 1


async def test_a_grant_comes_back_whole(database: Database, clock: HandClock) -> None:
    grant, bearer = await create_key(
        database,
        clock,
        name="narrow",
        models=[ModelId("b"), ModelId("a")],
        max_price=Fraction(7, 2),
        expires_at=clock.now() + 100,
        max_in_flight=3,
    )
    found = await KeyRing(database, clock).check(bearer)
    assert found == grant
    assert grant.allows(ModelId("a"))
    assert not grant.allows(ModelId("c"))


def everything_in(folder: Path) -> bytes:
    return b"".join(file.read_bytes() for file in folder.iterdir())


async def test_the_database_never_holds_the_key(
    database: Database, clock: HandClock, tmp_path: Path
) -> None:
    _, bearer = await create_key(database, clock, name="me")
    secret = bearer.split("_", 2)[2].encode()
    content = everything_in(tmp_path)
    assert secret not in content
    assert digest_of(bearer) in content


async def test_a_revoked_key_stops_with_the_next_refresh(
    database: Database, clock: HandClock
) -> None:
    ring = KeyRing(database, clock)
    grant, bearer = await create_key(database, clock, name="me")
    assert await ring.check(bearer)
    record = await revoke_key(database, clock, grant.key_id)
    assert record is not None
    assert record.revoked_at == clock.now()
    await ring.refresh()
    assert await ring.check(bearer) is None
    assert await revoke_key(database, clock, "no-such-key") is None


async def test_revoking_twice_keeps_the_first_time(database: Database, clock: HandClock) -> None:
    grant, _ = await create_key(database, clock, name="me")
    await revoke_key(database, clock, grant.key_id)
    first = clock.time
    clock.time += 5
    record = await revoke_key(database, clock, grant.key_id)
    assert record is not None
    assert record.revoked_at == first


async def test_an_expired_key_stops_by_itself(database: Database, clock: HandClock) -> None:
    ring = KeyRing(database, clock)
    _, bearer = await create_key(database, clock, name="me", expires_at=clock.now() + 10)
    assert await ring.check(bearer)
    clock.time += 10
    assert await ring.check(bearer) is None
    assert len(ring) == 0


async def test_a_key_that_differs_in_anything_is_none(
    database: Database, clock: HandClock
) -> None:
    ring = KeyRing(database, clock)
    _, bearer = await create_key(database, clock, name="me")
    last = "A" if bearer[-1] != "A" else "B"
    for wrong in (
        *(bearer[:-1], bearer + "x", bearer[:-1] + last, bearer.upper(), bearer + "\n"),
        *(bearer.removeprefix("limner_"), "", "\u00fc" * 60, "\ud800"),
        "limner_000000000000_" + bearer.split("_", 2)[2],
    ):
        assert await ring.check(wrong) is None
    assert await ring.check(bearer) is not None


async def test_guessing_does_not_buy_reads_of_the_database(database: Database) -> None:
    ring = KeyRing(database, SystemClock())
    guesses = (ring.check(mint_bearer()[1]) for _ in range(100))
    assert not any(await asyncio.gather(*guesses))
    assert ring._begun <= 2


async def test_who_guesses_on_waits_for_the_next_read(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    ring = KeyRing(database, SystemClock())
    reads = 0

    async def refresh() -> None:
        nonlocal reads
        reads += 1
        await KeyRing.refresh(ring)

    monkeypatch.setattr(ring, "refresh", refresh)
    assert await ring.check(mint_bearer()[1]) is None
    guesses = [asyncio.ensure_future(ring.check(mint_bearer()[1])) for _ in range(20)]
    await asyncio.sleep(0.2)
    # However slow this machine is, none is allowed before a second has passed.
    assert reads == 1
    assert not any(await asyncio.gather(*guesses))
    assert reads == 2


async def test_a_new_key_works_in_the_midst_of_guesses(database: Database) -> None:
    ring = KeyRing(database, SystemClock())
    await ring.check(mint_bearer()[1])
    _, bearer = await create_key(database, SystemClock(), name="me")
    assert await ring.check(bearer) is not None


async def test_known_keys_go_on_working_without_the_database(
    clock: HandClock, tmp_path: Path
) -> None:
    file = tmp_path / "gateway.sqlite3"
    async with open_database(f"sqlite:///{file}", MIGRATIONS) as database:
        ring = KeyRing(database, clock)
        grant, bearer = await create_key(database, clock, name="me")
        assert await ring.check(bearer) == grant
    await ring.refresh()  # closed now
    assert await ring.check(bearer) == grant


async def test_keys_missing_from_a_new_database_are_lost_not_revoked(
    clock: HandClock, tmp_path: Path
) -> None:
    async with open_database(f"sqlite:///{tmp_path / 'a.sqlite3'}", MIGRATIONS) as database:
        ring = KeyRing(database, clock)
        grant, bearer = await create_key(database, clock, name="me")
        assert await ring.check(bearer) == grant
        async with open_database(f"sqlite:///{tmp_path / 'b.sqlite3'}", MIGRATIONS) as emptied:
            ring._database = emptied
            await ring.refresh()
            assert await ring.check(bearer) == grant


async def test_a_second_process_may_make_keys_meanwhile(
    database: Database, clock: HandClock, tmp_path: Path
) -> None:
    ring = KeyRing(database, clock)
    await ring.refresh()
    async with open_database(f"sqlite:///{tmp_path / 'gateway.sqlite3'}", MIGRATIONS) as other:
        _, bearer = await create_key(other, clock, name="me")
    assert await ring.check(bearer)


async def test_many_checks_at_once_of_a_new_key_all_succeed(
    database: Database, clock: HandClock
) -> None:
    ring = KeyRing(database, clock)
    _, bearer = await create_key(database, clock, name="me")
    found = await asyncio.gather(*(ring.check(bearer) for _ in range(20)))
    assert all(found)


@pytest.mark.parametrize("name", ["", "   ", "x" * 101, "two\nlines", "bell\a"])
async def test_a_name_that_would_spoil_a_table_is_refused(
    database: Database, clock: HandClock, name: str
) -> None:
    with pytest.raises(ValueError, match="name"):
        await create_key(database, clock, name=name)
    assert await list_keys(database) == ()
