"""What the gateway's benchmark measures with, on loopback sockets."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import orjson
import pytest
from typing_extensions import override

from scripts.benchmarks.gateway import Rounds, figures_of, ratios
from scripts.benchmarks.load import Load, Measured, UnexpectedAnswerError, post
from scripts.benchmarks.soak import Soaked, soak
from scripts.benchmarks.stub_orchestrator import Answers, JobProtocol, png
from scripts.benchmarks.ways import CASES, LIVEPEER, OPENAI, Way

SMALL = CASES[0]


class Stalling(JobProtocol):
    """Holds its first answer back, and with it every one behind it, for as long as it is told."""

    seconds = 0.3

    @override
    def data_received(self, data: bytes) -> None:
        loop = asyncio.get_running_loop()
        stalled, Stalling.seconds = Stalling.seconds, 0.0
        loop.call_later(stalled, super().data_received, data)


@asynccontextmanager
async def serving(protocol: type[JobProtocol] = JobProtocol) -> AsyncIterator[str]:
    answers = Answers()
    server = await asyncio.get_running_loop().create_server(
        lambda: protocol(answers), "127.0.0.1", 0
    )
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@pytest.mark.parametrize("path", [LIVEPEER, OPENAI])
async def test_the_stub_answers_both_apis_with_as_many_images_as_asked(path: str) -> None:
    async with serving() as url:
        case = replace(SMALL, images=3)
        _, _, body = (await Way("any", url, path).load(case).answer()).partition(b"\r\n\r\n")
    answer = orjson.loads(body)
    assert len(answer["images" if path == LIVEPEER else "data"]) == 3


async def test_an_open_loop_sends_at_its_rate_whatever_is_answered() -> None:
    async with serving() as url:
        measured = (
            await Way("any", url, LIVEPEER).load(SMALL).run_at(400, seconds=0.25, connections=4)
        )
    assert len(measured.latencies) == 100
    assert measured.elapsed >= 0.24


async def test_an_open_loop_charges_a_stall_to_all_that_waited_for_it() -> None:
    async with serving(Stalling) as url:
        measured = (
            await Way("any", url, LIVEPEER).load(SMALL).run_at(100, seconds=0.2, connections=1)
        )
    assert len(measured.latencies) == 20
    # A closed loop would have had one slow answer: these were due while it was waited for.
    assert sum(latency > 0.1 for latency in measured.latencies) >= 15


async def test_another_answer_than_200_ends_the_run() -> None:
    async with serving() as url:
        broken = Load(url, lambda: post(url, LIVEPEER, b"no JSON", {}))
        with pytest.raises((UnexpectedAnswerError, ExceptionGroup, OSError)):
            await broken.run_at(10, seconds=0.1, connections=1)


async def test_a_soak_passes_as_many_bytes_as_it_says() -> None:
    async with serving() as url:
        each = len(png(*SMALL.size, noisy=False))
        soaked = await soak(Way("any", url, LIVEPEER), SMALL, 100 * each, each)
    assert soaked.image_bytes == 100 * each
    assert len(soaked.resident_mb) == 21


def test_growth_counts_from_when_the_pools_are_full() -> None:
    climbing = (10.0, *(100.0 + number for number in range(20)))
    assert Soaked(1, 1.0, climbing).growth_mb == 15.0


def rounds(*, milliseconds: float, processor: float) -> Rounds:
    measured = Measured((milliseconds / 1000,) * 10, elapsed=milliseconds / 100)
    return Rounds([measured], [measured], [measured], [processor])


def test_what_is_added_is_told_apart_from_what_is_there_anyway() -> None:
    found = {
        "direct": rounds(milliseconds=1, processor=0),
        "gateway": rounds(milliseconds=3, processor=0.0005),
        "nginx": rounds(milliseconds=1.5, processor=0.0001),
        "direct_openai": rounds(milliseconds=1, processor=0),
        "openai": rounds(milliseconds=2, processor=0.0004),
        "litellm": rounds(milliseconds=31, processor=0.02),
    }
    figures: dict[str, float] = {}
    for name in ("gateway", "nginx", "openai", "litellm"):
        baseline = "direct_openai" if name in {"openai", "litellm"} else "direct"
        figures |= figures_of(SMALL, Way(name, "", LIVEPEER, baseline=baseline), found)
    assert figures["small_added_p50_ms"] == figures["small_open_added_p99_ms"] == 2
    assert figures["small_cpu_s_per_10000"] == 5
    assert ratios(SMALL, figures) == {
        "small_litellm_over_gateway_added_p50": 30,
        "small_litellm_over_gateway_cpu": 50,
        "small_gateway_over_nginx_added_p50": 4,
        "small_gateway_over_nginx_cpu": 5,
    }
