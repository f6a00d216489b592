"""The benchmark of a runner measures answers that came, and says so where they did not."""

import asyncio
from collections import Counter
from pathlib import Path

import pytest

from scripts.benchmarks.runner import Load, Probed, Wish, keep_busy, probe, report
from tests.node.container.runners import running
from tests.node.fakes import FakeEngine


def test_the_worst_is_the_worst() -> None:
    probed = Probed(tuple(float(n) for n in range(1, 101)))
    assert [probed.quantile(share) for share in (0.5, 0.99, 1.0)] == [50.0, 99.0, 100.0]
    assert Probed((7.0,)).quantile(0.5) == 7.0


async def test_probes_ask_each_by_turns_and_stop_at_what_is_not_ok(tmp_path: Path) -> None:
    engine = FakeEngine()
    async with running(tmp_path, engine) as container:
        first, second = await asyncio.to_thread(probe, (container.url, container.url), 0.1)
        assert len(first.latencies) == len(second.latencies) > 1
        assert list(first.latencies) == sorted(first.latencies)
        assert first.latencies[0] > 0
        engine.change(healthy=False)
        with pytest.raises(RuntimeError, match="LOADING"):
            await asyncio.to_thread(probe, (container.url,), 0.1)


async def test_answers_are_counted_by_what_they_are(tmp_path: Path) -> None:
    engine = FakeEngine(step_seconds=0.01)
    async with running(tmp_path, engine, queue={"max_waiting": 0}) as container:
        until = asyncio.Event()
        asyncio.get_running_loop().call_later(0.3, until.set)
        ends = await keep_busy(container.url, Wish(callers=4, side=64, steps=2), until)
    assert set(ends) == {"200", "sent elsewhere"}


def test_the_report_counts_what_took_too_long() -> None:
    quick, slow = Probed((1.0, 2.0)), Probed((1.0, 60.0))
    load = Load(Counter({"200": 30, "sent elsewhere": 2}), 10.0, 0.5)
    figures = report((quick, quick), (slow, quick), load)
    assert figures["busy_worst_ms"] == 60.0
    assert (figures["busy_over_bound"], figures["busy_control_over_bound"]) == (1, 0)
    assert (figures["images_per_s"], figures["processor_share"]) == (3.0, 0.05)
    assert figures["answers_sent_elsewhere"] == 2
