"""The planner: fair turns, groups only of what fits together."""

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from node.engine.planner import Runnable, plan

_samples = st.lists(
    st.builds(
        Runnable,
        sample=st.integers(0, 40),
        job=st.integers(0, 6),
        key=st.sampled_from(["small", "large"]),
        alone=st.booleans(),
        last_turn=st.integers(-1, 20),
    ),
    unique_by=lambda runnable: runnable.sample,
    max_size=20,
)


@given(_samples, st.integers(1, 8))
def test_a_group_is_made_of_compatible_samples_within_the_cap(
    runnable: list[Runnable], cap: int
) -> None:
    group = plan(runnable, cap)
    if not runnable:
        assert group is None
        return
    assert group is not None
    members = [one for one in runnable if one.sample in group.samples]
    assert len(members) == len(group.samples) == len(set(group.samples)) >= 1
    assert len(members) <= cap
    assert len({one.key for one in members}) == 1
    assert len(members) == 1 or not any(one.alone for one in members)


@given(_samples, st.integers(1, 8))
def test_the_job_that_waited_longest_leads(runnable: list[Runnable], cap: int) -> None:
    group = plan(runnable, cap)
    if group is not None:
        lead = next(one for one in runnable if one.sample == group.samples[0])
        assert lead.last_turn == min(one.last_turn for one in runnable)


@given(_samples.filter(lambda runnable: len(runnable) > 1))
def test_compatible_samples_are_not_kept_apart_while_there_is_room(
    runnable: list[Runnable],
) -> None:
    group = plan(runnable, cap=len(runnable))
    assert group is not None
    lead = next(one for one in runnable if one.sample == group.samples[0])
    if not lead.alone:
        company = {one.sample for one in runnable if one.key == lead.key and not one.alone}
        assert set(group.samples) == company


@dataclass(slots=True)
class _Job:
    number: int
    steps: list[int]
    last_turn: int = -1


@given(st.lists(st.lists(st.integers(1, 6), min_size=1, max_size=3), min_size=1, max_size=6))
def test_no_job_waits_longer_than_one_turn_of_every_other(shape: list[list[int]]) -> None:
    jobs = [_Job(number, list(steps)) for number, steps in enumerate(shape)]
    turn = 0
    while any(any(job.steps) for job in jobs):
        alive = [job for job in jobs if any(job.steps)]
        runnable = [
            Runnable(10 * job.number + place, job.number, "key", alone=False, last_turn=last)
            for job in alive
            for place, left in enumerate(job.steps)
            if left
            for last in [job.last_turn]
        ]
        group = plan(runnable)
        assert group is not None
        (sample,) = group.samples
        job = jobs[sample // 10]
        place = sample % 10
        assert not any(job.steps[:place]), "a job's first image goes first"
        job.steps[place] -= 1
        turn += 1
        job.last_turn = turn
        for other in alive:
            assert turn - max(other.last_turn, 0) <= len(jobs)
