"""The parts of the engine's benchmark that decide what is compared with what."""

import asyncio
import itertools
from collections.abc import Sequence

import numpy as np
import pytest

from scripts.benchmarks.callers import Made, Run, call
from scripts.benchmarks.phases import psnr
from scripts.benchmarks.raw_process import Round, request_batching
from scripts.benchmarks.wishes import Shape, Wish, alike, mixed

_SHAPE = Shape(512, 256, 20)


class _Pipeline:
    """Notes the batches it is called with."""

    def __init__(self) -> None:
        self.calls: list[Sequence[Wish]] = []

    async def run(self, calls: Sequence[Sequence[Wish]]) -> Round:
        self.calls += calls
        await asyncio.sleep(0.005)
        return Round(len(calls[0]), 0.005, 0.005)


class _Target:
    """Knows how many it works for at once."""

    def __init__(self) -> None:
        self.now = 0
        self.most = 0

    async def make(self, wish: Wish, *, watch: bool = False) -> Made:
        del wish, watch
        self.now += 1
        self.most = max(self.now, self.most)
        await asyncio.sleep(0.001)
        self.now -= 1
        return Made(b"")


def test_mixed_wishes_mix_all_sizes_with_all_step_counts() -> None:
    wishes = list(itertools.islice(mixed(_SHAPE, 64), 24))
    assert len({wish.shape for wish in wishes}) == 12
    assert {wish.shape.steps for wish in wishes} == {20, 10, 15}
    assert len({(wish.shape.width, wish.shape.height) for wish in wishes}) == 4
    assert all(wish.shape.width % 64 == wish.shape.height % 64 == 0 for wish in wishes)
    assert len({wish.seed for wish in wishes}) == 24
    assert wishes == list(itertools.islice(mixed(_SHAPE, 64), 24))


async def test_so_many_callers_keep_the_target_busy_until_all_images_are_made() -> None:
    target = _Target()
    run = await call(target, 5, alike(_SHAPE), 23)
    assert target.most == 5
    assert run.images == len(run.made) == 23
    assert list(run.latencies) == sorted(run.latencies)
    assert run.rate == 23 / run.seconds


async def test_requests_are_batched_by_shape_up_to_the_most() -> None:
    pipeline = _Pipeline()
    async with request_batching(pipeline, 4) as batching:
        await call(batching, 12, mixed(_SHAPE, 64), 36)
    assert sum(len(batch) for batch in pipeline.calls) == 36
    assert all(len({wish.shape for wish in batch}) == 1 for batch in pipeline.calls)
    assert max(len(batch) for batch in pipeline.calls) <= 4
    alone = _Pipeline()
    async with request_batching(alone, 1) as queue:
        await call(queue, 12, alike(_SHAPE), 12)
    assert [len(batch) for batch in alone.calls] == [1] * 12
    full = _Pipeline()
    async with request_batching(full, 4) as batching:
        await call(batching, 12, alike(_SHAPE), 24)
    assert [len(batch) for batch in full.calls] == [4] * 6


def test_quantiles_are_nearest_ranks() -> None:
    run = Run(tuple(float(number) for number in range(100)), 50.0, {})
    assert [run.quantile(share) for share in (0.5, 0.95, 0.99, 1.0)] == [50.0, 95.0, 99.0, 99.0]


def test_psnr_is_the_textbooks() -> None:
    picture = np.zeros((8, 8, 3), dtype=np.uint8)
    assert psnr(picture, picture) == 100.0
    assert psnr(picture, picture + np.uint8(255)) == pytest.approx(0.0)
    assert psnr(picture, picture + np.uint8(1)) == pytest.approx(48.13, abs=0.01)
