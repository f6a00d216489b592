"""What `scripts/bench routing` measures is what it says."""

from random import Random

from scripts.benchmarks.hedging import HEDGING, compare
from scripts.benchmarks.routing import decide


def test_decisions_are_held_to_looking_at_everybody() -> None:
    found = decide(30, 500, Random(1))  # noqa: S311 - cases, no secrets
    assert 0 < found.p50 <= found.p99
    assert min(found.change_p50, found.scan_p50) > 0


def test_a_few_more_jobs_take_the_tail_off() -> None:
    tails = compare(count=100, requests=3000, seed=1)
    alone, hedged = tails["waited for"], tails["hedged"]
    assert alone.jobs == 1
    assert 1 < hedged.jobs <= 1 + HEDGING.share + HEDGING.spare * 4 / 3000
    assert hedged.p99_seconds < alone.p99_seconds / 2
    # What would have gone on for long is cut off: there is less work, not more.
    assert hedged.work_seconds < alone.work_seconds
