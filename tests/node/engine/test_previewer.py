"""The previewer over a family made of nothing: who is drawn, when, and what a fault costs."""

import gc
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from io import BytesIO
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from network.units import JobId, ModelId
from node.engine.canary import Canary
from node.engine.families.base import Family
from node.engine.jpeg import LONGEST_SIDE, encode_preview, preview_size
from node.engine.latent_rgb import LinearRgb
from node.engine.previewer import Previewer
from node.engine.protocol import Previewed
from node.engine.work import ImageJob

_JOB = ImageJob(
    JobId("job"), ModelId("a"), ("a star",), 512, 256, 10, 7.5, (1, 2), safety_check=False
)


class _Family:
    """Stands for any."""


_FAMILY = cast("Family", _Family())


@dataclass
class _Sample:
    done: int
    finished: bool = False
    shade: float = 0.0


@dataclass
class _Latents:
    """Copies a sample's shade; draws only while `open` is set."""

    open: threading.Event = field(default_factory=threading.Event)
    copied: int = 0
    learned: int = 0
    fault: Exception | None = None

    def copy(self, family: Any, sample: Any) -> Callable[[], NDArray[np.float32]]:
        del family
        self.copied += 1
        latents = np.full((3, 2, 4), sample.shade, dtype=np.float32)

        def wait() -> NDArray[np.float32]:
            assert self.open.wait(20)
            if self.fault is not None:
                raise self.fault
            return latents

        return wait

    def colours(self, family: Any) -> LinearRgb:
        del family
        self.learned += 1
        return LinearRgb(np.eye(3), np.zeros(3))


class _Stage:
    """A running previewer whose clock stands still until a test moves it."""

    def __init__(self, *, steps: int = 1, interval: float = 0.0) -> None:
        self.latents = _Latents()
        self.watched = {1}
        self.now = 100.0
        self.drawn: list[Previewed] = []
        self._news = threading.Condition()
        self.previewer = Previewer(
            watched=self.watched,
            send=self._send,
            latents=self.latents,
            canary=Canary(time.monotonic),
            steps=steps,
            interval=interval,
            longest=5.0,
            monotonic=lambda: self.now,
            may_show=lambda job: not job.safety_check,
        )
        self.previewer.start()

    def _send(self, message: Previewed) -> None:
        with self._news:
            self.drawn.append(message)
            self._news.notify_all()

    def offer(
        self,
        step: int,
        *,
        ticket: int = 1,
        index: int = 0,
        family: Family = _FAMILY,
        last: bool = False,
        job: ImageJob = _JOB,
    ) -> None:
        sample = _Sample(step, last, step / 100)
        self.previewer.offer(ticket, index, job, family, sample)

    def begin_drawing(self) -> None:
        """Have the first step drawn, which lasts until the curtain opens."""
        self.offer(1)
        while self.latents.learned == 0:
            time.sleep(0.001)

    def after(self, count: int) -> list[Previewed]:
        """Open the curtain, wait for so many previews, and return all there are."""
        self.latents.open.set()
        with self._news:
            assert self._news.wait_for(lambda: len(self.drawn) >= count, 20)
            return list(self.drawn)


def test_a_watched_image_is_drawn_small_and_right() -> None:
    stage = _Stage()
    stage.offer(30)
    (preview,) = stage.after(1)
    assert (preview.ticket, preview.index, preview.step) == (1, 0, 30)
    picture = Image.open(BytesIO(preview.jpeg))
    assert picture.format == "JPEG"
    assert picture.size == (256, 128)
    assert np.abs(np.asarray(picture).astype(int) - round(1.3 * 127.5)).max() <= 2


def test_nobody_watching_costs_no_copy() -> None:
    stage = _Stage()
    for step in range(50):
        stage.offer(step, ticket=2)
    assert stage.latents.copied == 0
    stage.watched.add(2)
    stage.offer(50, ticket=2)
    stage.watched.discard(2)
    stage.offer(51, ticket=2)
    assert stage.latents.copied == 1


def test_what_may_not_be_seen_unchecked_is_not_drawn() -> None:
    stage = _Stage()
    stage.offer(1, job=replace(_JOB, safety_check=True))
    assert stage.latents.copied == 0


def test_what_is_no_longer_watched_is_not_drawn() -> None:
    stage = _Stage()
    stage.watched.add(2)
    stage.begin_drawing()
    stage.offer(1, ticket=2)
    stage.offer(1, ticket=2, index=1)
    stage.offer(2)
    stage.watched.discard(2)
    assert [(preview.ticket, preview.step) for preview in stage.after(2)] == [(1, 1), (1, 2)]


def test_the_newest_takes_the_place_of_what_waits_and_no_image_starves() -> None:
    stage = _Stage()
    stage.begin_drawing()
    stage.offer(2, index=1)
    for step in range(2, 40):
        stage.offer(step)
    drawn = stage.after(3)
    assert [(preview.index, preview.step) for preview in drawn] == [(0, 1), (1, 2), (0, 39)]
    assert stage.latents.learned == 1


def test_previews_keep_their_distance_in_steps_and_seconds_but_for_the_first_and_last() -> None:
    stage = _Stage(steps=3, interval=0.5)
    kept = []
    for step in range(1, 21):
        stage.now += 0.125
        before = stage.latents.copied
        stage.offer(step, last=step == 20)
        if stage.latents.copied > before:
            kept.append(step)
    assert kept == [1, 5, 9, 13, 17, 20]
    slow = _Stage(steps=3)
    for step in range(1, 9):
        slow.offer(step)
    assert slow.latents.copied == 3  # after steps 1, 4 and 7


def test_a_family_is_learnt_beforehand_and_once() -> None:
    stage = _Stage()
    family = cast("Family", _Family())
    stage.previewer.learn(family)
    while stage.latents.learned == 0:
        time.sleep(0.001)
    stage.offer(1, family=family)
    stage.offer(1, index=1, family=family)
    stage.after(2)
    assert stage.latents.learned == 1
    gone = weakref.ref(family)
    del family
    ends = time.monotonic() + 20
    while gone() is not None and time.monotonic() < ends:
        gc.collect()
    assert gone() is None


def test_a_fault_ends_the_previews_of_its_family_alone(capsys: pytest.CaptureFixture[str]) -> None:
    stage = _Stage()
    stage.latents.fault = RuntimeError("no pictures here")
    stage.latents.open.set()
    stage.offer(1)
    # Other tests' threads may print as well; the time limit ends what never comes.
    printed = ""
    while "no previews of a _Family: RuntimeError: no pictures here\n" not in printed:
        printed += capsys.readouterr().err
    stage.latents.fault = None
    copied = stage.latents.copied
    stage.offer(2)
    assert stage.latents.copied == copied
    other = cast("Family", _Family())
    stage.watched.add(2)
    stage.offer(1, ticket=2, family=other)
    assert [preview.ticket for preview in stage.after(1)] == [2]


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((1024, 576), (256, 144)),
        ((576, 1024), (144, 256)),
        ((256, 256), (256, 256)),
        ((64, 32), (64, 32)),
        ((8192, 8), (256, 1)),
    ],
)
def test_a_preview_has_its_images_shape_within_the_longest_side(
    size: tuple[int, int], expected: tuple[int, int]
) -> None:
    assert preview_size(*size) == expected
    jpeg = encode_preview(np.zeros((2, 3, 3), dtype=np.uint8), expected)
    assert Image.open(BytesIO(jpeg)).size == expected
    assert max(expected) <= LONGEST_SIDE
