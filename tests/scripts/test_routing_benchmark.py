"""The simulation of late jobs: what a second orchestrator brings, and what it costs."""

from scripts.benchmarks.hedging import HEDGING, compare


def test_a_few_more_jobs_take_the_tail_off() -> None:
    tails = compare(count=100, requests=3000, seed=1)
    alone, hedged = tails["waited for"], tails["hedged"]
    assert alone.jobs == 1
    assert 1 < hedged.jobs <= 1 + HEDGING.share + HEDGING.spare * 4 / 3000
    assert hedged.p99_seconds < alone.p99_seconds / 2
    # What would have gone on for long is cut off: there is less work, not more.
    assert hedged.work_seconds < alone.work_seconds
