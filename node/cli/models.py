"""`limner-node models`: find, fetch, check and configure models."""

import asyncio
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import click
import orjson
from rich.filesize import decimal
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from network.errors import LimnerError
from network.runtime import log as logging_setup
from network.units import ModelId
from node.cli.config_file import append_model, model_entry
from node.cli.inventory import Entry, inventory, licence, place_of, shared_cache
from node.cli.options import load_settings, settings_options
from node.cli.tables import add_columns, console, plain_table, show
from node.cli.verification import Findings, bytes_to_hash, verify
from node.config.catalogue import models_dir
from node.config.model_folders import BUILTIN_MODEL, MAIN, check_id, id_of_cached
from node.config.settings import NodeSettings
from node.engine.work import JobFailedError, ModelSpec

_BROKEN: Final = 1


@click.group()
def models() -> None:
    """List, add, pull and verify models.

    \b
    Fetch a model, see that it is whole, and serve it:
        limner-node models pull stabilityai/sdxl-turbo --config node.toml --write
        limner-node models verify stabilityai/sdxl-turbo
        limner-node run --config node.toml
    """  # noqa: D301  click reads \b as a paragraph it must not wrap


@models.command("list")
@settings_options
@click.option("--json", "as_json", is_flag=True, help="JSON.")
def list_command(*, config: Path | None, data_dir: Path | None, as_json: bool) -> None:
    """List the configured models, and those found besides.

    It looks in models_dir and in the Hugging Face cache (HF_HUB_CACHE, HF_HOME).
    """
    settings = load_settings(config, {"data_dir": data_dir})
    try:
        entries = inventory(settings)
    except LimnerError as error:
        raise click.ClickException(str(error)) from None
    if as_json:
        rows = [entry.as_json() for entry in entries]
        click.echo(orjson.dumps(rows, option=orjson.OPT_INDENT_2))
        return
    _show(entries)


def _show(entries: tuple[Entry, ...]) -> None:
    table = plain_table("Models")
    add_columns(table, ("model", "served", "where"))
    add_columns(table, ("size",), right=True)
    add_columns(table, ("pipeline", "weights", "profile", "licence"))
    for entry in entries:
        served = ("warm" if entry.warm else "cold") if entry.configured else "no"
        table.add_row(
            entry.id,
            served,
            entry.source,
            decimal(entry.bytes) if entry.bytes else "",
            entry.pipeline,
            "" if not entry.pipeline else entry.variant or "plain",
            "known" if entry.known_profile else "",
            entry.licence or "",
        )
    show(table)
    for entry in entries:
        if entry.problem:
            click.echo(f"{entry.id}: {entry.problem}", err=True)


_ENTRY_OPTIONS: Final = (
    click.option("--price", help='Of a pixel: 2400000, "7/2", "5 gwei" or "2e-8 USD".'),
    click.option("--capacity", type=click.IntRange(1, 256), help="Jobs at once.  [default: 2]"),
    click.option("--cold", is_flag=True, help="Load it at its first job, not at the start."),
    click.option("--write", is_flag=True, help="Append the entry to the --config file."),
)


def _entry_options(command: Any) -> Any:
    for option in reversed(_ENTRY_OPTIONS):
        command = option(command)
    return command


@models.command(short_help="Check a model's folder and configure it.")
@settings_options
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--id", "model_id", help="What gateways ask for, such as organisation/name.")
@_entry_options
def add(
    *,
    config: Path | None,
    data_dir: Path | None,
    folder: Path,
    model_id: str | None,
    price: str | None,
    capacity: int | None,
    cold: bool,
    write: bool,
) -> None:
    """Check a model's FOLDER and print its entry for the settings file, or write it there."""
    _settings_to_extend(config, data_dir, write=write)
    folder = folder.absolute()
    named = model_id or id_of_cached(folder)
    if named is None:
        raise click.UsageError("say what gateways will ask for: --id organisation/name")
    findings = _verified(folder, hashes=True)
    if findings.problems:
        raise click.ClickException("\n".join(findings.problems))
    entry = _entry(named, price, capacity, cold=cold) | {"path": str(folder)}
    _configure(config, entry, write=write)


