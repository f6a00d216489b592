"""The shelf and its loader, over models made of nothing: waiting, swapping, failing, taking turns."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

import pytest

from network.units import ModelId
from node.engine.canary import Canary
from node.engine.channel import Inbox
from node.engine.families.base import Family
from node.engine.families.folder import ModelFolderError
from node.engine.loader import Loaded
from node.engine.protocol import Model
from node.engine.residency import Budget
from node.engine.shelf import ModelUnavailableError, Shelf
from node.engine.thrift import Group
from node.engine.work import ModelFacts, ModelState

_A, _B, _C = ModelId("a"), ModelId("b"), ModelId("c")


@dataclass(frozen=True)
class _Family:
    name: str
    alone: bool = False
    facts: ModelFacts = field(default_factory=ModelFacts)


@dataclass
class _Model:
    """Weights of some bytes; counts its moves and fails as told."""

    name: str
    size: int
    moves: list[str]
    failures: list[Exception] = field(default_factory=list)

    def attach(self) -> Family:
        if self.failures:
            raise self.failures.pop(0)
        self.moves.append(f"{self.name} to device")
        return cast("Family", _Family(self.name))

    def detach(self) -> None:
        self.moves.append(f"{self.name} to host")

    def can_tile(self) -> bool:
        return True

    def tile(self, *, on: bool) -> None: ...

    def bring(self, group: Group) -> None: ...

    def send_away(self, group: Group) -> None: ...


class _Bench:
    """A shelf on the test's own thread; its loader's deliveries are taken one by one."""

    def __init__(
        self, budget: Budget, *, warm: str = "", broken: str = "", size: int = 10
    ) -> None:
        self.inbox: Inbox[Loaded] = Inbox()
        self.states: dict[ModelId, ModelState] = {}
        self.told: list[ModelState] = []
        self.moves: list[str] = []
        self.failures: dict[str, list[Exception]] = {}
        self.measured: dict[str, int] = {}
        self.opened: list[str] = []
        self.may_open = threading.Event()
        self.may_open.set()
        self.now = 0.0
        models = [
            Model(name, f"/{name}", name in warm, "auto", broken="it is" * (name in broken))
            for name in "abc"
        ]
        self.shelf = Shelf(
            models,
            budget=budget,
            open_model=self._open,
            estimate=lambda _model: size,
            rungs=(),
            forget_after=60.0,
            longest_load=5.0,
            longest_move=5.0,
            deliver=self.inbox.put,
            report=self._report,
            canary=Canary(time.monotonic),
            monotonic=lambda: self.now,
            relieve=lambda: None,
        )

    def _open(self, model: Model, on_progress: Callable[[float], None]) -> _Model:
        name = model.model_id
        self.opened.append(name)
        on_progress(0.5)
        assert self.may_open.wait(10)
        self.now += 3.0
        if name in self.failures and not isinstance(self.failures[name][0], MemoryError):
            raise self.failures[name].pop(0)
        size = self.measured.get(name, 10)
        return _Model(name, size, self.moves, self.failures.get(name, []))

    def _report(self, state: ModelState) -> None:
        self.states[state.model_id] = state
        self.told.append(state)

    def take(self) -> None:
        """Wait for one delivery and take it."""
        for loaded in self.inbox.take(wait=True):
            self.shelf.take(loaded)

    def get(self, model_id: ModelId) -> str:
        """Ask for a model as a job does that nobody competes with; return its family's name."""
        self.shelf.begin_round(())
        family = self.shelf.ask(model_id)
        if family is None:
            self.take()
            self.shelf.begin_round(())
            family = self.shelf.ask(model_id)
        self.shelf.begin_round(())
        return str(getattr(family, "name"))  # noqa: B009  the protocol has no such field


def test_a_job_waits_for_its_model_and_others_get_theirs_meanwhile() -> None:
    bench = _Bench(Budget(20))
    assert bench.get(_A) == "a"
    bench.may_open.clear()
    bench.shelf.begin_round({_A})
    assert bench.shelf.ask(_B) is None
    assert bench.shelf.ask(_A) is not None
    assert bench.states[_B].status == "loading"
    bench.may_open.set()
    bench.take()
    assert bench.shelf.ask(_B) is not None
    assert bench.shelf.ask(_A) is not None
    assert bench.opened == ["a", "b"]
    progress = [state.progress for state in bench.told if state.model_id == _B]
    assert progress == sorted(progress)
    assert 0.5 in progress
    assert bench.states[_B].load_seconds == 3.0
    assert bench.states[_B].bytes == 10


def test_warm_models_load_at_once_and_a_job_comes_before_those_that_nobody_waits_for() -> None:
    bench = _Bench(Budget(30), warm="abc")
    bench.may_open.clear()
    bench.shelf.load_warm()
    bench.shelf.load_warm()
    bench.shelf.begin_round(())
    while not bench.opened:
        time.sleep(0.001)
    assert bench.shelf.ask(_C) is None
    bench.may_open.set()
    while any(bench.states[model].status != "ready" for model in (_A, _B, _C)):
        bench.take()
    assert bench.opened == ["a", "c", "b"]


