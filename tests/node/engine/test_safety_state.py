"""What the engine tells of its safety checker, and what it does when that cannot be had."""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from network.runtime.clock import SystemClock
from network.units import JobId, ModelId
from network.wire.safety import REFUSED_AS_UNSAFE, Safety
from node.config.lora_file import LoraBounds
from node.engine.backend import Engine, open_process_engine
from node.engine.channel import Channel
from node.engine.device import Device, open_device
from node.engine.faults import classify
from node.engine.loras.library import Library
from node.engine.options import OPEN_NSFW, EngineOptions, SafetyOptions
from node.engine.protocol import (
    HEADER_BYTES,
    CheckerChanged,
    Setup,
    body_length,
    decode_from_worker,
)
from node.engine.safety import CheckerError, UnsafeImageError
from node.engine.work import FailureKind, ImageJob, ModelSpec, Progress, SafetyState
from node.engine.worker import Worker
from tests.node.engine import checkers, tiny

_FAKE = (sys.executable, "-P", str(Path(__file__).with_name("fake_worker.py")))
_MODEL = ModelId("tiny/one")
_JOB = ImageJob(JobId("job"), _MODEL, ("draw",), 64, 64, 2, 7.5, (11, 12, 13))


def _open_fake(safety: SafetyOptions) -> AbstractAsyncContextManager[Engine]:
    options = EngineOptions(hang_after=1.0, restart_backoff=0.01, safety=safety)
    return open_process_engine(
        [ModelSpec(_MODEL, Path("/nowhere"))],
        device="cpu",
        clock=SystemClock(),
        options=options,
        command=_FAKE,
    )


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110  processes give no event
            await asyncio.sleep(0.01)


def _ignore(progress: Progress) -> None:
    del progress


async def test_without_a_checker_the_state_is_off_from_the_start() -> None:
    async with _open_fake(SafetyOptions()) as engine:
        assert engine.safety() == SafetyState("none", "flag", "off")
        await _until(engine.healthy)
        assert engine.safety().status == "off"


async def test_a_checker_loads_and_loads_again_in_the_next_worker() -> None:
    async with _open_fake(SafetyOptions(OPEN_NSFW, "blur")) as engine:
        assert engine.safety() == SafetyState("opennsfw", "blur", "loading")
        seen: list[str] = []
        engine.subscribe(lambda: seen.append(engine.safety().status))
        await _until(lambda: engine.safety().status == "ready")
        assert engine.healthy()
        first = engine.worker_pid()
        assert first is not None
        os.kill(first, signal.SIGKILL)
        await _until(lambda: engine.worker_pid() not in {None, first} and engine.healthy())
        await _until(lambda: engine.safety().status == "ready")
        # Whoever watches saw the loss, too: nothing is promised while nobody can look.
        lost = seen.index("loading", seen.index("ready"))
        assert "ready" in seen[lost:]


async def test_a_checker_that_cannot_be_loaded_takes_the_engine_off_the_market() -> None:
    async with _open_fake(SafetyOptions("/srv/checkers/broken")) as engine:
        await _until(lambda: engine.safety().status == "failed")
        assert engine.safety().checker == "broken"
        assert "is broken" in engine.safety().detail
        assert engine.worker_pid() is not None
        assert not engine.healthy()


def test_a_refusal_is_told_to_the_client_in_the_words_gateways_know() -> None:
    fault = classify(UnsafeImageError(), _JOB)
    assert fault.kind is FailureKind.UNSAFE
    assert fault.message.startswith(REFUSED_AS_UNSAFE)
    assert not fault.poisoned


@pytest.mark.filterwarnings("ignore")
@pytest.mark.timeout(300)
async def test_the_real_worker_judges_every_image_within_its_memory(tmp_path: Path) -> None:
    tiny.stable_diffusion(tmp_path / "one", "dpm")
    options = EngineOptions(threads=1, safety=SafetyOptions(OPEN_NSFW, threshold=0.0))
    specs = [ModelSpec(_MODEL, tmp_path / "one")]
    async with open_process_engine(
        specs, device="cpu", clock=SystemClock(), options=options
    ) as engine:
        result = await engine.generate(_JOB, _ignore)
        assert [image.safety for image in result.images] == [Safety.FLAGGED] * 3
        assert engine.safety().status == "ready"
        await asyncio.sleep(1.1)  # one heartbeat
        assert 0 < engine.resident_bytes() < 1.5e9


def _device(setup: Setup) -> Device:
    return open_device(setup, Library((), LoraBounds(0, 0), 0))


@pytest.mark.filterwarnings("ignore")
def test_a_worker_with_a_broken_checker_tells_why_and_passes_nothing(tmp_path: Path) -> None:
    folder = checkers.without_safetensors(checkers.red_is_unsafe(tmp_path / "pickled"))
    setup = Setup((), "cpu", 1, 1.0, 5.0, safety=SafetyOptions(str(folder), always=True))
    ours, theirs = socket.socketpair()
    with ours, theirs:
        guard = Worker(Channel(theirs), setup).open_guard(_device(setup))
        assert guard is not None
        with pytest.raises(CheckerError, match=r"cannot be used: .*safetensors"):
            guard.judge([np.zeros((8, 8, 3), dtype=np.uint8)])
        header = ours.recv(HEADER_BYTES, socket.MSG_WAITALL)
        told = decode_from_worker(ours.recv(body_length(header), socket.MSG_WAITALL))
    assert isinstance(told, CheckerChanged)
    assert told.status == "failed"
    assert "safetensors" in told.detail


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("policy", ["flag", "blur", "refuse"])
def test_the_workers_previews_obey_the_policy(policy: Literal["flag", "blur", "refuse"]) -> None:
    setup = Setup((), "cpu", 1, 1.0, 5.0, safety=SafetyOptions(OPEN_NSFW, policy))
    ours, theirs = socket.socketpair()
    with ours, theirs:
        worker, device = Worker(Channel(theirs), setup), _device(setup)
        guard = worker.open_guard(device)
        guarded = worker.previewer(device, guard)
        unguarded = worker.previewer(device, None)
        ours.recv(HEADER_BYTES)  # the checker is loaded, and its thread done
    assert guarded._may_show(_JOB) is (policy == "flag")
    assert guarded._may_show(replace(_JOB, safety_check=False))
    assert unguarded._may_show(_JOB)
