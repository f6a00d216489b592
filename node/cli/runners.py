"""`limner-node runners`: the apps of others that are registered with the running node."""

import asyncio
from pathlib import Path
from typing import Any, Final

import aiohttp
import click
import orjson
from rich.table import Table

from node.cli.options import load_settings, settings_options
from node.cli.tables import add_columns, plain_table, show
from node.config.settings import NodeSettings, is_wildcard

_SECONDS: Final = 5.0
_LARGEST: Final = 8 * 2**20


@click.command()
@settings_options
@click.option("--admin", help="Host and port of the admin port.  [default: admin_listen]")
@click.option("--json", "as_json", is_flag=True, help="JSON; amounts in wei as text.")
def runners(
    *, config: Path | None, data_dir: Path | None, admin: str | None, as_json: bool
) -> None:
    """List apps of others that registered, whether they are sold, and if not, why.

    The running node is asked, on its admin port.
    """
    settings = load_settings(config, {"data_dir": data_dir})
    url = f"http://{admin or _admin(settings)}/status"
    try:
        status = asyncio.run(_status(url))
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise click.ClickException(
            f"no node answers at {url} ({str(error) or type(error).__name__}); is it running?"
        ) from None
    found = status.get("apps_of_others")
    if found is None:
        raise click.ClickException(
            "this node lets no apps register; set runners.secret_file (docs/running-a-node.md)"
        )
    if as_json:
        click.echo(orjson.dumps(found, option=orjson.OPT_INDENT_2))
        return
    show(_table(found["runners"]))
    for name in ("refused_heartbeats", "refused_calls"):
        counts = ", ".join(f"{reason} {count}" for reason, count in sorted(found[name].items()))
        click.echo(f"{name.replace('_', ' ')}: {counts or 'none'}")


def _table(lines: list[dict[str, Any]]) -> Table:
    table = plain_table("Apps of others" if lines else "No apps of others")
    add_columns(table, ("app", "id", "sold", "asked"))
    add_columns(table, ("wei", "in use", "delivered", "failed", "heartbeat"), right=True)
    add_columns(table, ("url",))
    table.add_column("why not")
    for line in lines:
        calls = line["calls"]
        failed = sum(calls.values()) - calls.get("delivered", 0)
        table.add_row(
            line["app"],
            line["id"],
            "yes" if line["sold"] else "no",
            line["asked"],
            line["wei"] or "",
            f"{line['in_use']}/{line['capacity']}",
            str(calls.get("delivered", 0)),
            str(failed),
            f"{line['seconds_since_heartbeat']:.0f} s ago",
            line["url"],
            line["why_not"],
        )
    return table


def _admin(settings: NodeSettings) -> str:
    host, _, port = settings.admin_listen.rpartition(":")
    if is_wildcard(host.strip("[]")):
        host = "[::1]" if ":" in host else "127.0.0.1"
    return f"{host}:{port}"


async def _status(url: str) -> dict[str, Any]:
    timeout = aiohttp.ClientTimeout(total=_SECONDS)
    async with (
        aiohttp.ClientSession(timeout=timeout, raise_for_status=True) as session,
        session.get(url, allow_redirects=False) as answer,
    ):
        body = await answer.content.read(_LARGEST)
        while chunk := await answer.content.read(_LARGEST):
            body += chunk
            if len(body) > _LARGEST:
                raise ValueError("it says too much")
    found = orjson.loads(body)
    if not isinstance(found, dict):
        raise ValueError("it is no node")  # noqa: TRY004  as every other answer that is none
    return found
