"""How soon a runner answers /health, idle and under load, and what it delivers meanwhile.

The runner is the real process with the built-in model. A process of its own asks for /health all the time, by turns
of the runner and of a server that does nothing else: what that one needs at worst is the machine's share, not the
runner's. The last line is one JSON object.
"""

import argparse
import asyncio
import http.client
import json
import math
import multiprocessing
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import psutil
from rich.console import Console
from rich.table import Table

from scripts.local_network.network import BIN, MODEL, ROOT, get_json, toml
from scripts.local_network.processes import Program

#: What the ai-runner's health check promises here, under any load.
BOUND_MS = 50
PAUSE_SECONDS = 0.002
READY_SECONDS = 120
_OK = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 15\r\n\r\n{"status":"OK"}'


@dataclass(frozen=True, slots=True)
class Probed:
    """Sorted latencies of /health in milliseconds."""

    latencies: tuple[float, ...]

    def quantile(self, share: float) -> float:
        """By nearest rank; 1.0 is the worst."""
        return self.latencies[max(0, math.ceil(len(self.latencies) * share) - 1)]


@dataclass(frozen=True, slots=True)
class Wish:
    """What the callers ask for, each again as soon as it is answered."""

    callers: int
    side: int
    steps: int


@dataclass(frozen=True, slots=True)
class Load:
    """How often what was answered in so many seconds, and the processor time of the runner's own process."""

    ends: Counter[str]
    seconds: float
    processor_seconds: float


def probe(urls: Sequence[str], seconds: float) -> list[Probed]:
    """Ask each for /health by turns, on kept connections, for so long. Runs in its own process."""
    found: list[list[float]] = [[] for _ in urls]
    with ExitStack() as stack:
        lines = [
            stack.enter_context(closing(http.client.HTTPConnection(urlsplit(url).netloc)))
            for url in urls
        ]
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            for line, latencies in zip(lines, found, strict=True):
                latencies.append(_ask(line))
                time.sleep(PAUSE_SECONDS)
    return [Probed(tuple(sorted(latencies))) for latencies in found]


def _ask(line: http.client.HTTPConnection) -> float:
    started = time.perf_counter()
    line.request("GET", "/health")
    answer = line.getresponse()
    body = answer.read()
    took = (time.perf_counter() - started) * 1000
    if answer.status != http.HTTPStatus.OK or json.loads(body)["status"] != "OK":
        message = f"/health said {answer.status}: {body[:200]!r}"
        raise RuntimeError(message)
    return took


