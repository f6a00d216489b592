"""The benchmark of tickets measures work that was done, and says so where it was not."""

from dataclasses import fields, replace
from pathlib import Path

import pytest

from scripts.benchmarks.journal import measure_journal
from scripts.benchmarks.tickets import (
    Round,
    create,
    figures_of,
    judge,
    measure,
    new_receiver,
    offer,
    pay,
    quote,
    take,
)


def test_a_round_measures_everything() -> None:
    measured = measure(1)
    assert all(getattr(measured, field.name) > 0 for field in fields(measured))


def test_what_is_refused_is_not_counted_as_judged() -> None:
    params = quote(1)
    good, bad = create(params, 2)
    judge(new_receiver(), offer(params, (good, bad)))
    with pytest.raises(RuntimeError, match="invalid ticket signature"):
        judge(new_receiver(), offer(params, (good, replace(bad, signature=good.signature))))
    receiver = new_receiver()
    take(receiver, pay(params))
    with pytest.raises(RuntimeError, match="already seen"):
        take(receiver, pay(params))


def test_figures_are_medians_over_the_rounds() -> None:
    rounds = [Round(n, 2 * n, n, n, n, n / 1000, n) for n in (10.0, 1000.0, 20.0)]
    figures = figures_of(rounds)
    assert (figures["created_per_s"], figures["verified_per_s"]) == (20, 40)
    assert figures["pay_ms"] == 0.02


async def test_every_job_of_the_journal_is_charged(tmp_path: Path) -> None:
    pace = await measure_journal(tmp_path, jobs=40, callers=8)
    assert pace.jobs_per_s > 0
    assert pace.cpu_ms_per_job > 0
