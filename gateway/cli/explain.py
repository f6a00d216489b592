"""`limner-gateway explain`: who would get a request, and why not the others."""

from pathlib import Path
from typing import Any, Final

import click
import orjson

from gateway.cli.admin_port import ask
from gateway.cli.options import in_loop, load_settings, settings_options
from gateway.cli.tables import show_table

_COLUMNS: Final = ("rank", "orchestrator", "fee", "seconds", "score", "free", "why not")


@click.command()
@click.option("--model", help="The model asked for.  [default: the gateway's]")
@click.option("--size", default="512x512", show_default=True, help="Width x height.")
@click.option("--steps", type=click.IntRange(min=1), help="Denoising steps.  [default: 50]")
@click.option("--count", type=click.IntRange(min=1), help="Images.  [default: 1]")
@click.option("--key-id", help="Ask as the holder of this key.")
@click.option("--max-price", help='Ask with this price cap: "7/2" wei per pixel, "2e-8 USD".')
@click.option(
    "--admin-url", help="The running gateway's admin port.  [default: from the settings]"
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object; amounts as exact text.")
@settings_options
def command(
    *,
    model: str | None,
    size: str,
    steps: int | None,
    count: int | None,
    key_id: str | None,
    max_price: str | None,
    admin_url: str | None,
    as_json: bool,
    config: Path | None,
    data_dir: Path | None,
) -> None:
    """Which orchestrator a request would go to now, and why it would not go to each of the others.

    Asks the running gateway; nothing is made. Fee and score are in wei: the lowest score wins.
    """
    width, _, height = size.lower().partition("x")
    asked = {
        "model": model,
        "width": width,
        "height": height,
        "steps": steps,
        "count": count,
        "key_id": key_id,
        "max_price": max_price,
    }
    query = {name: str(value) for name, value in asked.items() if value is not None}
    url = admin_url or f"http://{load_settings(config, data_dir).admin_listen}"
    told = in_loop(ask(url, "/explain", query))
    if as_json:
        click.echo(orjson.dumps(told))
    else:
        _show(told)


def _show(told: dict[str, Any]) -> None:
    asked, caps, outcome = told["request"], told["caps"], told["outcome"]
    click.echo(
        f"{asked['model_id']}, {asked['count']} of {asked['width']}x{asked['height']}, "
        f"{asked['steps']} steps: {asked['pixels']} pixels"
    )
    effective = caps["wei_per_pixel"]
    cap = "none" if effective is None else f"{effective} wei per pixel"
    click.echo(
        f"price cap: {cap} (key {caps['key'] or 'none'}, gateway {caps['gateway'] or 'none'}, "
        f"model {caps['model'] or 'none'}); "
        f"a second is worth {told['time_value_wei_per_second']} wei"
    )
    rows = [_row(line) for line in told["orchestrators"]]
    show_table("orchestrators", _COLUMNS, rows, _COLUMNS[2:6], ("orchestrator", "score"))
    if outcome["status"] == 200:  # noqa: PLR2004
        click.echo(
            f"a client would pay {outcome['fee_wei']} wei and wait about "
            f"{outcome['expected_seconds']} s"
        )
    else:
        click.echo(
            f"a client would be told {outcome['status']} {outcome['code']}: {outcome['message']}"
        )
    if told.get("repeats") is not None:
        click.echo(_repeats(told["repeats"]))
    if told["hedge"] is not None:
        click.echo(_hedge(told["hedge"]))


def _repeats(rules: dict[str, Any]) -> str:
    """Nothing is known here of the prompt and the seed, by which requests are the same."""
    whose = {"key": "the same key", "team": "the same team", "all": "anybody"}[rules["scope"]]
    when = " or ".join(
        said
        for name, said in (("cache", "was asked before"), ("coalesce", "is under way"))
        if rules[name]
    )
    return (
        f"one that names its seed and {when} by {whose} goes to nobody, and is charged "
        f"{rules['share_of_fee']} of the fee; POST /quote tells of one"
    )


def _hedge(plan: dict[str, Any]) -> str:
    if plan["after_seconds"] is None:
        return f"no second orchestrator if it is late: {plan['reason']}"
    late = f"if it is late, after {plan['after_seconds']} s"
    if plan["uri"] is None:
        return f"no second orchestrator {late}: {plan['reason']}"
    return f"{late}, {plan['uri']} is asked as well"


def _row(line: dict[str, Any]) -> tuple[str, ...]:
    why = line["reason"] or ""
    if line["detail"]:
        why += f": {line['detail']}"
    figures = ("fee_wei", "expected_seconds", "score_wei", "free")
    cells = ("-" if line[name] is None else str(line[name]) for name in figures)
    return (str(line["rank"] or "-"), line["uri"], *cells, why)
