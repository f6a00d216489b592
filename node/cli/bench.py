"""`limner-node bench`: how fast the models are here, and what a pixel has to cost."""

import asyncio
import re
import sys
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import click
import orjson
from typing_extensions import override

from network.errors import LimnerError
from network.runtime import log as logging_setup
from network.units import format_price
from node.accounting.break_even import Costs, asking_price, break_even_price
from node.cli.measuring import Case, Measurement, Plan, measure
from node.cli.options import load_settings, settings_options
from node.cli.tables import add_columns, plain_table, show
from node.config.catalogue import Catalogue, ServedModel, catalogue
from node.config.profiles import CLIENT_GUIDANCE, CLIENT_STEPS, Profile, Sampling, sampling
from node.config.settings import NodeSettings
from node.engine.configured import model_specs
from node.engine.work import JobFailedError

#: What clients ask for when they say nothing, and a size that most models were trained for.
_USUAL_SIZES: Final = ((1024, 576), (512, 512))
_SIZE: Final = re.compile("([0-9]{2,4})x([0-9]{2,4})")


class _Size(click.ParamType[tuple[int, int]]):
    """Width and height in pixels."""

    name = "widthxheight"

    @override
    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int]:
        found = _SIZE.fullmatch(str(value))
        if found is None:
            self.fail(f"{value!r} is no size; write 1024x576", param, ctx)
        return int(found[1]), int(found[2])


class _Exact(click.ParamType[Fraction]):
    """A number above 0, never a float."""

    name = "number"

    @override
    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Fraction:
        try:
            number = Fraction(str(value))
        except (ValueError, ZeroDivisionError):
            number = Fraction(0)
        if number <= 0:
            self.fail(f"{value!r} is no number above 0", param, ctx)
        return number


@click.command()
@settings_options
@click.option("--model", "ids", multiple=True, help="Of these models.  [default: all configured]")
@click.option(
    "--size",
    "sizes",
    type=_Size(),
    multiple=True,
    help="In these sizes.  [default: 1024x576, 512x512 and the model's own]",
)
@click.option(
    "--steps",
    type=click.IntRange(1, 1000),
    help="Denoise steps.  [default: what a client gets that names none]",
)
@click.option(
    "--callers",
    type=click.IntRange(1, 64),
    multiple=True,
    default=(1, 4),
    show_default=True,
    help="Images under way at once.",
)
@click.option(
    "--images", type=click.IntRange(1, 1000), default=4, show_default=True, help="Of each case."
)
@click.option("--device", help="auto, cpu, cuda or cuda:N.  [default: engine.device]")
@click.option("--cost-per-hour", type=_Exact(), help="Of the device, in US dollars.")
@click.option("--usd-per-eth", type=_Exact(), help="[default: usd_per_eth of the settings]")
@click.option(
    "--busy",
    type=_Exact(),
    default="1",
    show_default=True,
    help="The share of the time that you expect to be paid for, such as 0.25.",
)
@click.option("--json", "as_json", is_flag=True, help="JSON; prices as text.")
@click.option(
    "--write", type=click.Path(dir_okay=False, path_type=Path), help="Write the JSON to a file."
)
def bench(
    *,
    config: Path | None,
    data_dir: Path | None,
    ids: tuple[str, ...],
    sizes: tuple[tuple[int, int], ...],
    steps: int | None,
    callers: tuple[int, ...],
    images: int,
    device: str | None,
    cost_per_hour: Fraction | None,
    usd_per_eth: Fraction | None,
    busy: Fraction,
    as_json: bool,
    write: Path | None,
) -> None:
    """Measure the models on this machine, in an engine like the node's own.

    With --cost-per-hour it tells the price per pixel at which the device pays for itself. Stop
    the node meanwhile: the two would share the device.
    """
    settings = load_settings(config, {"data_dir": data_dir, "engine.device": device})
    costs = _costs(settings, cost_per_hour, usd_per_eth, busy)
    logging_setup.configure("error", "auto")
    found = []
    try:
        models = catalogue(settings)
        plans = _plans(
            settings, models, ids, sizes=sizes, steps=steps, callers=callers, images=images
        )
        for plan in plans:
            click.echo(f"measuring {plan.spec.model_id} ...", err=True)
            found.append(
                asyncio.run(measure(plan, settings.engine.device, settings.engine.threads))
            )
    except LimnerError as error:
        raise click.ClickException(str(error)) from None
    except JobFailedError as error:
        raise click.ClickException(error.message) from None
    text = orjson.dumps(_report(settings, found, costs), option=orjson.OPT_INDENT_2)
    if write is not None:
        _write(write, text)
    if as_json:
        click.echo(text)
    else:
        _show(found, costs)
    if any(case.error for measurement in found for case in measurement.cases):
        sys.exit(1)


def _costs(
    settings: NodeSettings, per_hour: Fraction | None, rate: Fraction | None, busy: Fraction
) -> Costs | None:
    if busy > 1:
        raise click.UsageError("--busy is a share of the time, at most 1")
    if per_hour is None:
        return None
    rate = rate or settings.usd_per_eth
    if rate is None:
        raise click.UsageError(
            "--cost-per-hour is in dollars; say what an ETH costs: --usd-per-eth 3000"
        )
    return Costs(per_hour, rate, busy)


