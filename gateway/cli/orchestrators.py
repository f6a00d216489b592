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
from gateway.discovery.opening import source_names

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
    settings = load_settings(config, data_dir, _only(uris))
    lines: list[dict[str, Any]] | None = None
    sources: list[dict[str, Any]] = []
    if not probe and not uris:
        status = in_loop(_ask_gateway(admin_url or f"http://{settings.admin_listen}"))
        if status is not None:
            lines, sources = status["orchestrators"], status.get("sources", [])
        elif admin_url is not None:
            raise fail(f"no gateway answers at {admin_url}")
    if lines is None:
        if not settings.orchestrators and not source_names(settings):
            seen = "; nodes of [links] are linked to a running gateway only"
            raise fail(
                "no orchestrators: name some in [[orchestrators]] or by --orchestrator, or a source of "
                "them in [discovery]" + (seen if settings.links.listen else ""),
                2,
            )
        lines = in_loop(probe_orchestrators(with_passphrase(settings)))
    if as_json:
        click.echo(orjson.dumps(lines))
    else:
        _show(lines)
        for source in sources:
            _tell(source)


def _only(uris: tuple[str, ...]) -> dict[str, object]:
    """Settings of a look at these alone; none of their own where there are none."""
    if not uris:
        return {}
    silent = {"webhook_url": "", "remote_url": "", "chain": False}
    return {
        "orchestrators": [{"uri": uri} for uri in uris],
        **{f"discovery.{name}": value for name, value in silent.items()},
    }


async def _ask_gateway(admin_url: str) -> dict[str, Any] | None:
    try:
        async with (
            ClientSession(timeout=ClientTimeout(total=_SECONDS)) as session,
            session.get(f"{admin_url}/status") as response,
        ):
            status: dict[str, Any] = orjson.loads(await response.read())
            return status if "orchestrators" in status else None
    except (ClientError, TimeoutError, ValueError, TypeError):
        return None


def _tell(source: dict[str, Any]) -> None:
    """What is not well with a source, and which of its entries are not used."""
    name, listed = source["source"], source["listed"]
    if source["problem"]:
        click.echo(f"{name}: {source['problem']}; its last list of {listed} is used", err=True)
    for entry in source["skipped"]:
        click.echo(f"{name}: not used: {entry['entry']}: {entry['reason']}", err=True)


def _show(lines: list[dict[str, Any]]) -> None:
    columns = (
        "orchestrator",
        "source",
        "state",
        "age",
        "model",
        "warm",
        "free",
        "wei/pixel",
        "note",
    )
    rows = [row for line in lines for row in _rows(line)]
    show_table("orchestrators", columns, rows, ("age", "free", "wei/pixel"), ("orchestrator",))


def _rows(line: dict[str, Any]) -> list[tuple[str, ...]]:
    """One for each model; the orchestrator's own figures stand in the first only."""
    models = line["models"] or [None]
    note = line["problem"] or line["last_fault"] or _objection(models[0])
    if line["is_remembered"]:
        note = f"not asked since the last start{'; ' if note else ''}{note}"
    sources = ", ".join(line["sources"])
    first = (line["uri"], sources, line["state"], _age(line), *_offer_cells(models[0]), note)
    others = ((*[""] * 4, *_offer_cells(one), _objection(one)) for one in models[1:])
    return [first, *others]


def _age(line: dict[str, Any]) -> str:
    """How long ago it told this."""
    seconds = line["age_seconds"]
    if seconds is None:
        return "-"
    units = (("d", 86_400), ("h", 3600), ("m", 60))
    unit, size = next((one for one in units if seconds >= one[1]), ("s", 1))
    return f"{seconds // size:.0f} {unit}"


def _objection(model: dict[str, Any] | None) -> str:
    """Why the model cannot be paid for."""
    why = "" if model is None else model.get("objection", "")
    return f"cannot be paid: {why}" if why else ""


def _offer_cells(model: dict[str, Any] | None) -> tuple[str, str, str, str]:
    if model is None:
        return "-", "-", "-", "-"
    price = "none" if model["price"] is None else model["price"]
    return model["id"], "yes" if model["warm"] else "no", str(model["free"]), price
