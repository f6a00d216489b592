"""The planner: no job starves, small ones are quick, groups are what fits together."""

from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from node.engine.planner import Group, Planner, Runnable

_samples = st.lists(
    st.builds(
        Runnable,
        sample=st.integers(0, 40),
        job=st.integers(0, 6),
        key=st.sampled_from(["small", "large"]),
        alone=st.booleans(),
        left=st.floats(0, 100),
    ),
    unique_by=lambda runnable: runnable.sample,
    max_size=20,
)
_seconds = st.lists(st.floats(0.01, 10), max_size=5)


def _planned(runnable: list[Runnable], cap: int, history: list[float]) -> Group | None:
    """Plan after some turns whose lengths decide which lane is next."""
    planner = Planner(lambda _key, _waiting: cap)
    for seconds in history:
        group = planner.plan(runnable)
        if group is not None:
            planner.charge(group, seconds)
    return planner.plan(runnable)


@given(_samples, st.integers(1, 8), _seconds)
def test_a_group_is_made_of_compatible_samples_within_the_cap(
    runnable: list[Runnable], cap: int, history: list[float]
) -> None:
    group = _planned(runnable, cap, history)
    if not runnable:
        assert group is None
        return
    assert group is not None
    members = [one for one in runnable if one.sample in group.samples]
    assert len(members) == len(group.samples) == len(set(group.samples)) >= 1
    assert len(members) <= cap
    assert len({one.key for one in members}) == 1
    assert len(members) == 1 or not any(one.alone for one in members)
    assert group.lead in {one.job for one in members}


@given(_samples.filter(bool), st.integers(1, 8), _seconds)
def test_compatible_samples_are_not_kept_apart_while_there_is_room(
    runnable: list[Runnable], cap: int, history: list[float]
) -> None:
    group = _planned(runnable, cap, history)
    assert group is not None
    members = [one for one in runnable if one.sample in group.samples]
    if any(one.alone for one in members):
        return
    company = {one.sample for one in runnable if one.key == members[0].key and not one.alone}
    assert len(members) == min(cap, len(company))


@given(_samples.filter(bool), st.integers(1, 8), _seconds)
def test_the_images_of_the_job_whose_turn_it_is_go_before_its_company(
    runnable: list[Runnable], cap: int, history: list[float]
) -> None:
    group = _planned(runnable, cap, history)
    assert group is not None
    owner = {one.sample: one for one in runnable}
    members = [owner[sample] for sample in group.samples]
    own = [one.job == group.lead for one in members]
    assert own == sorted(own, reverse=True)
    left_out = [
        one
        for one in runnable
        if one.job == group.lead
        and one.key == members[0].key
        and not one.alone
        and one.sample not in group.samples
    ]
    assert not left_out or members[0].alone or (all(own) and len(members) == cap)


def test_the_cap_is_asked_for_the_key_and_the_number_of_those_that_fit_together() -> None:
    asked: list[tuple[object, int]] = []

    def cap(key: object, waiting: int) -> int:
        asked.append((key, waiting))
        return 2

    runnable = [Runnable(n, n, "ab"[n % 2], alone=n == 4, left=n + 1.0) for n in range(6)]
    group = Planner(cap).plan(runnable)
    assert group == Group((0, 2), lead=0, quick=True)
    assert asked == [("a", 2)]


@dataclass(slots=True)
class _Job:
    """A job in a simulation; steps of its key take `cost` seconds for any group."""

    number: int
    key: str
    alone: bool
    steps: list[int]
    cost: float
    arrived: float
    last_step: float = field(default=0.0)
    ended: float | None = None

    @property
    def left(self) -> float:
        return sum(self.steps) * self.cost


