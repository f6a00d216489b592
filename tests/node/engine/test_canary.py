"""The canary: what threads are at, what signs of life they show, and what their work took."""

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.engine.canary import Canary
from node.engine.liveness import Pulse
from node.engine.paces import Paces


class _World:
    """One thread as the system tells of it, and two clocks."""

    def __init__(self, *, on_gpu: bool = False) -> None:
        self.now = 0.0
        self.used = 0.0
        self.stirring = False
        self.told = True
        self.compiling = False
        self.helpers: frozenset[int] = frozenset()
        self.paces = Paces(on_gpu=on_gpu)
        self.canary = Canary(
            lambda: self.now,
            processor=lambda: self.used,
            look=self._look,
            stirring=lambda: self.helpers | {threading.get_native_id()},
            children_stir=lambda: self.compiling,
        )
        self.canary.measure(self.paces)

    def _look(self, thread_id: int) -> Pulse | None:
        assert thread_id == threading.get_native_id()
        return Pulse(self.used, 0, self.stirring) if self.told else None

    def still(self, seconds: int) -> float:
        """Look once a second for so long; return the stillness seen."""
        still = 0.0
        for _ in range(seconds):
            self.now += 1.0
            (activity,) = self.canary.activities()
            still = activity.still
        return still

    def work(self, pace: str, effort: float, passed: float | None = None) -> None:
        with self.canary.at("steps", "denoising", 5.0, pace=pace):
            self.used += effort
            self.now += effort if passed is None else passed


def test_a_thread_that_does_nothing_is_seen_to_stand_still() -> None:
    world = _World()
    world.canary.note("steps", "denoising", 5.0)
    assert world.still(1) == 0.0
    assert world.still(4) == 4.0
    world.used += 0.01
    assert world.still(1) == 0.0
    assert world.still(2) == 2.0


@pytest.mark.parametrize("sign", ["stirring", "compiling", "told"])
def test_who_runs_waits_for_a_disk_has_a_compiler_running_or_is_unknown_is_not_still(
    sign: str,
) -> None:
    world = _World()
    world.canary.note("steps", "denoising", 5.0)
    setattr(world, sign, sign != "told")
    assert world.still(20) == 0.0


def test_threads_that_may_work_for_one_that_stands_still_are_noticed() -> None:
    world = _World()
    world.canary.note("steps", "denoising", 5.0)
    world.still(3)
    world.helpers = frozenset({1})
    world.still(4)
    world.helpers = frozenset()
    world.now += 1.0
    (activity,) = world.canary.activities()
    assert (activity.still, activity.helped) == (7.0, 4.0)


def test_each_thing_that_a_thread_begins_is_a_sign_of_life() -> None:
    world = _World()
    world.canary.note("steps", "denoising", 5.0)
    assert world.still(4) == 3.0
    world.canary.note("steps", "denoising", 5.0)
    assert world.still(3) == 2.0


def test_who_rests_or_waits_for_another_thread_is_not_looked_at() -> None:
    world = _World()
    world.canary.note("steps", "waiting", 5.0, kind="wait")
    assert world.still(20) == 0.0
    world.canary.rest("steps")
    assert not world.canary.activities()


def test_a_look_that_comes_late_does_not_count_for_all_that_it_missed() -> None:
    """The heartbeat may have been held up itself, by a suspended machine or the interpreter."""
    world = _World()
    world.canary.note("steps", "denoising", 5.0)
    world.canary.activities()
    world.now += 60.0
    (activity,) = world.canary.activities()
    assert activity.still == 1.5
    assert activity.age == 60.0


def test_what_is_done_within_something_else_is_told_alone_and_then_that_goes_on() -> None:
    world = _World()

    def told() -> list[str]:
        return [activity.name for activity in world.canary.activities()]

    with world.canary.at("finisher", "checking", 5.0):
        assert told() == ["checking"]
        with world.canary.at("finisher", "waiting", 9.0, kind="wait"):
            assert told() == ["waiting"]
        assert told() == ["checking"]
    assert told() == []


def test_a_limit_is_learned_from_work_that_comes_to_its_end() -> None:
    world = _World()
    for effort in (0.5, 1.0, 0.5):
        world.work("step", effort)
    world.canary.note("steps", "denoising", 5.0, pace="step")
    world.used += 30.0
    (activity,) = world.canary.activities()
    assert activity.limit == 4.0
    assert activity.effort == 30.0
    world.canary.note("steps", "denoising", 5.0, pace="another")
    (activity,) = world.canary.activities()
    assert activity.limit is None


def test_work_that_fails_teaches_nothing() -> None:
    world = _World()
    with (
        pytest.raises(RuntimeError),
        world.canary.at("steps", "denoising", 5.0, pace="step"),
    ):
        raise RuntimeError
    assert world.paces.known() == {}
    assert not world.canary.activities()


def test_on_a_cpu_what_others_take_of_the_machine_is_no_effort() -> None:
    world = _World()
    world.work("step", effort=0.1, passed=40.0)
    assert world.paces.limit("step") == pytest.approx(0.4)
    world.canary.note("steps", "denoising", 500.0, pace="step")
    world.now += 40.0
    (activity,) = world.canary.activities()
    assert activity.effort == 0.0


def test_on_a_gpu_efforts_are_seconds_and_the_first_of_a_kind_is_not_remembered() -> None:
    world = _World(on_gpu=True)
    world.work("step", effort=0.1, passed=60.0)  # it compiled
    assert world.paces.known() == {}
    world.work("step", effort=0.1, passed=0.5)
    assert world.paces.known() == {"step": (0.5,)}


@given(st.lists(st.floats(0.001, 100.0), min_size=1, max_size=30))
def test_a_limit_holds_what_was_usual_of_late_and_forgets_the_rest(efforts: list[float]) -> None:
    paces = Paces()
    for effort in efforts:
        paces.learn("step", effort)
    limit = paces.limit("step")
    assert limit == 4.0 * max(efforts[-8:])


@given(st.dictionaries(st.text(max_size=3), st.lists(st.floats(0.01, 10), max_size=8)))
def test_what_one_process_learned_the_next_one_knows_and_takes_with_more_patience(
    efforts: dict[str, list[float]],
) -> None:
    first = Paces()
    for kind, taken in efforts.items():
        for effort in taken:
            first.learn(kind, effort)
    second = Paces(first.known())
    assert second.known() == first.known()
    for kind in efforts:
        before, after = first.limit(kind), second.limit(kind)
        assert (before is None) == (after is None)
        assert before is None or after == 4 * before


def test_only_so_many_kinds_are_remembered() -> None:
    paces = Paces()
    for number in range(2000):
        paces.learn(str(number), 1.0)
    assert len(paces.known()) == 1024
    assert paces.limit("0") is None
    assert paces.limit("1999") is not None
