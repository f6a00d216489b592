"""`limner-gateway keys`: they work, and stop working, while the gateway runs."""

import re
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import orjson
from typing_extensions import override

from gateway.access.verdict import PREFIX
from gateway.cli.audit import audited
from gateway.cli.limits import (
    check_limits,
    in_words,
    limit_options,
    limits_of,
    shown_limits,
    team_of,
)
from gateway.cli.options import fail, in_loop, load_settings, settings_options
from gateway.cli.tables import show_table
from gateway.home import open_gateway_database, webhook_secret
from gateway.keys import (
    KeyGrant,
    KeyRecord,
    UseLimits,
    create_key,
    limit_key,
    limit_text,
    list_keys,
    price_text,
    revoke_key,
)
from gateway.promises.signing import key_secret, shown_secret
from network.prices import Price, parse_price
from network.runtime.clock import SystemClock
from network.units import ModelId

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


class _Duration(click.ParamType[float]):
    name = "duration"

    @override
    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        match = re.fullmatch(r"([1-9][0-9]{0,5})([smhdw])", str(value))
        if match is None:
            self.fail(f"{value!r} is no duration; write for example 12h, 30d or 8w", param, ctx)
        return float(int(match[1]) * _UNITS[match[2]])


class _Price(click.ParamType[Price]):
    name = "price"

    @override
    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Price:
        try:
            return parse_price(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


@click.group()
def command() -> None:
    """Make, list and revoke the keys by which clients prove who they are.

    A running gateway takes a new key at its first use and drops a revoked one within seconds.
    """


@command.command()
@click.argument("name")
@click.option("--expires", type=_Duration(), help="When it ends, from now: 12h, 30d, 8w.")
@click.option("--model", "models", multiple=True, help="Allow only this model; repeatable.")
@click.option("--max-price", type=_Price(), help='The most it pays, in wei per pixel: "7/2".')
@click.option("--max-in-flight", type=click.IntRange(min=1), help="Requests at a time.")
@click.option("--team", help="The team whose limits hold beside the key's own.")
@click.option(
    "--note", "notes", multiple=True, help="A note for yourself: name=value; repeatable."
)
@limit_options
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of text.")
@settings_options
def create(
    *,
    name: str,
    expires: float | None,
    models: tuple[str, ...],
    max_price: Price | None,
    max_in_flight: int | None,
    team: str | None,
    notes: tuple[str, ...],
    as_json: bool,
    config: Path | None,
    data_dir: Path | None,
    **limits: object,
) -> None:
    """Make a key for NAME and show it, this once."""
    settings = load_settings(config, data_dir)
    check_limits(settings, limits)
    clock = SystemClock()

    async def store() -> tuple[KeyGrant, str]:
        async with open_gateway_database(settings) as database:
            return await create_key(
                database,
                clock,
                name=name,
                models=[ModelId(model) for model in models],
                max_price=max_price,
                expires_at=None if expires is None else clock.now() + expires,
                max_in_flight=max_in_flight,
                limits=UseLimits(**limits_of(limits)),
                team=team,
                metadata=dict(_note(note) for note in notes),
            )

    with audited(settings) as note:
        try:
            grant, bearer = in_loop(store())
        except ValueError as error:
            raise fail(str(error), 2) from error
        given = {name: value for name, value in limits_of(limits).items() if value is not None}
        note(
            "key made",
            key_id=grant.key_id,
            name=name,
            expires_at=grant.expires_at,
            models=sorted(grant.models or ()),
            max_price=None if max_price is None else price_text(max_price),
            max_in_flight=max_in_flight,
            team=team,
            **in_words(given),
        )
    if as_json:
        shown = {
            "key": bearer,
            "key_id": grant.key_id,
            "name": name,
            "expires_at": grant.expires_at,
        }
        click.echo(orjson.dumps(shown))
        return
    click.echo(bearer)
    click.echo("Keep it now: only its hash is stored, it cannot be shown again.", err=True)


@command.command("list")
@click.option("--json", "as_json", is_flag=True, help="One JSON list instead of a table.")
@settings_options
def list_(*, as_json: bool, config: Path | None, data_dir: Path | None) -> None:
    """Every key ever made; never the key itself."""
    settings = load_settings(config, data_dir)

    async def read() -> tuple[KeyRecord, ...]:
        async with open_gateway_database(settings) as database:
            return await list_keys(database)

    records = in_loop(read())
    now = SystemClock().now()
    lines = [_line(record, now) for record in records]
    if as_json:
        click.echo(orjson.dumps(lines))
        return
    columns = (
        "id",
        "name",
        "state",
        "made",
        "expires",
        "models",
        "max price",
        "at a time",
        "team",
        "limits",
    )
    show_table("keys", columns, map(_cells, lines), ids=("id",))


@command.command()
@click.argument("key_id")
@limit_options
@settings_options
def limit(*, key_id: str, config: Path | None, data_dir: Path | None, **limits: object) -> None:
    """Change limits of the key with this KEY_ID; those not named stay. "none" lifts one."""
    settings = load_settings(config, data_dir)
    check_limits(settings, limits)

    async def write() -> KeyRecord | None:
        async with open_gateway_database(settings) as database:
            return await limit_key(database, SystemClock(), key_id, limits_of(limits))

    with audited(settings) as note:
        record = in_loop(write())
        if record is None:
            raise fail(
                f"there is no key with id {key_id!r}; `limner-gateway keys list` shows them"
            )
        note("key limited", key_id=key_id, **in_words(limits_of(limits)))
    click.echo(f"{key_id} ({record.grant.name}): {shown_limits(record.grant.limits)}")


command.add_command(team_of)


@command.command()
@click.argument("key_id")
@settings_options
def revoke(*, key_id: str, config: Path | None, data_dir: Path | None) -> None:
    """Revoke the key with this KEY_ID (see `list`), for good."""
    settings = load_settings(config, data_dir)

    async def write() -> KeyRecord | None:
        async with open_gateway_database(settings) as database:
            return await revoke_key(database, SystemClock(), key_id)

    with audited(settings) as note:
        record = in_loop(write())
        if record is None:
            raise fail(
                f"there is no key with id {key_id!r}; `limner-gateway keys list` shows them"
            )
        note("key revoked", key_id=key_id, name=record.grant.name)
    click.echo(f"{key_id} ({record.grant.name}) is revoked")


@command.command("webhook-secret")
@click.argument("key_id")
@settings_options
def webhook_secret_of(key_id: str, config: Path | None, data_dir: Path | None) -> None:
    """Show what webhooks of the key with this KEY_ID are signed with, for its holder.

    A key that [auth_webhook] answers for has the id "auth:" and the name in that answer.

    Receivers check them with any library for Standard Webhooks.
    """
    settings = load_settings(config, data_dir)

    async def read() -> bytes | None:
        async with open_gateway_database(settings) as database:
            known = {record.grant.key_id for record in await list_keys(database)}
        is_known = key_id in known or key_id.startswith(PREFIX)
        return await webhook_secret(settings) if is_known else None

    master = in_loop(read())
    if master is None:
        raise fail(f"there is no key with id {key_id!r}; `limner-gateway keys list` shows them")
    click.echo(shown_secret(key_secret(master, key_id)))


def _line(record: KeyRecord, now: float) -> dict[str, Any]:
    grant = record.grant
    live = "live" if record.is_live(now) else "expired"
    return {
        "key_id": grant.key_id,
        "name": grant.name,
        "state": live if record.revoked_at is None else "revoked",
        "created_at": record.created_at,
        "expires_at": grant.expires_at,
        "revoked_at": record.revoked_at,
        "models": None if grant.models is None else sorted(grant.models),
        "max_price": None if grant.max_price is None else price_text(grant.max_price),
        "max_in_flight": grant.max_in_flight,
        "team": None if grant.team is None else grant.team.name,
        "limits": {
            name: None if value is None else limit_text(name, value)
            for name, value in asdict(grant.limits).items()
        },
        "metadata": dict(grant.metadata),
    }


def _cells(line: dict[str, Any]) -> tuple[str, ...]:
    return (
        line["key_id"],
        line["name"],
        line["state"],
        _when(line["created_at"]),
        _when(line["expires_at"]),
        ", ".join(line["models"] or ()) or "all",
        line["max_price"] or "-",
        str(line["max_in_flight"] or "-"),
        line["team"] or "-",
        ", ".join(f"{name} {value}" for name, value in line["limits"].items() if value) or "-",
    )


def _note(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise ValueError(f"{text!r} is no note; write name=value")
    return name, value


def _when(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
