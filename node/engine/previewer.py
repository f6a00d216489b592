"""Draws previews of the images that somebody watches, on a thread of its own.

The step loop pays for a look into a set, and for a copy of the latents of a watched image. All
else happens here. When drawing takes longer than a step, the newest copy takes the place of the
one that waits, so that no work piles up and no preview is stale.
"""

import sys
import threading
from collections import deque
from collections.abc import Callable, Container
from dataclasses import dataclass
from typing import Any, Final, Protocol
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from node.engine.canary import Canary
from node.engine.families.base import Family
from node.engine.jpeg import encode_preview, preview_size
from node.engine.latent_rgb import LinearRgb
from node.engine.protocol import Previewed
from node.engine.work import ImageJob

_THREAD: Final = "previewer"


class Latents(Protocol):
    """How latents are read from a family's samples."""

    def copy(self, family: Any, sample: Any) -> Callable[[], NDArray[np.float32]] | None:
        """Begin to copy, on the step loop's thread; the result waits for (channels, h, w)."""

    def colours(self, family: Any) -> LinearRgb:
        """Return what the family's latents look like, on the previewer's thread."""


@dataclass(frozen=True, slots=True)
class _Moment:
    """One image at one step."""

    ticket: int
    index: int
    step: int
    job: ImageJob
    family: Family
    latents: Callable[[], NDArray[np.float32]]


class Previewer:
    """`watched` are the tickets of jobs that somebody watches; others may change it any time."""

    def __init__(
        self,
        *,
        watched: Container[int],
        send: Callable[[Previewed], None],
        latents: Latents,
        canary: Canary,
        steps: int,
        interval: float,
        longest: float,
        monotonic: Callable[[], float],
        may_show: Callable[[ImageJob], bool] = lambda _job: True,
    ) -> None:
        """At least `steps` steps and `interval` seconds pass between two previews of an image.

        No checker sees a preview: `may_show` says for which jobs that is allowed.
        """
        self._watched = watched
        self._send = send
        self._latents = latents
        self._canary = canary
        self._steps = steps
        self._interval = interval
        self._longest = longest
        self._monotonic = monotonic
        self._may_show = may_show
        self._shown: dict[tuple[int, int], tuple[int, float]] = {}
        #: None: there are no previews of that family
        self._colours: WeakKeyDictionary[Any, LinearRgb | None] = WeakKeyDictionary()
        self._unknown: deque[Any] = deque()
        self._waiting: dict[tuple[int, int], _Moment] = {}  # the longest waiting first
        self._filled = threading.Condition()
        self._thread = threading.Thread(target=self._run, name=_THREAD, daemon=True)

    def start(self) -> None:
        """Begin to draw."""
        self._thread.start()

    def learn(self, family: Family) -> None:
        """Find out beforehand what a family's latents look like; returns at once."""
        with self._filled:
            self._unknown.append(family)
            self._filled.notify()

    def offer(self, ticket: int, index: int, job: ImageJob, family: Family, sample: Any) -> None:
        """Look at an image between two of its steps; returns at once. For the step loop."""
        if ticket not in self._watched or self._colours.get(family, 0) is None:
            return
        if not self._may_show(job) or not self._is_due(ticket, index, sample):
            return
        try:
            latents = self._latents.copy(family, sample)
        except Exception as error:  # noqa: BLE001  the loop must not fail for a preview
            self._give_up(family, error)
            return
        if latents is None:
            return
        moment = _Moment(ticket, index, sample.done, job, family, latents)
        with self._filled:
            self._waiting[ticket, index] = moment
            self._filled.notify()

    def _is_due(self, ticket: int, index: int, sample: Any) -> bool:
        step, now = sample.done, self._monotonic()
        last = self._shown.get((ticket, index))
        if last is not None and not sample.finished:
            last_step, last_at = last
            if step - last_step < self._steps or now - last_at < self._interval:
                return False
        if last is None:
            # Jobs that ended otherwise than by their last step leave their entries behind.
            self._shown = {key: at for key, at in self._shown.items() if key[0] in self._watched}
        self._shown[ticket, index] = (step, now)
        return True

    def _run(self) -> None:
        while True:
            with self._filled:
                while not (self._waiting or self._unknown):
                    self._filled.wait()
                family = self._unknown.popleft() if self._unknown else None
                moment = None
                if family is None:
                    moment = self._waiting.pop(next(iter(self._waiting)))
            with self._canary.at(_THREAD, "drawing a preview", self._longest):
                if family is not None:
                    self._colours_of(family)
                    # The first drawing imports Pillow: a tenth of a second, better now than later.
                    encode_preview(np.zeros((1, 1, 3), dtype=np.uint8), (1, 1))
                elif moment is not None and moment.ticket in self._watched:
                    self._draw(moment)
            # A local name would keep a family alive that its shelf let go.
            del family, moment

    def _draw(self, moment: _Moment) -> None:
        colours = self._colours_of(moment.family)
        if colours is None:
            return
        try:
            pixels = colours.picture(moment.latents())
            jpeg = encode_preview(pixels, preview_size(moment.job.width, moment.job.height))
        except Exception as error:  # noqa: BLE001  torch raises anything
            self._give_up(moment.family, error)
            return
        self._send(Previewed(moment.ticket, moment.index, moment.step, jpeg))

    def _colours_of(self, family: Family) -> LinearRgb | None:
        if family not in self._colours:
            try:
                self._colours[family] = self._latents.colours(family)
            except Exception as error:  # noqa: BLE001  torch raises anything
                self._give_up(family, error)
        return self._colours[family]

    def _give_up(self, family: Family, error: Exception) -> None:
        """Draw no more previews of this family: they are a courtesy, its images are not."""
        self._colours[family] = None
        name = type(family).__name__
        sys.stderr.write(f"no previews of a {name}: {type(error).__name__}: {error}\n")
