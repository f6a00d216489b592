"""`limner-gateway orchestrators`: what the running gateway knows, or a fresh look."""

from pathlib import Path
from typing import Any

import click
import orjson
from aiohttp import ClientError, ClientSession, ClientTimeout

from gateway.app import probe_orchestrators
from gateway.cli.options import (
    fail,
    in_loop,
    load_settings,
    settings_options,
    with_passphrase,
)
from gateway.cli.tables import show_table

_SECONDS = 3.0


@click.command()
@click.option(
    "--admin-url", help="The running gateway's admin port.  [default: from the settings]"
)
@click.option("--probe", is_flag=True, help="Ask the orchestrators now, without a gateway.")
@click.option("--orchestrator", "uris", multiple=True, help="Probe URL; repeatable.")
@click.option("--json", "as_json", is_flag=True, help="A JSON list instead of a table.")
@settings_options
def command(
    *,
    admin_url: str | None,
    probe: bool,
    uris: tuple[str, ...],
    as_json: bool,
    config: Path | None,
    data_dir: Path | None,
) -> None:
    """Who is bought from: state, models, prices, free places.

    Asks the running gateway; without one, or with --probe, asks the orchestrators themselves.
    """
    named = [{"uri": uri} for uri in uris] or None
    settings = load_settings(config, data_dir, {"orchestrators": named})
    lines = None
    if not probe and named is None:
        lines = in_loop(_ask_gateway(admin_url or f"http://{settings.admin_listen}"))
        if lines is None and admin_url is not None:
            raise fail(f"no gateway answers at {admin_url}")
    if lines is None:
        if not settings.orchestrators:
            raise fail("no orchestrators: name some in [[orchestrators]] or by --orchestrator", 2)
        lines = in_loop(probe_orchestrators(with_passphrase(settings)))
    if as_json:
        click.echo(orjson.dumps(lines))
    else:
        _show(lines)


async def _ask_gateway(admin_url: str) -> list[dict[str, Any]] | None:
    try:
        async with (
            ClientSession(timeout=ClientTimeout(total=_SECONDS)) as session,
            session.get(f"{admin_url}/status") as response,
        ):
            status: dict[str, Any] = orjson.loads(await response.read())
            found: list[dict[str, Any]] = status["orchestrators"]
            return found
    except (ClientError, TimeoutError, ValueError, KeyError):
        return None


def _show(lines: list[dict[str, Any]]) -> None:
    columns = ("orchestrator", "state", "model", "warm", "free", "wei/pixel", "note")
    rows = [row for line in lines for row in _rows(line)]
    show_table("orchestrators", columns, rows, ("free", "wei/pixel"), ("orchestrator",))


def _rows(line: dict[str, Any]) -> list[tuple[str, ...]]:
    """One for each model; the orchestrator's own figures stand in the first only."""
    models = line["models"] or [None]
    note = line["problem"] or line["last_fault"] or _objection(models[0])
    first = (line["uri"], line["state"], *_offer_cells(models[0]), note)
    return [first, *(("", "", *_offer_cells(one), _objection(one)) for one in models[1:])]


def _objection(model: dict[str, Any] | None) -> str:
    """Why the model cannot be paid for."""
    why = "" if model is None else model.get("objection", "")
    return f"cannot be paid: {why}" if why else ""


def _offer_cells(model: dict[str, Any] | None) -> tuple[str, str, str, str]:
    if model is None:
        return "-", "-", "-", "-"
    price = "none" if model["price"] is None else model["price"]
    return model["id"], "yes" if model["warm"] else "no", str(model["free"]), price
