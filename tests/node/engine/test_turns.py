"""Turns on a device that is behind its host, as a GPU is."""

from collections import deque
from dataclasses import dataclass

from network.units import JobId, ModelId
from node.engine.batch_book import BatchBook
from node.engine.stopwatch import EventLap, HostLap
from node.engine.turns import Active, Turns, Work
from node.engine.work import ImageJob
from tests.node.engine.test_loop import _Family, _Sample

_KIND = "m 'same'"


@dataclass(slots=True)
class _Stream:
    """A queue of work: what is called is done later, when somebody looks or waits."""

    host: float = 0.0
    device: float = 0.0
    waits: int = 0

    def launch(self, seconds: float) -> None:
        self.device = max(self.device, self.host) + seconds


class _Event:
    """What `torch.cuda.Event` is to this stream."""

    def __init__(self, stream: _Stream) -> None:
        self._stream = stream
        self._at = 0.0

    def record(self, stream: _Stream) -> None:
        assert stream is self._stream
        self._at = max(self._stream.device, self._stream.host)

    def query(self) -> bool:
        return self._stream.host >= self._at

    def synchronize(self) -> None:
        if not self.query():
            self._stream.waits += 1
            self._stream.host = self._at

    def elapsed_time(self, other: "_Event") -> float:
        return 1000 * (other._at - self._at)


def _active(steps: int) -> Active:
    job = ImageJob(JobId("job"), ModelId("m"), ("a",), 64, 64, steps, 7.5, (1,))
    return Active(0, Work(1, job, deque(), 1), 0, _Family(), _Sample(job, 1), alone=False)


def test_the_host_is_one_step_ahead_of_the_device_and_step_times_are_the_devices() -> None:
    stream = _Stream()
    book = BatchBook(None, "gpu", 4)
    turns = Turns(book, lambda: EventLap(lambda: _Event(stream), stream), lambda _model: None)
    active = _active(10)
    ahead = []
    for _ in range(10):
        turn = turns.begin({0: active})
        assert turn is not None
        stream.launch(0.5)
        stream.host += 0.01
        active.sample.done += 1
        turns.end(turn)
        ahead.append(stream.device - stream.host)
    assert all(seconds <= 1.0 for seconds in ahead)
    assert all(seconds > 0.4 for seconds in ahead[:-1]), "the device is never idle"
    assert ahead[-1] == 0, "a finished sample's time is known before it is handed over"
    assert abs(active.seconds - 5.0) < 0.1
    solo = book.cap(_KIND).solo_seconds()
    assert solo is not None
    assert abs(solo - 0.5) < 0.01


def test_a_failed_step_costs_time_and_teaches_nothing() -> None:
    now = [0.0]
    book = BatchBook(None, "cpu", 4)
    turns = Turns(book, lambda: HostLap(lambda: now[0], lambda: 0.0), lambda _model: None)
    active = _active(10)
    turn = turns.begin({0: active})
    assert turn is not None
    now[0] += 3.0
    turn.failed = True
    turns.end(turn)
    assert turns.last_seconds == 3.0
    assert active.seconds == 3.0
    assert not book.cap(_KIND).seconds


def test_what_other_programs_took_of_the_processor_does_not_count_as_a_steps_effort() -> None:
    now, used = [0.0], [0.0]
    book = BatchBook(None, "cpu", 4)
    turns = Turns(book, lambda: HostLap(lambda: now[0], lambda: used[0]), lambda _model: None)
    active = _active(10)
    for _ in range(6):
        turn = turns.begin({0: active})
        assert turn is not None
        now[0] += 4.0
        used[0] += 1.0
        turns.end(turn)
    assert book.cap(_KIND).seconds == {1: (1.0,) * 5}
    assert active.seconds == 24.0
