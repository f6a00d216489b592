"""The ways to the same image: straight to the stub, through our gateway, and through others."""

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass, field

import psutil

from scripts.benchmarks.load import Load, post
from scripts.benchmarks.stub_orchestrator import LARGE, MODEL, OPENAI_PATH

PROMPT = "a small red circle on a blue background"
LIVEPEER = "/text-to-image"
OPENAI = OPENAI_PATH.decode()


@dataclass(frozen=True, slots=True)
class Case:
    """One size of answer; `requests` a round at one connection, `burst` a round at `connections`."""

    name: str
    size: tuple[int, int]
    images: int
    requests: int
    burst: int
    connections: int
    #: Requests a second of the open loop.
    rate: float


CASES = (
    Case("small", (64, 64), 1, requests=500, burst=2000, connections=16, rate=300),
    Case("image", LARGE, 1, requests=60, burst=160, connections=8, rate=20),
    Case("four", LARGE, 4, requests=20, burst=40, connections=8, rate=4),
)


@dataclass(frozen=True, slots=True)
class Way:
    """Where requests go, in which of the two APIs, and what it is compared with."""

    name: str
    url: str
    path: str
    key: str = ""
    #: Whose processor time counts; None where nobody's does.
    pid: int | None = None
    #: The way without anybody between; "" for such ways themselves.
    baseline: str = ""
    #: The part of a case's requests that it gets: some take a hundred times as long.
    share: float = 1.0
    seeds: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def count(self, requests: int) -> int:
        return max(2, round(requests * self.share))

    def load(self, case: Case) -> Load:
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        body = livepeer_body if self.path == LIVEPEER else openai_body
        return Load(
            self.url, lambda: post(self.url, self.path, body(case, next(self.seeds)), headers)
        )

    def processor_seconds(self) -> float:
        """What its processes used until now, all their threads."""
        if self.pid is None:
            return 0.0
        process = psutil.Process(self.pid)
        times = [one.cpu_times() for one in (process, *process.children(recursive=True))]
        return sum(one.user + one.system for one in times)

    def resident_mb(self) -> float:
        if self.pid is None:
            return 0.0
        process = psutil.Process(self.pid)
        found = (process, *process.children(recursive=True))
        return sum(one.memory_info().rss for one in found) / 1e6


def livepeer_body(case: Case, seed: int) -> bytes:
    width, height = case.size
    return _json(
        {
            "model_id": MODEL,
            "loras": "",
            "prompt": PROMPT,
            "height": height,
            "width": width,
            "guidance_scale": 7.5,
            "negative_prompt": "",
            "safety_check": True,
            "seed": seed,
            "num_inference_steps": 50,
            "num_images_per_prompt": case.images,
        }
    )


def openai_body(case: Case, seed: int) -> bytes:
    """OpenAI's request has no seed; the images come in the answer."""
    del seed
    width, height = case.size
    return _json(
        {
            "model": MODEL,
            "prompt": PROMPT,
            "n": case.images,
            "size": f"{width}x{height}",
            "response_format": "b64_json",
        }
    )


def _json(body: dict[str, object]) -> bytes:
    return json.dumps(body, separators=(",", ":")).encode()