class _Device:
    """Runs what the planner says, and keeps the time."""

    def __init__(self, cap: int) -> None:
        self.planner = Planner(lambda _key, _waiting: cap)
        self.jobs: dict[int, _Job] = {}
        self.begun = 0
        self.now = 0.0

    def add(self, key: str, cost: float, steps: list[int], *, alone: bool = False) -> _Job:
        job = _Job(self.begun, key, alone, list(steps), cost, self.now, self.now)
        self.jobs[job.number] = job
        self.begun += 1
        return job

    def step(self) -> Group | None:
        runnable = [
            Runnable(100 * job.number + place, job.number, job.key, job.alone, job.left)
            for job in self.jobs.values()
            for place, left in enumerate(job.steps)
            if left
        ]
        group = self.planner.plan(runnable)
        if group is None:
            return None
        cost = self.jobs[group.lead].cost
        self.now += cost
        self.planner.charge(group, cost)
        for sample in group.samples:
            job, place = self.jobs[sample // 100], sample % 100
            job.steps[place] -= 1
            job.last_step = self.now
            if not any(job.steps):
                job.ended = self.now
                del self.jobs[job.number]
        return group


_COSTS = {"thumb": 1.0, "page": 3.0, "poster": 20.0}
_jobs = st.tuples(
    st.sampled_from(sorted(_COSTS)),
    st.lists(st.integers(1, 6), min_size=1, max_size=3),
    st.booleans(),
)


@given(st.lists(st.lists(_jobs, max_size=3), min_size=1, max_size=40), st.integers(1, 4))
def test_no_job_waits_longer_than_a_few_turns_of_every_other(
    arrivals: list[list[tuple[str, list[int], bool]]], cap: int
) -> None:
    """Newcomers keep coming; what is there at once is bounded, as it is in the worker."""
    device, most = _Device(cap), 6
    turn = 0
    # Half of the seconds are the fair lane's. There every other job may lead for as long as the
    # job itself was ahead of it, which is one step, and one more step.
    bound = 2 * most * 3 * max(_COSTS.values())
    while device.jobs or turn < len(arrivals):
        for key, steps, alone in arrivals[turn] if turn < len(arrivals) else []:
            if len(device.jobs) < most:
                device.add(key, _COSTS[key], steps, alone=alone)
        device.step()
        turn += 1
        assert all(device.now - job.last_step <= bound for job in device.jobs.values())


@given(st.sampled_from(sorted(_COSTS)), st.integers(1, 4), st.integers(1, 8))
def test_a_stream_of_small_jobs_does_not_hold_up_a_large_one(
    key: str, cap: int, rivals: int
) -> None:
    device = _Device(cap)
    large = device.add("large", _COSTS[key], [10])
    while large.ended is None:
        while len(device.jobs) < 1 + rivals:
            device.add("small", 1.0, [1])
        device.step()
        assert device.now <= 2 * (1 + rivals) * (10 * large.cost) + 40


@given(
    st.lists(st.sampled_from(sorted(_COSTS)), min_size=1, max_size=8),
    st.integers(1, 4),
    st.integers(1, 200),
)
def test_a_small_job_takes_about_twice_its_own_time_behind_large_ones(
    keys: list[str], cap: int, before: int
) -> None:
    device = _Device(cap)
    for number, key in enumerate(keys):
        device.add(f"{key} {number}", _COSTS[key], [500])
    for _ in range(before):
        device.step()
    small = device.add("small", 1.0, [10])
    longest = max(_COSTS[key] for key in keys)
    while small.ended is None:
        device.step()
        assert device.now - small.arrived <= 2 * 10 + 2 * longest


def test_a_small_job_behind_eight_large_ones_of_its_kind_takes_less_than_twice_its_time() -> None:
    device = _Device(cap=1)
    for _ in range(8):
        device.add("same", 1.0, [50])
    device.step()
    small = device.add("same", 1.0, [10])
    while small.ended is None:
        device.step()
        assert device.now - small.arrived <= 20


def test_a_cancelled_job_is_out_of_the_next_turn_and_costs_nobody_anything() -> None:
    device = _Device(cap=4)
    first, second = device.add("same", 1.0, [50]), device.add("same", 1.0, [50])
    device.step()
    del device.jobs[first.number]
    group = device.step()
    assert group is not None
    assert group.samples == (100 * second.number,)
