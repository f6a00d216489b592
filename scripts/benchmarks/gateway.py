"""What the gateway adds to a request: the same client asks a stub orchestrator directly and through the gateway.

The gateway is the real process with a key, routing, budget, journal and image store; the stub costs microseconds.
Direct and gateway rounds alternate, so that whatever else the machine does falls on both; figures are medians over
the rounds. With more than one core the gateway has one to itself. The last line is one JSON object.
"""

import argparse
import itertools
import json
import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
import uvloop
from rich.console import Console
from rich.table import Table

from scripts.benchmarks.load import Load, Measured, post
from scripts.benchmarks.stub_orchestrator import LARGE, MODEL
from scripts.local_network.network import Gateway, free_port, start_gateway
from scripts.local_network.processes import Program

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Case:
    """One size of answer; `requests` a round at one connection, `burst` a round at `connections`."""

    name: str
    size: tuple[int, int]
    requests: int
    burst: int
    connections: int


CASES = (
    Case("small", (64, 64), requests=500, burst=2000, connections=16),
    Case("image", LARGE, requests=60, burst=160, connections=8),
)


@dataclass(frozen=True, slots=True)
class Round:
    """Both targets measured one after the other."""

    direct: Measured
    gateway: Measured
    burst: Measured
    #: Processor seconds of the gateway for one request of the burst, all threads.
    processor_seconds: float

    @property
    def added_p50_ms(self) -> float:
        return self.gateway.quantile_ms(0.5) - self.direct.quantile_ms(0.5)

    @property
    def added_p99_ms(self) -> float:
        return self.gateway.quantile_ms(0.99) - self.direct.quantile_ms(0.99)


def request_body(case: Case, seed: int) -> bytes:
    width, height = case.size
    body = {
        "model_id": MODEL,
        "loras": "",
        "prompt": "a small red circle on a blue background",
        "height": height,
        "width": width,
        "guidance_scale": 7.5,
        "negative_prompt": "",
        "safety_check": True,
        "seed": seed,
        "num_inference_steps": 50,
        "num_images_per_prompt": 1,
    }
    return json.dumps(body, separators=(",", ":")).encode()


async def measure(
    case: Case, direct: Load, gateway: Load, process: psutil.Process, rounds: int
) -> list[Round]:
    """`rounds` rounds after one that warms up and is thrown away."""
    measured = []
    for _ in range(rounds + 1):
        alone = await direct.run(requests=case.requests, connections=1)
        through = await gateway.run(requests=case.requests, connections=1)
        before = process.cpu_times()
        burst = await gateway.run(requests=case.burst, connections=case.connections)
        after = process.cpu_times()
        spent = after.user + after.system - before.user - before.system
        measured.append(Round(alone, through, burst, spent / case.burst))
    return measured[1:]


async def run(stub: Program, gateway: Gateway, rounds: int) -> dict[str, float]:
    console = Console(width=100)
    table = Table(title="gateway against stub orchestrator (ms; medians over rounds)")
    columns = (
        "answer",
        "direct p50",
        "gateway p50",
        "added p50",
        "added p99",
        "CPU",
        "requests/s",
    )
    for column in columns:
        table.add_column(column, justify="left" if column == "answer" else "right")
    figures: dict[str, float] = {}
    seeds = itertools.count(1)
    for case in CASES:

        def through(url: str, key: str, case: Case = case) -> Load:
            headers = {"Authorization": f"Bearer {key}"} if key else {}
            return Load(
                url, lambda: post(url, "/text-to-image", request_body(case, next(seeds)), headers)
            )

        direct = through(stub.ready.admin_url, "")
        process = psutil.Process(gateway.program.pid)
        through_it = through(gateway.url, gateway.key)
        measured = await measure(case, direct, through_it, process, rounds)
        p50, p99 = (
            statistics.median(getattr(one, name) for one in measured)
            for name in ("added_p50_ms", "added_p99_ms")
        )
        rate = statistics.median(one.burst.requests_per_s for one in measured)
        processor = statistics.median(one.processor_seconds for one in measured) * 1000
        figures |= {
            f"{case.name}_added_p50_ms": round(p50, 4),
            f"{case.name}_added_p99_ms": round(p99, 4),
            f"{case.name}_cpu_ms_per_request": round(processor, 4),
            f"{case.name}_requests_per_s": round(rate, 1),
        }
        medians = [
            statistics.median(getattr(one, target).quantile_ms(0.5) for one in measured)
            for target in ("direct", "gateway")
        ]
        row = [f"{value:.3f}" for value in (*medians, p50, p99, processor)]
        table.add_row(case.name, *row, f"{rate:,.0f} ({case.connections} connections)")
    console.print(table)
    return figures


def pin(pid: int, cores: Sequence[int]) -> None:
    """Linux: keep a process, every thread of it, on `cores`; elsewhere nothing is pinned."""
    if hasattr(os, "sched_setaffinity"):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            os.sched_setaffinity(int(thread.name), cores)


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="scripts/bench gateway", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="measured rounds (default 7)")
    parser.add_argument("--data", type=Path, help="where the gateway keeps its data meanwhile")
    parser.add_argument("--log-level", default="warning", help="the gateway's (default warning)")
    options = parser.parse_args(arguments)
    parent = options.data or ROOT / "out"
    parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="bench-gateway-", dir=parent))
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [0]
    programs: list[Program] = []
    try:
        command = [sys.executable, "-m", "scripts.benchmarks.stub_orchestrator"]
        command += ["--port", str(free_port())]
        stub = Program.start(command, log=folder / "stub.log")
        programs.append(stub)
        gateway = start_gateway(
            folder / "gateway", orchestrators=[stub.ready.url], log_level=options.log_level
        )
        programs.append(gateway.program)
        gateway.wait_for_model(MODEL)
        if len(cores) > 1:
            pin(gateway.program.pid, cores[:1])
            pin(stub.pid, cores[1:])
            pin(os.getpid(), cores[1:])
        figures = uvloop.run(run(stub, gateway, options.rounds))
    finally:
        for program in reversed(programs):
            program.stop()
        shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
