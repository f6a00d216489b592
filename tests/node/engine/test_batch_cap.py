"""The measured cap: against devices whose step times are known."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.engine.batch_book import BatchBook
from node.engine.batch_cap import RUNGS, BatchCap

_Cost = Callable[[int], float]


def _learn(cap: BatchCap, cost: _Cost, waiting: int, turns: int) -> list[int]:
    """Let a device step as the cap says; return the sizes it chose."""
    sizes = []
    for _ in range(turns):
        size = cap.choose(waiting)
        cap.observe(size, cost(size))
        sizes.append(size)
    return sizes


def _saturating(knee: float) -> _Cost:
    return lambda size: max(1.0, size / knee)


@given(st.integers(1, 64), st.integers(1, 40), st.integers(1, 40), st.integers(0, 300))
def test_a_choice_is_within_the_cap_and_what_waits(
    most: int, waiting: int, later: int, turns: int
) -> None:
    cap = BatchCap(most)
    sizes = _learn(cap, _saturating(7), waiting, turns)
    assert all(1 <= size <= min(most, waiting) for size in sizes)
    assert 1 <= cap.choose(later) <= min(most, later)


@given(st.floats(1, 40), st.floats(1e-4, 10))
def test_it_grows_to_where_the_device_is_saturated(knee: float, solo: float) -> None:
    cap = BatchCap(32)
    _learn(cap, lambda size: solo * _saturating(knee)(size), 64, 200)
    throughput = cap.best / _saturating(knee)(cap.best)
    ceiling = max(rung / _saturating(knee)(rung) for rung in RUNGS if rung <= 32)
    assert throughput >= 0.97 * ceiling
    assert cap.best == 1 or throughput > 1


@given(st.floats(0, 0.05))
def test_without_gain_everything_runs_alone(overhead: float) -> None:
    cap = BatchCap(32)
    sizes = _learn(cap, lambda size: size * (1 + overhead * (size > 1)), 64, 2000)
    assert cap.best == 1
    assert sum(size > 1 for size in sizes) < 0.06 * len(sizes)


def test_a_size_at_which_the_device_falters_is_not_used() -> None:
    cap = BatchCap(32)
    sizes = _learn(cap, lambda size: 1 + 0.05 * size if size < 8 else 1.0 * size, 64, 1000)
    assert cap.best == 6
    assert sizes.count(6) > 0.9 * len(sizes)


@pytest.mark.parametrize("waiting", [2, 3, 5])
def test_a_size_between_two_good_ones_is_left_once_it_has_proved_slow(waiting: int) -> None:
    cap = BatchCap(32)
    slow = 5

    def cost(size: int) -> float:
        return 10.0 if size == slow else 1 + 0.1 * size

    _learn(cap, cost, 8, 100)
    sizes = _learn(cap, cost, waiting, 500)
    usual = min(waiting, 4)
    assert sizes.count(usual) > 0.9 * len(sizes)


def test_a_job_loses_no_more_to_its_company_than_two_and_a_half_times() -> None:
    cap = BatchCap(32)
    _learn(cap, lambda size: 1 + 0.5 * (size - 1), 64, 300)
    assert cap.best == 4


@given(st.floats(0.2, 1.3), st.integers(2, 32), st.floats(0, 0.5), st.integers(0, 2**32))
def test_on_a_busy_machine_it_is_not_slower_than_alone_either(
    exponent: float, waiting: int, disturbance: float, seed: int
) -> None:
    rng = random.Random(seed)  # noqa: S311  noise

    def cost(size: int) -> float:
        late = rng.random() < disturbance
        return float(size**exponent) * (rng.uniform(1, 5) if late else rng.uniform(1, 1.02))

    cap = BatchCap(32)
    _learn(cap, cost, waiting, 500)
    sizes = _learn(cap, cost, waiting, 1000)
    images_a_solo_time = sum(sizes) / sum(size**exponent for size in sizes)
    assert images_a_solo_time >= 0.97
    if exponent < 0.8 and waiting >= 8:
        assert images_a_solo_time >= 1.2


def test_a_device_that_changes_is_measured_anew() -> None:
    cap = BatchCap(32)
    _learn(cap, _saturating(1), 8, 200)
    assert cap.best == 1
    _learn(cap, _saturating(8), 8, 2000)
    assert cap.best == 8
    _learn(cap, _saturating(1), 8, 4000)
    assert cap.best == 1


@given(st.integers(2, 32), st.integers(0, 500))
def test_what_ran_out_of_memory_is_never_tried_again(fits: int, turns: int) -> None:
    cap = BatchCap(64)
    failures = 0
    for _ in range(turns):
        size = cap.choose(64)
        if size > fits:
            failures += 1
            limit = size
            cap.out_of_memory(size)
            assert cap.choose(64) <= size // 2
            assert cap.limit is not None
            assert cap.limit <= limit
        else:
            cap.observe(size, 1.0)
    assert failures <= 1, "a size is only tried after the next smaller one has fitted"


def test_a_single_sample_that_does_not_fit_changes_nothing() -> None:
    cap = BatchCap(8)
    cap.out_of_memory(1)
    assert cap.limit is None
    assert cap.choose(1) == 1


def test_the_first_step_of_a_size_is_not_counted() -> None:
    cap = BatchCap(8)
    for seconds in (100.0, 1.0, 3.0, 1.5, 4.0):
        cap.observe(1, seconds)
    assert cap.solo_seconds() is None
    cap.observe(1, 2.0)
    assert cap.solo_seconds() == 1.0
    assert cap.seconds == {1: (1.0, 3.0, 1.5, 4.0, 2.0)}


def test_a_book_remembers_from_one_start_to_the_next_and_by_machine(tmp_path: Path) -> None:
    path = tmp_path / "batching.json"
    book = BatchBook(path, "gpu", 32)
    _learn(book.cap("model (64, 64)"), _saturating(4), 32, 200)
    book.cap("model (128, 128)").out_of_memory(6)
    book.save()
    other = BatchBook(path, "cpu", 32)
    assert other.cap("model (64, 64)").best == 1
    _learn(other.cap("model (64, 64)"), _saturating(2), 32, 200)
    other.save()
    again = BatchBook(path, "gpu", 32)
    assert again.cap("model (64, 64)").best == 4
    assert again.cap("model (128, 128)").limit == 4
    assert again.cap("model (64, 64)").choose(9) == 4
    assert BatchBook(path, "cpu", 32).cap("model (64, 64)").best == 2
    assert [file.name for file in tmp_path.iterdir()] == ["batching.json"]


def test_a_book_remembers_what_all_kinds_of_work_take_by_machine(tmp_path: Path) -> None:
    path = tmp_path / "batching.json"
    book = BatchBook(path, "cpu", 32)
    book.paces.learn("decode", 0.5)
    book.save()
    other = BatchBook(path, "gpu", 32, on_gpu=True)
    assert other.paces.known() == {}
    other.paces.learn("decode", 60.0)  # it compiled
    other.paces.learn("decode", 0.1)
    other.save()
    assert BatchBook(path, "cpu", 32).paces.known() == {"decode": (0.5,)}
    assert BatchBook(path, "gpu", 32).paces.known() == {"decode": (0.1,)}


def test_efforts_that_cannot_be_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "batching.json"
    path.write_bytes(b'{"paces": {"cpu": {"a": [-1.0, 2.0], "b": [], "c": [1.0]}}}')
    assert BatchBook(path, "cpu", 8).paces.known() == {"c": (1.0,)}


def test_a_book_that_learned_nothing_writes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "batching.json"
    BatchBook(path, "gpu", 32).save()
    assert not path.exists()
    book = BatchBook(path, "gpu", 32)
    _learn(book.cap("kind"), _saturating(4), 4, 50)
    book.save()
    written = path.stat().st_mtime_ns
    book.cap("kind")
    book.save()
    assert path.stat().st_mtime_ns == written


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"\xff", b'{"machines": {"gpu": {"kind": {"seconds": {"x": [1]}}}}}'],
)
def test_a_file_that_makes_no_sense_is_measured_anew(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "batching.json"
    path.write_bytes(content)
    book = BatchBook(path, "gpu", 8)
    _learn(book.cap("kind"), _saturating(4), 8, 200)
    book.save()
    assert BatchBook(path, "gpu", 8).cap("kind").best == 4


def test_values_that_cannot_be_are_left_out() -> None:
    cap = BatchCap(8, {0: (1.0,), 2: (), 4: (0.0, 1.0), 1: (1.0, 1.0, 1.0)}, limit=None)
    assert cap.seconds == {1: (1.0, 1.0, 1.0)}


def test_a_disk_that_takes_nothing_does_not_stop_the_work(tmp_path: Path) -> None:
    book = BatchBook(tmp_path / "missing" / "batching.json", "gpu", 8)
    _learn(book.cap("kind"), _saturating(4), 8, 20)
    book.save()
    assert book.cap("kind").seconds


def test_a_book_forgets_the_kinds_that_were_not_used_for_longest(tmp_path: Path) -> None:
    path = tmp_path / "batching.json"
    book = BatchBook(path, "gpu", 8)
    for number in range(300):
        _learn(book.cap(f"kind {number}"), _saturating(2), 1, 5)
        book.cap("kind 0")
    book.save()
    again = BatchBook(path, "gpu", 8)
    assert again.cap("kind 0").seconds
    assert again.cap("kind 299").seconds
    assert not again.cap("kind 1").seconds