def _plans(
    settings: NodeSettings,
    models: Catalogue,
    ids: Sequence[str],
    *,
    sizes: Sequence[tuple[int, int]],
    steps: int | None,
    callers: Sequence[int],
    images: int,
) -> list[Plan]:
    if unknown := set(ids) - {model.model_id for model in models.models}:
        there = ", ".join(model.model_id for model in models.models)
        raise click.UsageError(f"{min(unknown)} is not configured; there are {there}")
    plans = []
    for model, spec in zip(models.models, model_specs(models), strict=True):
        if ids and model.model_id not in ids:
            continue
        used = _sampling(settings, model.profile)
        if steps is not None:
            used = Sampling(steps, used.guidance)
        chosen = tuple(sizes) or _usual_sizes(settings, model)
        plans.append(Plan(spec, used, chosen, tuple(dict.fromkeys(callers)), images))
    return plans


def _sampling(settings: NodeSettings, profile: Profile | None) -> Sampling:
    """What a client gets that chose nothing: what most of the income comes from."""
    filled_in = profile if settings.defaults_policy == "profile" else None
    return sampling(Sampling(CLIENT_STEPS, CLIENT_GUIDANCE), filled_in)


def _usual_sizes(settings: NodeSettings, model: ServedModel) -> tuple[tuple[int, int], ...]:
    own = (model.profile.size,) if model.profile and model.profile.size else ()
    bounds = settings.limits
    return tuple(
        (width, height)
        for width, height in dict.fromkeys((*_USUAL_SIZES, *own))
        if width <= bounds.max_width and height <= bounds.max_height
    )


def _price(case: Case, costs: Costs | None) -> Fraction | None:
    if costs is None or case.error:
        return None
    return break_even_price(costs, case.pixels, Fraction(case.seconds))


def _model_price(measurement: Measurement, costs: Costs | None) -> Fraction | None:
    """The price that pays for the dearest size, each at its best number of callers.

    There is one price for all sizes.
    """
    best: dict[tuple[int, int], Fraction] = {}
    for case in measurement.cases:
        price = _price(case, costs)
        if price is not None:
            size = (case.width, case.height)
            best[size] = min(price, best.get(size, price))
    return asking_price(max(best.values())) if best else None


def _report(
    settings: NodeSettings, found: Sequence[Measurement], costs: Costs | None
) -> dict[str, object]:
    return {
        "device": settings.engine.device,
        "cost_per_hour_usd": None if costs is None else str(costs.per_hour),
        "usd_per_eth": None if costs is None else str(costs.usd_per_eth),
        "busy": None if costs is None else str(costs.busy),
        "models": [_model_report(measurement, costs) for measurement in found],
    }


def _model_report(measurement: Measurement, costs: Costs | None) -> dict[str, object]:
    plan = measurement.plan
    price = _model_price(measurement, costs)
    return {
        "id": plan.spec.model_id,
        "steps": plan.sampling.steps,
        "guidance": plan.sampling.guidance,
        "load_seconds": measurement.load_seconds,
        "price": None if price is None else format_price(price),
        "cases": [_case_report(case, plan, costs) for case in measurement.cases],
    }


def _case_report(case: Case, plan: Plan, costs: Costs | None) -> dict[str, object]:
    report: dict[str, object] = {"width": case.width, "height": case.height}
    report["callers"] = case.callers
    if case.error:
        return report | {"error": case.error}
    price = _price(case, costs)
    return report | {
        "images": case.images,
        "seconds_per_image": case.seconds / case.images,
        "seconds_per_pixel_step": case.pace(plan.sampling.steps),
        "break_even_price": None if price is None else format_price(asking_price(price)),
    }


def _show(found: Sequence[Measurement], costs: Costs | None) -> None:
    table = plain_table("Measured here")
    add_columns(table, ("model",))
    add_columns(
        table,
        ("size", "steps", "guidance", "at once", "s/image", "ns/pixel/step", "images/h"),
        right=True,
    )
    if costs is not None:
        add_columns(table, ("break-even wei/pixel",), right=True)
    for measurement in found:
        plan = measurement.plan
        for case in measurement.cases:
            lead = [plan.spec.model_id, f"{case.width}x{case.height}", str(plan.sampling.steps)]
            lead += [f"{plan.sampling.guidance:g}", str(case.callers)]
            price = _price(case, costs)
            table.add_row(*lead, *_figures(case, plan.sampling.steps), *_shown(price))
    show(table)
    for measurement in found:
        for case in measurement.cases:
            if case.error:
                click.echo(f"{case.width}x{case.height}: {case.error}", err=True)
        price = _model_price(measurement, costs)
        if price is not None:
            click.echo(f'{measurement.plan.spec.model_id}: price = "{format_price(price)}"')


def _figures(case: Case, steps: int) -> tuple[str, str, str]:
    if case.error:
        return ("failed", "", "")
    return (
        f"{case.seconds / case.images:.3f}",
        f"{case.pace(steps) * 1e9:.2f}",
        f"{case.images * 3600 / case.seconds:.0f}",
    )


def _shown(price: Fraction | None) -> tuple[str, ...]:
    return () if price is None else (format_price(asking_price(price)),)


def _write(path: Path, text: bytes) -> None:
    try:
        path.write_bytes(text + b"\n")
    except OSError as error:
        raise click.ClickException(f"cannot write {path}: {error.strerror}") from None
