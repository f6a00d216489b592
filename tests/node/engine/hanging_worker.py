"""The real worker over a family made of nothing: its prompts say where it hangs, and how.

A prompt is `PLACE WAY MARKER`: at PLACE (encode, step, decode, check; in the model "whole", begin,
step or end) it hangs the WAY it says, once: the file MARKER tells that it has. Without torch, so
that it starts in no time.
"""

import ctypes
import os
import sys
import threading
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from node.engine.device import Device
from node.engine.families.base import Checkpoint, Loras, SampleCancelledError
from node.engine.latent_rgb import LinearRgb
from node.engine.loader import LoadedModel
from node.engine.loras.library import Library
from node.engine.options import SafetyOptions
from node.engine.protocol import Hello, Model, Setup
from node.engine.residency import Budget
from node.engine.safety import Pixels, SafetyChecker
from node.engine.stopwatch import HostLap
from node.engine.thrift import Group
from node.engine.work import ImageJob, ModelFacts
from node.engine.worker import main

_WORK_SECONDS = 0.02
_TOIL_SECONDS = 3.5


def _work(seconds: float = _WORK_SECONDS) -> None:
    """Use so many seconds of the processor, however long others keep it busy."""
    ends = time.thread_time() + seconds
    while time.thread_time() < ends:
        sum(range(1000))


def _hang(way: str) -> None:
    match way:
        case "lock":
            threading.Event().wait()
        case "sleep":
            time.sleep(1e6)
        case "grip":
            ctypes.PyDLL(None).sleep(1_000_000)  # keeps the interpreter's lock
        case "spin":
            while True:
                pass
        case "toil":
            _work(_TOIL_SECONDS)
        case "doze":  # slowly, with pauses that are no hang
            for _ in range(4):
                time.sleep(_TOIL_SECONDS / 4)
                _work()
        case _:
            raise ValueError(way)


def _reach(place: str, prompt: str) -> None:
    """Do the work of a place, or hang there if the prompt says so and it has not yet."""
    _work()
    told, _, rest = prompt.partition(" ")
    way, _, marker = rest.partition(" ")
    if told == place and not Path(marker).exists():
        Path(marker).touch()
        _hang(way)


@dataclass(slots=True)
class _Sample:
    job: ImageJob
    done: int = 0
    key: Hashable = "same"

    @property
    def finished(self) -> bool:
        return self.done >= self.job.steps


class _Family:
    loras: Loras | None = None
    facts = ModelFacts()

    def __init__(self, checker: "_Checker", *, alone: bool) -> None:
        self.alone = alone
        self._checker = checker

    def encode(self, job: ImageJob) -> str:
        _reach("encode", job.prompts[0])
        return job.prompts[0]

    def start(self, job: ImageJob, prompt: object, seed: int) -> _Sample:
        del prompt, seed
        return _Sample(job)

    def step(self, samples: Sequence[_Sample], checkpoint: Checkpoint) -> None:
        if self.alone:
            self._run(samples[0], checkpoint)
            return
        for sample in samples:
            # Not at the first one: of that nothing is known yet.
            _reach("step" if sample.done else "first-step", sample.job.prompts[0])
            sample.done += 1

    def _run(self, sample: _Sample, checkpoint: Checkpoint) -> None:
        """Behave as a pipeline that runs whole."""
        _reach("begin", sample.job.prompts[0])
        while not sample.finished:
            _reach("step" if sample.done else "first-step", sample.job.prompts[0])
            sample.done += 1
            if not checkpoint(sample.done):
                raise SampleCancelledError
        _reach("end", sample.job.prompts[0])

    def decode(self, sample: _Sample) -> NDArray[np.uint8]:
        _reach("decode", sample.job.prompts[0])
        self._checker.prompt = sample.job.prompts[0]
        return np.full((8, 8, 3), 7, dtype=np.uint8)


class _Checker:
    prompt = ""

    def scores(self, pictures: Sequence[Pixels]) -> list[float]:
        _reach("check", self.prompt)
        return [0.0 for _ in pictures]


@dataclass
class _Model:
    family: _Family
    size: int = 1

    def attach(self) -> _Family:
        return self.family

    def detach(self) -> None: ...

    def can_tile(self) -> bool:
        return False

    def tile(self, *, on: bool) -> None: ...

    def bring(self, group: Group) -> None: ...

    def send_away(self, group: Group) -> None: ...


class _NoLatents:
    def copy(self, family: object, sample: object) -> None:
        del family, sample

    def colours(self, family: object) -> LinearRgb:
        raise LookupError(f"there are none of {family}")


def _open_device(setup: Setup, library: Library) -> Device:
    del setup, library
    checker = _Checker()

    def open_model(model: Model, on_progress: Callable[[float], None]) -> LoadedModel:
        on_progress(0.5)
        return _Model(_Family(checker, alone=model.model_id == "whole"))

    def prepare_checker(options: SafetyOptions) -> Callable[[], SafetyChecker]:
        del options
        return lambda: checker

    return Device(
        open_model=open_model,
        estimate=lambda _model: 1,
        budget=Budget(2),
        rungs=(),
        relieve=lambda: None,
        stopwatch=lambda: HostLap(time.monotonic, time.thread_time),
        latents=_NoLatents(),
        prepare_checker=prepare_checker,
        signature="nothing",
        hello=Hello("nothing", 1),
        on_gpu=False,
    )


if __name__ == "__main__":
    os._exit(main(sys.argv[1:], _open_device))
