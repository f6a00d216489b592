"""Whether the database can be written, and whether anybody has a key."""

import sqlite3
from asyncio import to_thread
from contextlib import closing
from pathlib import Path
from typing import Final

from gateway.config import GatewaySettings
from gateway.home import database_file, images_folder, open_gateway_database
from gateway.keys import KeyRing
from gateway.payments.rates import check_dollars
from network.doctor.machine import judge_room, room_at
from network.errors import ConfigError, LimnerError
from network.findings import Finding, fail, ok, skip, warn
from network.runtime.clock import Clock

_BUSY_SECONDS: Final = 2.0
_DATABASE: Final = "database"
_KEYS: Final = "keys"
_DOLLARS: Final = "budgets in dollars"
_JOURNAL_BYTES: Final = 2**30


async def look_at_books(settings: GatewaySettings, clock: Clock) -> tuple[Finding, ...]:
    """Look at the database, and count the keys that work."""
    others = settings.anonymous.enabled or settings.auth_webhook.url.get_secret_value()
    needs_keys = not others
    if not settings.accounting.database_url:
        file = database_file(settings)
        found = await to_thread(judge_file, file)
        if found is not None:
            return (found, skip(_KEYS, "they are in the database"))
        if not await to_thread(file.exists):
            return (
                skip(_DATABASE, f"{file} is not there yet; the first start makes it"),
                judge_keys(0, needs_keys=needs_keys),
            )
    try:
        async with open_gateway_database(settings) as database:
            ring = KeyRing(database, clock)
            await ring.refresh()
            count, have_dollars = len(ring), ring.have_dollars
    except LimnerError as error:
        advice = "see that it runs and lets this user in (accounting.database_url)"
        return (fail(_DATABASE, str(error), advice), skip(_KEYS, "they are in the database"))
    dollars = (await _look_at_dollars(settings, clock),) if have_dollars else ()
    keys = judge_keys(count, needs_keys=needs_keys)
    return (ok(_DATABASE, "opens, and can be written"), keys, *dollars)


async def _look_at_dollars(settings: GatewaySettings, clock: Clock) -> Finding:
    """Whether those whose budgets are in dollars are served."""
    try:
        await check_dollars(settings, clock)
    except ConfigError as error:
        advice = "until then their holders get 503, unless a rate of before is still good"
        return fail(_DOLLARS, str(error), advice)
    return ok(_DOLLARS, "what an ETH costs is known")


def judge_keys(count: int, *, needs_keys: bool = True) -> Finding:
    """Say whether anybody can be served; `needs_keys`: whether whoever asks needs one of these."""
    if not count and needs_keys:
        advice = "limner-gateway keys create NAME"
        return warn(_KEYS, "none that works, so nobody can ask for anything", advice)
    return ok(_KEYS, f"{count} that work")


def judge_file(file: Path) -> Finding | None:
    """Try to write to a SQLite file, and take it back; None if that works or it is not there."""
    try:
        if not file.exists():
            return None
        with closing(sqlite3.connect(file, timeout=_BUSY_SECONDS)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.rollback()
    except (sqlite3.Error, OSError) as error:
        if "locked" in str(error):
            detail = f"{file} is held by another process for more than {_BUSY_SECONDS:g} s"
            return warn(_DATABASE, detail, "find what holds it, if this stays so")
        return fail(
            _DATABASE,
            f"cannot write {file}: {error}",
            "see that it belongs to this user; if it is damaged, take it from a backup",
        )
    return None


def look_at_disk(settings: GatewaySettings) -> tuple[Finding, ...]:
    """Hold the room on disk against what is kept there. Blocks."""
    folder = images_folder(settings)
    kept = _size_of(folder)
    missing = max(0, settings.images.max_bytes - kept)
    return (
        judge_room(
            "room for the journal", room_at(settings.data_dir.expanduser()), _JOURNAL_BYTES
        ),
        judge_room("room for images", room_at(folder), missing),
    )


def _size_of(folder: Path) -> int:
    total = 0
    for file in folder.rglob("*"):
        try:
            total += file.lstat().st_size
        except OSError:  # swept away meanwhile
            continue
    return total
