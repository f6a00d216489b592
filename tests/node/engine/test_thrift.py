"""Going on when memory runs out, with a real pipeline on the CPU and an allocator that fails."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from network.units import JobId, ModelId
from node.engine.families.base import Family
from node.engine.families.loading import open_model
from node.engine.families.placement import PlacedPipeline
from node.engine.faults import is_out_of_memory
from node.engine.ladder import Ladder, Rung
from node.engine.thrift import DoesNotFitError, Group, ThriftyFamily
from node.engine.work import ImageJob
from tests.node.engine import tiny

pytestmark = pytest.mark.filterwarnings("ignore")

_JOB = ImageJob(JobId("job"), ModelId("tiny"), ("a star",), 64, 64, 2, 7.5, (3,))
_LARGE = replace(_JOB, width=128, height=128)


@dataclass
class _Device:
    """How many pixels fit at each stage, and what was done about it. A stand-in for a GPU's end."""

    model: PlacedPipeline
    fits: dict[str, int]
    tiled: bool = False
    away: set[str] = field(default_factory=set)
    done: list[str] = field(default_factory=list)
    failures: int = 0

    def bring(self, group: Group) -> None:
        self.model.bring(group)
        self.away.discard(group)

    def send_away(self, group: Group) -> None:
        self.model.send_away(group)
        self.away.add(group)
        self.done.append(f"{group} away")

    def tile(self, *, on: bool) -> None:
        self.model.tile(on=on)
        self.tiled = on

    def check(self, stage: str, pixels: int) -> None:
        room = self.fits.get(stage, 10**9)
        if stage == "decode" and self.tiled:
            room = self.fits.get("tiled", 10**9)
        if stage == "step" and {"texts", "vae"} <= self.away:
            room = self.fits.get("offloaded", 10**9)
        if pixels > room:
            self.failures += 1
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB")


@dataclass
class _Failing:
    """A family whose allocations fail above some size."""

    inner: Any
    device: _Device

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def encode(self, job: ImageJob) -> Any:
        assert "texts" not in self.device.away
        return self.inner.encode(job)

    def step(self, samples: Any, checkpoint: Callable[[int], bool]) -> None:
        self.device.check("step", samples[0].latents.shape[-1] ** 2 * 4)
        self.inner.step(samples, checkpoint)

    def decode(self, sample: Any) -> NDArray[np.uint8]:
        assert "vae" not in self.device.away
        self.device.check("decode", sample.latents.shape[-1] ** 2 * 4)
        pixels: NDArray[np.uint8] = self.inner.decode(sample)
        return pixels


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> PlacedPipeline:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    tiny.stable_diffusion(folder, "dpm")
    return open_model(folder, "auto", torch.device("cpu"), lambda _: None)


@dataclass
class _Bench:
    device: _Device
    family: ThriftyFamily
    plain: Family
    ladder: Ladder
    spared: list[str]
    changes: list[int | None]

    def draw(self, job: ImageJob) -> NDArray[np.uint8]:
        return _draw(self.family, job)


def _draw(family: Any, job: ImageJob) -> NDArray[np.uint8]:
    sample = family.start(job, family.encode(job), job.seeds[0])
    while not sample.finished:
        family.step([sample], lambda _: True)
    pixels: NDArray[np.uint8] = family.decode(sample)
    return pixels


@pytest.fixture
def make(model: PlacedPipeline) -> Callable[..., _Bench]:
    """Return what builds a family on a device on which so many pixels fit."""

    def build(rungs: tuple[Rung, ...] = (Rung.TILED, Rung.OFFLOADED), **fits: int) -> _Bench:
        plain = model.attach()
        model.tile(on=False)
        device = _Device(model, fits)
        spared: list[str] = []
        changes: list[int | None] = []
        ladder = Ladder(rungs, forget_after=60.0)
        family = ThriftyFamily(
            _Failing(plain, device),
            device,
            ladder,
            monotonic=time.monotonic,
            relieve=lambda: spared.append("memory"),
            spare=lambda: spared.append("models"),
            changed=lambda: changes.append(ladder.refused_pixels(time.monotonic())),
        )
        return _Bench(device, family, plain, ladder, spared, changes)

    return build


def test_nothing_changes_while_memory_suffices(make: Callable[..., _Bench]) -> None:
    bench = make()
    assert np.array_equal(bench.draw(_JOB), _draw(bench.plain, _JOB))
    assert bench.family.facts == bench.plain.facts
    assert not bench.spared
    assert not bench.device.done


def test_idle_models_make_room_before_anything_else(make: Callable[..., _Bench]) -> None:
    bench = make(step=64 * 64)
    bench.family._spare = bench.device.fits.clear
    assert np.array_equal(bench.draw(_LARGE), _draw(bench.plain, _LARGE))
    assert bench.device.failures == 1
    assert not bench.device.done


