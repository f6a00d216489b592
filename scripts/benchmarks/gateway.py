"""What the gateway adds to a request: the same client asks a stub orchestrator directly and through the gateway.

The gateway is the real process with a key that has budgets and rates, routing, journal, image store and its log; the
stub costs microseconds. Beside it, in the same run: nginx, which hands on what it gets and nothing else, and LiteLLM's
proxy, which buys the same images from the same stub by OpenAI's API, as the gateway sells them by it too.

Rounds alternate over all of them, so that whatever else the machine does falls on each; figures are medians over the
rounds. With more than one core, whoever is measured has one to itself. The last line is one JSON object.
"""

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import uvloop
from rich.console import Console
from rich.table import Table

from scripts.benchmarks import rivals
from scripts.benchmarks.load import Measured
from scripts.benchmarks.rivals import NotHereError
from scripts.benchmarks.soak import soak
from scripts.benchmarks.stub_orchestrator import LARGE, MODEL, png
from scripts.benchmarks.ways import CASES, LIVEPEER, OPENAI, Case, Way
from scripts.local_network.network import Gateway, free_port, start_gateway
from scripts.local_network.processes import Program

ROOT = Path(__file__).resolve().parents[2]
_OPEN_CONNECTIONS = 64
#: Limits that are looked at with every request, and never reached.
_LIMITS = (
    *("--requests-per-minute", "1000000000", "--pixels-per-minute", "1000000000000000"),
    *("--wei-per-day", "1000000000eth", "--wei-per-month", "1000000000eth"),
)


@dataclass(slots=True)
class Rounds:
    """All that was measured of one way in one case."""

    alone: list[Measured] = field(default_factory=list)
    burst: list[Measured] = field(default_factory=list)
    at_rate: list[Measured] = field(default_factory=list)
    #: Of one request of a burst.
    processor_seconds: list[float] = field(default_factory=list)

    def p50_ms(self) -> float:
        return statistics.median(one.quantile_ms(0.5) for one in self.alone)


async def measure(
    case: Case, ways: Sequence[Way], rounds: int, seconds: float
) -> dict[str, Rounds]:
    """`rounds` rounds after one that warms up and is thrown away."""
    found = {way.name: Rounds() for way in ways}
    for number in range(rounds + 1):
        for way in ways:
            load, one = way.load(case), found[way.name]
            alone = await load.run(requests=way.count(case.requests), connections=1)
            before, count = way.processor_seconds(), way.count(case.burst)
            burst = await load.run(requests=count, connections=case.connections)
            spent = way.processor_seconds() - before
            at_rate = await load.run_at(
                case.rate * way.share, seconds=seconds, connections=_OPEN_CONNECTIONS
            )
            if number:
                one.alone.append(alone)
                one.burst.append(burst)
                one.at_rate.append(at_rate)
                one.processor_seconds.append(spent / count)
    return found


def added_ms(ours: Sequence[Measured], baseline: Sequence[Measured], quantile: float) -> float:
    """The median, over rounds, of how much more a request took than by the baseline of its round."""
    return statistics.median(
        one.quantile_ms(quantile) - other.quantile_ms(quantile)
        for one, other in zip(ours, baseline, strict=True)
    )


def figures_of(case: Case, way: Way, found: dict[str, Rounds]) -> dict[str, float]:
    one, baseline = found[way.name], found[way.baseline]
    rate = statistics.median(burst.requests_per_s for burst in one.burst)
    processor = statistics.median(one.processor_seconds)
    name = case.name if way.name == "gateway" else f"{case.name}_{way.name}"
    return {
        f"{name}_added_p50_ms": round(added_ms(one.alone, baseline.alone, 0.5), 4),
        f"{name}_added_p99_ms": round(added_ms(one.alone, baseline.alone, 0.99), 4),
        f"{name}_open_added_p50_ms": round(added_ms(one.at_rate, baseline.at_rate, 0.5), 4),
        f"{name}_open_added_p99_ms": round(added_ms(one.at_rate, baseline.at_rate, 0.99), 4),
        f"{name}_requests_per_s": round(rate, 1),
        f"{name}_cpu_ms_per_request": round(processor * 1000, 4),
        f"{name}_cpu_s_per_10000": round(processor * 10_000, 3),
    }


def ratios(case: Case, figures: dict[str, float]) -> dict[str, float]:
    """Ours against the others', same run and, for LiteLLM, same API."""
    found: dict[str, float] = {}
    for name, other, ours in (
        ("litellm_over_gateway", f"{case.name}_litellm", f"{case.name}_openai"),
        ("gateway_over_nginx", case.name, f"{case.name}_nginx"),
    ):
        for what in ("added_p50_ms", "cpu_ms_per_request"):
            above, below = figures.get(f"{other}_{what}"), figures.get(f"{ours}_{what}")
            if above is not None and below:
                short = what.removesuffix("_ms").removesuffix("_ms_per_request")
                found[f"{case.name}_{name}_{short}"] = round(above / below, 2)
    return found


