"""Prints what the engine's benchmark found."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from scripts.benchmarks.phases import Figures


def print_report(
    figures: Figures, title: str, callers: Sequence[int], ways: Sequence[str]
) -> None:
    """Print tables and lines for people; `ways` are the prefixes of the comparisons made."""
    console = Console(width=110)
    for way in ways:
        console.print(_comparison(figures, f"{title}: {_WAYS[way]}", callers, way))
    console.print(_ceiling(figures))
    for line in _lines(figures):
        console.print(line)


_WAYS = {"engine": "the engine in process", "http": "the engine through a node's port"}


def _comparison(figures: Figures, title: str, callers: Sequence[int], way: str) -> Table:
    table = Table(title=f"{title}, PNG included")
    columns = ("callers", "images/s", "/raw", "by CPU", "p50 s", "p95 s", "p99 s", "batch", "busy")
    for column in columns:
        table.add_column(column, justify="right")
    names = ("images_per_s", "over_raw", "over_raw_cpu", "p50_s", "p95_s", "p99_s")
    for count in callers:
        if f"{way}_over_raw_{count}" not in figures:
            continue
        cells = [_number(figures, f"{way}_{name}_{count}") for name in names]
        cells += [_number(figures, f"{way}_mean_batch_{count}", 1)]
        cells += [_number(figures, f"{way}_busy_{count}", 2)]
        table.add_row(str(count), *cells)
    return table


def _ceiling(figures: Figures) -> Table:
    table = Table(title="the raw pipeline by batch size: the machine's own ceiling")
    for column in ("batch", "images/s", "/raw", "by CPU"):
        table.add_column(column, justify="right")
    prefix = "raw_batch_images_per_s_"
    for name in figures:
        if name.startswith(prefix):
            size = name.removeprefix(prefix)
            gains = (f"raw_batched_{size}", f"raw_batched_cpu_{size}")
            table.add_row(size, *(_number(figures, one) for one in (name, *gains)))
    return table


def _lines(figures: Figures) -> list[str]:
    def n(name: str, digits: int = 2) -> str:
        return _number(figures, name, digits)

    return [
        (
            f"start to first image {n('first_image_s', 1)} s, one alone {n('solo_s')} s; worker "
            f"{n('worker_resident_mb', 0)} MB, at most {n('peak_resident_mb', 0)} MB, on the device "
            f"{n('peak_device_mb', 0)} MB"
        ),
        (
            f"against requests in batches: {n('engine_over_request_batching')} with one shape, "
            f"{n('mixed_over_request_batching')} with sizes and steps mixed; mixed against the raw "
            f"loop: {n('mixed_over_raw')}, by CPU {n('mixed_over_raw_cpu')}"
        ),
        (
            f"a short job behind {n('long_jobs', 0)} long ones takes {n('short_behind_long')} of its "
            "time alone"
        ),
        (
            f"first preview after {n('first_preview_s', 3)} s, {n('first_preview_lag_ms', 1)} ms after "
            f"the first step; over HTTP {n('http_first_preview_s', 3)} s, "
            f"{n('http_first_preview_lag_ms', 1)} ms"
        ),
        (
            f"batched against alone: {n('psnr_batched_db', 1)} dB at worst (100: the same), "
            f"{n('identical_batched')} identical"
        ),
    ]


def _number(figures: Figures, name: str, digits: int = 3) -> str:
    value = figures.get(name)
    return "-" if value is None or isinstance(value, dict) else f"{value:.{digits}f}"