@models.command(short_help="Fetch a model from the Hugging Face hub.")
@settings_options
@click.argument("model_id")
@click.option("--revision", default=MAIN, show_default=True, help="Branch, tag or commit.")
@click.option(
    "--variant",
    default="fp16",
    show_default=True,
    help='Of the weights, where there is such a one; "plain" for those without a variant.',
)
@click.option(
    "--hub-cache", is_flag=True, help="Into the Hugging Face cache, which other programs share."
)
@_entry_options
def pull(
    *,
    config: Path | None,
    data_dir: Path | None,
    model_id: str,
    revision: str,
    variant: str,
    hub_cache: bool,
    price: str | None,
    capacity: int | None,
    cold: bool,
    write: bool,
) -> None:
    """Fetch MODEL_ID from the Hugging Face hub into models_dir, and verify it.

    Only what the node loads is fetched: safetensors weights of one variant, configurations and
    tokenizers, the card. What has arrived is not fetched again. HF_TOKEN opens models that ask
    for an account, HF_ENDPOINT names another hub.
    """
    settings = _settings_to_extend(config, data_dir, write=write)
    try:
        check_id(model_id)
        folder = _fetched(settings, ModelId(model_id), revision, variant, shared=hub_cache)
    except LimnerError as error:
        raise click.ClickException(str(error)) from None
    findings = _verified(folder, hashes=True)
    if findings.problems:
        raise click.ClickException("\n".join(findings.problems))
    click.echo(f"{model_id} is in {folder}", err=True)
    click.echo(f"licence: {licence(folder) or 'its card names none'}", err=True)
    entry = _entry(model_id, price, capacity, cold=cold)
    if revision != MAIN:
        entry["revision"] = revision
    _configure(config, entry, write=write)


def _fetched(
    settings: NodeSettings, model_id: ModelId, revision: str, variant: str, *, shared: bool
) -> Path:
    # Imported here: it brings an HTTP client with it, which the other commands do without.
    from huggingface_hub.utils import (  # type: ignore[attr-defined]  # noqa: PLC0415
        disable_progress_bars,
    )

    from node.cli.download import Hub  # noqa: PLC0415

    if not sys.stderr.isatty():
        disable_progress_bars()
    cache = shared_cache() if shared else models_dir(settings)
    hub = Hub()
    wanted = None if variant == "plain" else variant
    commit, selection = hub.select(model_id, revision, wanted, cache)
    click.echo(
        f"{model_id} at {commit[:12]}: {len(selection.files)} files, {decimal(selection.size)}, "
        f"weights {selection.variant or 'plain'}",
        err=True,
    )
    return hub.fetch(model_id, commit, selection, cache)


@models.command("verify", short_help="Check models' files: all there, whole, unaltered.")
@settings_options
@click.argument("wanted", nargs=-1, metavar="[MODEL_ID|FOLDER]...")
@click.option("--no-hashes", is_flag=True, help="Compare no hashes; headers and sizes only.")
@click.option("--load", is_flag=True, help="Also load it, and make one image of one step.")
@click.option(
    "--device", default="cpu", show_default=True, help="Where --load does: auto, cpu, cuda:N."
)
@click.option("--json", "as_json", is_flag=True, help="JSON.")
def verify_command(
    *,
    config: Path | None,
    data_dir: Path | None,
    wanted: tuple[str, ...],
    no_hashes: bool,
    load: bool,
    device: str,
    as_json: bool,
) -> None:
    """Check models' files: all there, none cut short, each as its publisher made it.

    Without a model, those that are configured. Hashes are compared for files in the Hugging
    Face cache's layout, which names them so. Ends with status 1 if something is wrong.
    """
    settings = load_settings(config, {"data_dir": data_dir})
    try:
        names = wanted or tuple(entry.id for entry in inventory(settings) if entry.configured)
        places = [place_of(settings, name) for name in names]
    except LimnerError as error:
        raise click.ClickException(str(error)) from None
    broken = False
    rows: list[Mapping[str, object]] = []
    for place in places:
        findings = _verified(place.path, hashes=not no_hashes)
        problems = list(findings.problems)
        if load and not problems:
            problems += _trial(settings, place.model_id, place.path, device)
        broken |= bool(problems)
        rows.append({"id": place.model_id, **findings.as_json(), "problems": problems})
        if not as_json:
            _tell(place.model_id, findings, problems, loaded=load)
    if as_json:
        click.echo(orjson.dumps(rows, option=orjson.OPT_INDENT_2))
    if broken:
        raise SystemExit(_BROKEN)