async def run(
    ways: Sequence[Way], cases: Sequence[Case], options: argparse.Namespace
) -> dict[str, float]:
    table = Table(title="added to a request to the stub orchestrator (ms; medians over rounds)")
    columns = (
        "answer",
        "through",
        "p50",
        "p99",
        "p50 at rate",
        "p99 at rate",
        "CPU",
        "requests/s",
    )
    for column in columns:
        table.add_column(column, justify="left" if column in columns[:2] else "right")
    figures: dict[str, float] = {}
    for case in cases:
        found = await measure(case, ways, options.rounds, options.open_seconds)
        for way in ways:
            if not way.baseline:
                continue
            told = figures_of(case, way, found)
            p50, p99, open_p50, open_p99, rate, processor, _ = told.values()
            row = [f"{value:.3f}" for value in (p50, p99, open_p50, open_p99, processor)]
            table.add_row(case.name, way.name, *row, f"{rate:,.0f}")
            figures |= told
        figures |= ratios(case, figures)
    Console(width=110).print(table)
    return figures


async def run_soak(way: Way, gigabytes: float) -> dict[str, float]:
    case = next(case for case in CASES if case.name == "image")
    soaked = await soak(way, case, round(gigabytes * 1e9), len(png(*LARGE, noisy=True)))
    print("resident MB, each twentieth:", *(f"{one:.0f}" for one in soaked.resident_mb))
    return {
        "soak_gb": round(soaked.image_bytes / 1e9, 3),
        "soak_seconds": round(soaked.seconds, 1),
        "soak_resident_mb_before": round(soaked.resident_mb[0], 1),
        "soak_resident_mb_most": round(max(soaked.resident_mb), 1),
        "soak_resident_mb_after": round(soaked.resident_mb[-1], 1),
        "soak_growth_mb": round(soaked.growth_mb, 1),
    }


def pin(pid: int, cores: Sequence[int]) -> None:
    """Linux: keep a process, every thread of it, on `cores`; elsewhere nothing is pinned."""
    if not hasattr(os, "sched_setaffinity"):
        return
    for process in (psutil.Process(pid), *psutil.Process(pid).children(recursive=True)):
        for thread in Path(f"/proc/{process.pid}/task").iterdir():
            os.sched_setaffinity(int(thread.name), cores)


@contextmanager
def opened_ways(folder: Path, options: argparse.Namespace) -> Iterator[list[Way]]:
    """Everybody who is measured, started and kept on cores of their own."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [0]
    with ExitStack() as stack:
        command = [sys.executable, "-m", "scripts.benchmarks.stub_orchestrator"]
        stub = Program.start([*command, "--port", str(free_port())], log=folder / "stub.log")
        stack.callback(stub.stop)
        gateway = _gateway(folder / "gateway", stub, options)
        stack.callback(gateway.program.stop)
        key, pid = gateway.create_key("bench", *_LIMITS), gateway.program.pid
        straight = stub.ready.admin_url
        ways = [
            Way("direct", straight, LIVEPEER),
            Way("gateway", gateway.url, LIVEPEER, key, pid, "direct"),
        ]
        if not options.soak:
            ways += _rivals(folder, straight, stack)
            ways += [
                Way("direct_openai", straight, OPENAI),
                Way("openai", gateway.url, OPENAI, key, pid, "direct_openai"),
                *_litellm(folder, straight, stack, options),
            ]
        if len(cores) > 1:
            for way in ways:
                if way.pid is not None:
                    pin(way.pid, cores[:1])
            pin(stub.pid, cores[1:])
            pin(os.getpid(), cores[1:])
        yield ways


def _gateway(folder: Path, stub: Program, options: argparse.Namespace) -> Gateway:
    # A soak is not to fill the disk of whoever runs it.
    gateway = start_gateway(
        folder,
        orchestrators=[stub.ready.url],
        log_level=options.log_level,
        settings={"images.max_bytes": 2**30},
    )
    gateway.wait_for_model(MODEL)
    return gateway


def _rivals(folder: Path, straight: str, stack: ExitStack) -> list[Way]:
    try:
        found = stack.enter_context(rivals.nginx(folder / "nginx", straight))
    except NotHereError as why:
        print(f"no nginx column: {why}", file=sys.stderr)
        return []
    return [Way("nginx", found.url, LIVEPEER, pid=found.pid, baseline="direct")]


def _litellm(
    folder: Path, straight: str, stack: ExitStack, options: argparse.Namespace
) -> list[Way]:
    if options.no_litellm:
        return []
    try:
        found = stack.enter_context(rivals.litellm(folder / "litellm", straight, MODEL))
    except NotHereError as why:
        print(f"no LiteLLM column: {why}", file=sys.stderr)
        return []
    return [Way("litellm", found.url, OPENAI, found.key, found.pid, "direct_openai", share=0.05)]


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="scripts/bench gateway", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="measured rounds (default 7)")
    parser.add_argument("--cases", default="small,image,four", help="default small,image,four")
    parser.add_argument(
        "--open-seconds", type=float, default=3, help="of the open loop, each round (default 3)"
    )
    parser.add_argument("--no-litellm", action="store_true", help="without its column")
    parser.add_argument(
        "--soak", type=float, nargs="?", const=1, metavar="GB", help="pass images, watch memory"
    )
    parser.add_argument("--data", type=Path, help="where the gateway keeps its data meanwhile")
    parser.add_argument("--log-level", default="info", help="the gateway's (default info)")
    options = parser.parse_args(arguments)
    parent = options.data or ROOT / "out"
    parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="bench-gateway-", dir=parent))
    try:
        with opened_ways(folder, options) as ways:
            if options.soak:
                figures = uvloop.run(run_soak(ways[1], options.soak))
            else:
                wanted = options.cases.split(",")
                cases = [case for case in CASES if case.name in wanted]
                figures = uvloop.run(run(ways, cases, options))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
