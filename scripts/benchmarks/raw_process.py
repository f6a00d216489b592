"""The raw loop's process, and callers of it: one image after the other, or requests in batches."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import psutil

from node.engine.launch import worker_environment
from scripts.benchmarks.callers import Made
from scripts.benchmarks.wishes import Wish

_ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Round:
    """So many images in so many seconds, on the wall and of the processor."""

    images: int
    seconds: float
    cpu_seconds: float

    @property
    def rate(self) -> float:
        return self.images / self.seconds


class RawLoop:
    """The yardstick's process, silent between rounds."""

    def __init__(self, model: Path, device: str, threads: int) -> None:
        self._command = (
            sys.executable,
            *("-W", "ignore", "-m", "scripts.benchmarks.raw_loop", str(model), device),
        )
        self._environment = worker_environment(os.environ, threads)
        self.device_bytes = 0

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            *self._command,
            cwd=_ROOT,
            env=self._environment,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        await self._answer()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.kill()
        await self._process.wait()

    async def run(self, calls: Sequence[Sequence[Wish]]) -> Round:
        """Make calls in turn; each is a batch of wishes of one shape."""
        before = cpu_seconds(self._process.pid)
        if self._process.stdin is None:
            raise RuntimeError("a pipe was asked for")
        line = json.dumps([_call(wishes) for wishes in calls])
        self._process.stdin.write(f"{line}\n".encode())
        answer = await self._answer()
        self.device_bytes = max(self.device_bytes, int(answer["device_bytes"]))
        images = sum(len(wishes) for wishes in calls)
        return Round(images, answer["seconds"], cpu_seconds(self._process.pid) - before)

    def cpu_seconds(self) -> float:
        """Processor seconds that it has used so far."""
        return cpu_seconds(self._process.pid)

    async def one_by_one(self, wishes: Sequence[Wish]) -> Round:
        """Make images one after the other."""
        return await self.run([[wish] for wish in wishes])

    async def _answer(self) -> dict[str, float]:
        if self._process.stdout is None:
            raise RuntimeError("a pipe was asked for")
        line = await self._process.stdout.readline()
        if not line:
            raise RuntimeError("the raw loop ended; run it by hand to see why")
        answer: dict[str, float] = json.loads(line)
        return answer


class Pipeline(Protocol):
    """What `RequestBatching` needs of a raw loop."""

    async def run(self, calls: Sequence[Sequence[Wish]]) -> Round:
        """Make calls in turn; each is a batch of wishes of one shape."""


@dataclass(frozen=True, slots=True)
class _Waiting:
    wish: Wish
    made: "asyncio.Future[None]"


class RequestBatching:
    """What servers do that batch requests, and not steps: a raw pipeline behind a queue.

    The oldest request goes next, together with those of its shape that wait, `most` at once; who
    comes later waits until all of them are done. `most` 1 is a plain queue.
    """

    def __init__(self, raw: Pipeline, most: int) -> None:
        self._raw = raw
        self._most = most
        self._waiting: list[_Waiting] = []
        self._filled = asyncio.Event()

    async def make(self, wish: Wish, *, watch: bool = False) -> Made:
        """Return when the wish's batch is made."""
        del watch  # nobody sees anything before the end
        made: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(wish, made))
        self._filled.set()
        await made
        return Made(b"")

    async def serve(self) -> None:
        """Work until cancelled."""
        while True:
            await self._filled.wait()
            await asyncio.sleep(0.001)  # whoever was just answered asks again
            lead = self._waiting[0]
            alike = [one for one in self._waiting if one.wish.shape == lead.wish.shape]
            batch = alike[: self._most]
            self._waiting = [one for one in self._waiting if one not in batch]
            if not self._waiting:
                self._filled.clear()
            await self._raw.run([[one.wish for one in batch]])
            for one in batch:
                one.made.set_result(None)


@asynccontextmanager
async def request_batching(raw: Pipeline, most: int) -> AsyncIterator[RequestBatching]:
    """Serve requests in batches of `most` for the length of the block."""
    target = RequestBatching(raw, most)
    serving = asyncio.create_task(target.serve())
    try:
        yield target
    finally:
        serving.cancel()
        await asyncio.wait([serving])


def cpu_seconds(pid: int | None) -> float:
    """Processor seconds that a process has used so far, all threads."""
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def _call(wishes: Sequence[Wish]) -> dict[str, Any]:
    shape = wishes[0].shape
    return {
        "width": shape.width,
        "height": shape.height,
        "steps": shape.steps,
        "seeds": [wish.seed for wish in wishes],
        "prompts": [wish.prompt for wish in wishes],
    }