def _verified(folder: Path, *, hashes: bool) -> Findings:
    with Progress(
        TextColumn("comparing hashes"),
        BarColumn(),
        DownloadColumn(),
        TimeRemainingColumn(),
        console=console(stderr=True),
        transient=True,
        disable=not (hashes and sys.stderr.isatty()),
    ) as progress:
        task = progress.add_task("", total=bytes_to_hash(folder) if hashes else 0)
        return verify(folder, hashes=hashes, on_bytes=lambda n: progress.advance(task, n))


def _trial(settings: NodeSettings, model_id: ModelId, path: Path, device: str) -> list[str]:
    from node.cli.trial import draw_once  # noqa: PLC0415  asyncio's engine, for --load alone

    logging_setup.configure("error", "auto")
    spec = ModelSpec(model_id, path)
    try:
        asyncio.run(draw_once(spec, device, settings.engine.threads))
    except JobFailedError as error:
        return [f"cannot make an image: {error.message}"]
    return []


def _tell(model_id: str, findings: Findings, problems: list[str], *, loaded: bool) -> None:
    state = "broken" if problems else "good"
    what = (
        f"{findings.pipeline}, weights {findings.variant or 'plain'}, "
        if findings.pipeline
        else ""
    )
    hashed = f", {findings.hashed} hashes match" if findings.hashed and not problems else ""
    drawn = ", and it makes an image" if loaded and not problems else ""
    tensors = sum(part.tensors for part in findings.components)
    size = decimal(sum(part.size for part in findings.components))
    click.echo(f"{model_id}: {state} ({what}{tensors} tensors, {size}{hashed}{drawn})")
    for problem in problems:
        click.echo(f"    {problem}")


def _entry(
    model_id: str, price: str | None, capacity: int | None, *, cold: bool
) -> dict[str, object]:
    fields: dict[str, object] = {"id": model_id}
    if price is not None:
        fields["price"] = price
    if capacity is not None:
        fields["capacity"] = capacity
    if cold:
        fields["warm"] = False
    return fields


def _settings_to_extend(
    config: Path | None, data_dir: Path | None, *, write: bool
) -> NodeSettings:
    """Read the settings; a file that will be written need not be there yet."""
    if write and config is None:
        raise click.UsageError("--write needs the --config file to write to")
    new = write and config is not None and not config.exists()
    return load_settings(None if new else config, {"data_dir": data_dir})


def _configure(config: Path | None, entry: Mapping[str, object], *, write: bool) -> None:
    if not write or config is None:
        click.echo(model_entry(entry), nl=False)
        return
    try:
        alone = not _settings_to_extend(config, None, write=True).models
        append_model(config, entry)
    except LimnerError as error:
        raise click.ClickException(str(error)) from None
    click.echo(f"{entry['id']} is in {config}; restart the node to serve it", err=True)
    if alone and entry["id"] != BUILTIN_MODEL:
        click.echo(f"From now on {BUILTIN_MODEL} is served only if it is listed, too.", err=True)