def serve_nothing_else(told: Connection) -> None:
    """Answer every request with the same few bytes; tells its port. Runs in its own process."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readline():
            if await reader.readuntil(b"\r\n\r\n"):
                writer.write(_OK)

    async def serve() -> None:
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        told.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(serve())


async def keep_busy(url: str, wish: Wish, until: asyncio.Event) -> Counter[str]:
    """Keep the callers busy; returns how often what was answered."""
    ends: Counter[str] = Counter()
    body = {"prompt": "a small red circle", "width": wish.side, "height": wish.side}

    async def call(client: aiohttp.ClientSession, caller: int) -> None:
        while not until.is_set():
            asked = {**body, "num_inference_steps": wish.steps, "seed": caller}
            async with client.post(f"{url}/text-to-image", json=asked) as answer:
                content = await answer.read()
            refused = b"insufficient capacity" in content
            ends["sent elsewhere" if refused else f"{answer.status}"] += 1
            if refused:
                await asyncio.sleep(0.05)

    async with (
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as client,
        asyncio.TaskGroup() as group,
    ):
        for caller in range(wish.callers):
            group.create_task(call(client, caller))
    return ends


async def measure(
    runner: Program, control: str, wish: Wish, seconds: float
) -> tuple[list[Probed], list[Probed], Load]:
    """Probes while idle, probes under load, and that load."""
    loop = asyncio.get_running_loop()
    urls = (runner.ready.url, control)
    process = psutil.Process(runner.pid)
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as prober:
        idle = await loop.run_in_executor(prober, probe, urls, min(5.0, seconds / 2))
        until = asyncio.Event()
        started, before = time.perf_counter(), process.cpu_times()
        calling = asyncio.ensure_future(keep_busy(runner.ready.url, wish, until))
        await asyncio.sleep(1)
        busy = await loop.run_in_executor(prober, probe, urls, seconds)
        until.set()
        ends = await calling
        after, elapsed = process.cpu_times(), time.perf_counter() - started
    spent = after.user + after.system - before.user - before.system
    return idle, busy, Load(ends, elapsed, spent)


def start_runner(folder: Path, capacity: int, threads: int) -> Program:
    """Start a runner whose jobs share steps; returns once its model is in memory."""
    config = folder / "node.toml"
    model: dict[str, str | int | float | bool] = {
        "id": MODEL,
        "capacity": capacity,
        "deterministic": False,
    }
    settings = {"queue.max_waiting": 64, "engine.threads": threads}
    config.write_text(toml(settings, [("models", model)]))
    command = [str(BIN / "limner-node"), "runner", "--config", str(config)]
    command += ["--data-dir", str(folder / "data"), "--listen", "127.0.0.1:0", "--json-ready"]
    program = Program.start(command, log=folder / "runner.log")
    end = time.monotonic() + READY_SECONDS
    while get_json(f"{program.ready.url}/health")["status"] != "OK":
        if time.monotonic() > end:
            program.stop()
            raise TimeoutError(f"no model after {READY_SECONDS} s; see {program.log}")
        time.sleep(0.2)
    return program


def report(idle: Sequence[Probed], busy: Sequence[Probed], load: Load) -> dict[str, float]:
    """Print a table; return its figures."""
    table = Table(title="/health in ms")
    for column in ("", "asked", "p50", "p99", "worst"):
        table.add_column(column, justify="right" if column else "left")
    figures: dict[str, float] = {}
    rows = zip(("idle", "idle_control", "busy", "busy_control"), (*idle, *busy), strict=True)
    for name, probed in rows:
        values = [round(probed.quantile(share), 3) for share in (0.5, 0.99, 1.0)]
        table.add_row(name.replace("_", ", "), str(len(probed.latencies)), *map(str, values))
        figures |= {
            f"{name}_{label}_ms": value
            for label, value in zip(("p50", "p99", "worst"), values, strict=True)
        }
    for name, probed in (("busy", busy[0]), ("busy_control", busy[1])):
        figures[f"{name}_over_bound"] = sum(one > BOUND_MS for one in probed.latencies)
    figures |= {
        "images_per_s": round(load.ends["200"] / load.seconds, 2),
        "processor_share": round(load.processor_seconds / load.seconds, 4),
        **{f"answers_{name.replace(' ', '_')}": count for name, count in load.ends.items()},
    }
    console = Console(width=100)
    console.print(table)
    console.print(
        f"over {BOUND_MS} ms under load: {figures['busy_over_bound']}, of the control "
        f"{figures['busy_control_over_bound']}; {figures['images_per_s']} images/s; the runner's own "
        f"process took {figures['processor_share']:.1%} of a core; answers: {dict(load.ends)}"
    )
    return figures


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="scripts/bench runner", description=__doc__)
    parser.add_argument("--callers", type=int, default=32, help="at once (default 32)")
    parser.add_argument("--capacity", type=int, default=16, help="the runner's (default 16)")
    parser.add_argument(
        "--side", type=int, default=256, help="of an image in pixels (default 256)"
    )
    parser.add_argument("--steps", type=int, default=8, help="of an image (default 8)")
    parser.add_argument("--threads", type=int, default=0, help="of torch; 0: one a core (default)")
    parser.add_argument("--seconds", type=float, default=20, help="under load (default 20)")
    options = parser.parse_args(arguments)
    (ROOT / "out").mkdir(exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="bench-runner-", dir=ROOT / "out"))
    receive, send = multiprocessing.Pipe(duplex=False)
    control = multiprocessing.get_context("spawn").Process(
        target=serve_nothing_else, args=(send,), daemon=True
    )
    program: Program | None = None
    try:
        control.start()
        program = start_runner(folder, options.capacity, options.threads)
        control_url = f"http://127.0.0.1:{receive.recv()}"
        wish = Wish(options.callers, options.side, options.steps)
        measured = asyncio.run(measure(program, control_url, wish, options.seconds))
    finally:
        if program is not None:
            program.stop()
        control.terminate()
        control.join()
        shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps(report(*measured)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
