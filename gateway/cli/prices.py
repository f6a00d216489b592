"""`limner-gateway prices`: what the running gateway would pay, in wei and dollars."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import click
import orjson
from aiohttp import ClientError, ClientSession, ClientTimeout

from gateway.cli.options import fail, in_loop, load_settings, settings_options
from gateway.cli.tables import show_table
from network.prices import USD, dollars_of, rate_line
from network.units import fee, parse_price, pixels_of

_SECONDS: Final = 3.0
_IMAGE: Final = pixels_of(1024, 1024, 1)


@click.command()
@click.option(
    "--admin-url", help="The running gateway's admin port.  [default: from the settings]"
)
@click.option("--json", "as_json", is_flag=True, help="JSON; prices as text.")
@settings_options
def command(
    *, admin_url: str | None, as_json: bool, config: Path | None, data_dir: Path | None
) -> None:
    """What orchestrators ask for a pixel of each model, and for an image of 1024 x 1024 in dollars.

    Asks the running gateway. Dollars are told where `usd_per_eth` or a price feed says what an ETH costs.
    """
    settings = load_settings(config, data_dir)
    url = admin_url or f"http://{settings.admin_listen}"
    status = in_loop(_ask(url))
    if status is None:
        raise fail(f"no gateway answers at {url}; start it, or name its port with --admin-url")
    rate = status["rate"]
    lines = list(_lines(status["orchestrators"], rate))
    if as_json:
        click.echo(orjson.dumps({"prices": lines, "rate": rate}))
        return
    rows = [
        (
            line["model"],
            line["orchestrator"],
            line["wei_per_pixel"] or "-",
            line["usd_per_image"] or "-",
        )
        for line in lines
    ]
    columns = ("model", "orchestrator", "wei/pixel", "USD for 1024 x 1024")
    show_table("prices", columns, rows, columns[2:], ("orchestrator",))
    click.echo(rate_line(rate))


async def _ask(admin_url: str) -> dict[str, Any] | None:
    try:
        async with (
            ClientSession(timeout=ClientTimeout(total=_SECONDS)) as session,
            session.get(f"{admin_url}/status") as response,
        ):
            status: dict[str, Any] = orjson.loads(await response.read())
    except (ClientError, TimeoutError, ValueError):
        return None
    return status if {"rate", "orchestrators"} <= status.keys() else None


def _lines(orchestrators: list[dict[str, Any]], rate: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The cheapest of each model first."""
    offers = [(one["uri"], model) for one in orchestrators for model in one["models"]]
    per_eth = Fraction(rate["per_eth"]) if rate["currency"] == USD else None
    for uri, model in sorted(offers, key=lambda offer: (offer[1]["id"], _wei(offer[1]))):
        price = None if model["price"] is None else parse_price(model["price"])
        yield {
            "model": model["id"],
            "orchestrator": uri,
            "wei_per_pixel": model["price"],
            "usd_per_image": None
            if price is None or per_eth is None
            else dollars_of(fee(_IMAGE, price), per_eth),
        }


def _wei(model: dict[str, Any]) -> Fraction:
    return Fraction(0) if model["price"] is None else parse_price(model["price"])
