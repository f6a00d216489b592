"""Jobs wait for their LoRAs beside the steps of others, and are never lost on the way."""

import threading
import time
from collections.abc import Callable

import pytest

from network.units import JobId, ModelId
from node.engine.canary import Canary
from node.engine.families.base import InvalidJobError
from node.engine.loras.gate import Gate
from node.engine.protocol import Cancel, Submit
from node.engine.work import ImageJob, LoraSet


class _Loras:
    """LoRAs that take as long to prepare as the test wants."""

    def __init__(self) -> None:
        self.ready: set[str] = set()
        self.go_on = threading.Event()
        self.asked: list[str] = []

    def holds(self, name: str) -> bool:
        return name in self.ready

    def prepare(self, name: str) -> None:
        self.asked.append(name)
        assert self.go_on.wait(30)
        if name == "broken":
            raise InvalidJobError("it is broken")
        self.ready.add(name)

    def activate(self, loras: LoraSet) -> None:
        raise AssertionError(f"the gate has no business with activating {loras}")


class _Way:
    """A gate, and what came through it."""

    def __init__(self) -> None:
        self.passed: list[Submit | Cancel] = []
        self.canary = Canary(time.monotonic)
        self.gate = Gate(self.passed.append, self.canary, 5.0)
        self.loras = _Loras()
        self.gate.serve("m", self.loras)
        self.gate.start()

    def tickets(self) -> list[int]:
        return [message.ticket for message in self.passed]


@pytest.fixture
def way() -> _Way:
    return _Way()


def _submit(ticket: int, *names: str, model: str = "m") -> Submit:
    loras = tuple((name, 1.0) for name in names)
    job = ImageJob(JobId(str(ticket)), ModelId(model), ("a",), 64, 64, 1, 1.0, (1,), loras=loras)
    return Submit(ticket, job, (0,))


def _eventually(happened: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.002)


def test_a_job_waits_for_its_loras_and_holds_nobody_else_up(way: _Way) -> None:
    way.loras.ready.add("known")
    way.gate.submit(_submit(1, "new", "known"))
    way.gate.submit(_submit(2))
    way.gate.submit(_submit(3, "known"))
    assert way.tickets() == [2, 3]
    _eventually(lambda: way.loras.asked == ["new"])
    assert [activity.name for activity in way.canary.activities()] == ["preparing a LoRA"]
    way.loras.go_on.set()
    _eventually(lambda: way.tickets() == [2, 3, 1])
    assert way.loras.holds("new")
    assert not way.canary.activities()


def test_a_lora_that_cannot_be_prepared_lets_the_job_through_to_be_told_why(way: _Way) -> None:
    way.loras.go_on.set()
    way.gate.submit(_submit(1, "broken"))
    way.gate.submit(_submit(2, "good"))
    _eventually(lambda: way.tickets() == [1, 2])


def test_a_job_for_a_model_that_is_not_loaded_is_let_through(way: _Way) -> None:
    way.gate.submit(_submit(1, "new", model="other"))
    assert way.tickets() == [1]


def test_a_dropped_model_takes_its_loras_with_it() -> None:
    way = _Way()
    del way.loras
    way.gate.submit(_submit(1, "new"))
    assert way.tickets() == [1]


def test_a_job_cancelled_while_it_waits_is_forgotten_and_others_are_told_of_theirs(
    way: _Way,
) -> None:
    way.gate.submit(_submit(1, "new"))
    way.gate.submit(_submit(2, "newer"))
    way.gate.submit(_submit(3))
    for ticket in (1, 2, 3):
        way.gate.cancel(Cancel(ticket))
    way.gate.submit(_submit(4, "last"))
    way.loras.go_on.set()
    _eventually(lambda: way.tickets() == [3, 3, 4])
    assert way.passed[1] == Cancel(3)
    assert "newer" not in way.loras.asked