def test_an_image_too_large_to_decode_is_decoded_in_tiles_next_time_at_once(
    make: Callable[..., _Bench],
) -> None:
    bench = make(decode=64 * 64)
    whole = _draw(bench.plain, _LARGE)
    for failures in (2, 2):
        tiled = bench.draw(_LARGE)
        assert bench.device.failures == failures
        difference = np.abs(tiled.astype(int) - whole.astype(int))
        assert difference.any()
        assert difference.mean() < 8  # the seams of an untrained autoencoder
    # What fits whole is decoded whole, and gives the same bits as ever.
    assert np.array_equal(bench.draw(_JOB), _draw(bench.plain, _JOB))
    assert bench.device.failures == 2


def test_parts_that_wait_leave_the_device_for_a_step_that_needs_the_room(
    make: Callable[..., _Bench],
) -> None:
    bench = make(step=64 * 64)
    assert np.array_equal(bench.draw(_LARGE), _draw(bench.plain, _LARGE))
    assert bench.device.done[:2] == ["texts away", "vae away"]
    # They stay away while they are not at work, as long as that size may come again.
    assert np.array_equal(bench.draw(_LARGE), _draw(bench.plain, _LARGE))
    assert bench.device.failures == 2
    assert bench.device.away == {"texts", "vae"}


def test_steps_go_on_while_another_thread_decodes(
    make: Callable[..., _Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = make()
    finished = bench.family.start(_JOB, bench.family.encode(_JOB), 1)
    decoding, may_end = threading.Event(), threading.Event()

    def decode(family: _Failing, sample: object) -> NDArray[np.uint8]:
        del family, sample
        decoding.set()
        may_end.wait(20)
        return np.zeros((8, 8, 3), dtype=np.uint8)

    monkeypatch.setattr(_Failing, "decode", decode)
    thread = threading.Thread(target=bench.family.decode, args=(finished,))
    thread.start()
    try:
        assert decoding.wait(60)
        sample = bench.family.start(_JOB, bench.family.encode(_JOB), 1)
        bench.family.step([sample], lambda _: True)
        assert sample.done == 1
        assert thread.is_alive(), "it is decoding still"
    finally:
        may_end.set()
        thread.join()


def test_parts_come_back_when_the_shortage_is_forgotten(make: Callable[..., _Bench]) -> None:
    bench = make(step=64 * 64)
    now = [0.0]
    bench.family._monotonic = lambda: now[0]
    bench.draw(_LARGE)
    assert bench.device.away == {"texts", "vae"}
    now[0] = 61.0
    bench.draw(_JOB)
    assert not bench.device.away


def test_a_size_for_which_nothing_helps_is_refused_before_work_and_smaller_ones_are_made(
    make: Callable[..., _Bench],
) -> None:
    bench = make(step=64 * 64, offloaded=64 * 64)
    with pytest.raises(DoesNotFitError) as failure:
        bench.draw(_LARGE)
    assert is_out_of_memory(failure.value)
    assert bench.changes == [128 * 128]
    failures = bench.device.failures
    with pytest.raises(DoesNotFitError):
        bench.family.encode(_LARGE)
    with pytest.raises(DoesNotFitError):
        bench.family.start(_LARGE, bench.plain.encode(_LARGE), 1)
    assert bench.device.failures == failures
    assert np.array_equal(bench.draw(_JOB), _draw(bench.plain, _JOB))


def test_a_sample_begun_before_the_refusal_goes_on_and_can_refute_it(
    make: Callable[..., _Bench],
) -> None:
    bench = make(rungs=(), step=64 * 64)
    first, second = (
        bench.family.start(_LARGE, bench.plain.encode(_LARGE), seed) for seed in (1, 2)
    )
    with pytest.raises(DoesNotFitError):
        bench.family.step([first], lambda _: True)
    bench.device.fits.clear()
    bench.family.step([second], lambda _: True)
    assert bench.changes == [128 * 128, None]


def test_a_batch_is_left_to_the_loop_and_other_errors_are_not_retried(
    make: Callable[..., _Bench],
) -> None:
    bench = make(step=64 * 64)
    samples: list[Any] = [
        bench.family.start(_LARGE, bench.plain.encode(_LARGE), seed) for seed in (1, 2)
    ]
    with pytest.raises(torch.OutOfMemoryError):
        bench.family.step(samples, lambda _: True)
    assert bench.device.failures == 1
    assert bench.ladder.refused_pixels(time.monotonic()) is None
    bench.device.fits.clear()
    samples[0].latents = samples[0].latents[:, :1]
    with pytest.raises(RuntimeError, match="channels"):
        bench.family.step(samples[:1], lambda _: True)
    assert not bench.spared