def test_models_beyond_the_budget_swap_with_host_memory_and_are_read_once() -> None:
    bench = _Bench(Budget(10, host=10))
    assert [bench.get(model) for model in (_A, _B, _A, _B, _A)] == ["a", "b", "a", "b", "a"]
    assert bench.opened == ["a", "b"]
    assert bench.moves == [
        *("a to device", "a to host", "b to device"),
        *("b to host", "a to device") * 1,
        *("a to host", "b to device"),
        *("b to host", "a to device"),
    ]
    assert (bench.states[_B].status, bench.states[_B].in_host) == ("cold", True)
    assert bench.states[_B].swap_seconds == 0.0
    assert bench.states[_B].seconds_to_ready == 0.0
    # A third one pushes the longest unused out of the second tier.
    assert bench.get(_C) == "c"
    assert (bench.states[_B].status, bench.states[_B].in_host) == ("cold", False)
    assert bench.states[_B].seconds_to_ready == 3.0


def test_without_a_second_tier_what_goes_is_dropped_and_read_again() -> None:
    bench = _Bench(Budget(10))
    assert [bench.get(model) for model in (_A, _B, _A)] == ["a", "b", "a"]
    assert bench.opened == ["a", "b", "a"]
    assert "a to host" not in bench.moves


def test_a_job_that_waits_for_room_is_not_starved_by_jobs_that_came_after_it() -> None:
    bench = _Bench(Budget(10, host=10))
    assert bench.get(_A) == "a"
    # An older job of A may start its next image; B has to wait until A is done.
    bench.shelf.begin_round({_A})
    assert bench.shelf.ask(_A) is not None
    assert bench.shelf.ask(_B) is None
    # A job of A that came after the one of B does not start any more.
    assert bench.shelf.ask(_A) is None
    bench.shelf.begin_round(())
    assert bench.shelf.ask(_B) is None
    assert bench.shelf.ask(_A) is None
    bench.take()
    bench.shelf.begin_round(())
    assert bench.shelf.ask(_B) is not None
    assert bench.shelf.ask(_A) is None


def test_a_failed_load_says_why_frees_its_room_and_is_tried_again_later() -> None:
    bench = _Bench(Budget(10))
    bench.failures["a"] = [ModelFolderError("it is empty")]
    bench.shelf.begin_round(())
    assert bench.shelf.ask(_A) is None
    bench.take()
    with pytest.raises(ModelUnavailableError, match="it is empty"):
        bench.shelf.ask(_A)
    assert bench.states[_A].status == "failed"
    assert bench.get(_B) == "b"
    del bench.failures["a"]
    bench.now += 31.0
    assert bench.get(_A) == "a"


def test_a_model_without_memory_on_the_device_gets_what_idle_ones_held() -> None:
    bench = _Bench(Budget(20, host=20))
    assert bench.get(_A) == "a"
    bench.failures["b"] = [MemoryError("CUDA out of memory")]
    assert bench.get(_B) == "b"
    assert bench.states[_A].in_host
    bench.failures["c"] = [MemoryError(), MemoryError()]
    with pytest.raises(ModelUnavailableError, match="no memory"):
        bench.get(_C)
    # That may be different soon, so the model is offered as before.
    assert bench.states[_C].status == "cold"


def test_an_unknown_model_and_one_that_kills_workers_are_not_loaded() -> None:
    bench = _Bench(Budget(20), warm="a", broken="a")
    bench.shelf.load_warm()
    bench.shelf.begin_round(())
    for model_id in (_A, ModelId("x")):
        with pytest.raises(ModelUnavailableError):
            bench.shelf.ask(model_id)
    assert not bench.opened
    assert (bench.states[_A].status, bench.states[_A].detail) == ("failed", "it is")


def test_a_model_larger_than_its_files_said_sends_idle_ones_away() -> None:
    bench = _Bench(Budget(20, host=20))
    assert bench.get(_A) == "a"
    bench.measured["b"] = 15
    assert bench.get(_B) == "b"
    assert bench.states[_A].in_host
    assert bench.states[_B].bytes == 15


def test_a_poisoned_device_is_no_model_failure() -> None:
    bench = _Bench(Budget(10))
    bench.shelf.begin_round(())
    assert bench.shelf.ask(_A) is None
    (loaded,) = bench.inbox.take(wait=True)
    assert isinstance(loaded.model, _Model)
    loaded.model.failures.append(RuntimeError("CUDA error: an illegal memory access"))
    with pytest.raises(RuntimeError, match="illegal"):
        bench.shelf.take(loaded)
