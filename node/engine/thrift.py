"""Makes a family go on when memory runs out: the part of the worker that carries the ladder out."""

import threading
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Literal, Protocol, TypeVar

from numpy import uint8
from numpy.typing import NDArray

from node.engine.families.base import Checkpoint, Family
from node.engine.faults import is_out_of_memory
from node.engine.ladder import Ladder, Rung, Stage
from node.engine.work import ImageJob

_T = TypeVar("_T")

#: Modules that wait while the denoiser works: the text encoders, and the autoencoder.
Group = Literal["texts", "vae"]


class DoesNotFitError(MemoryError):
    """No rung of the ladder is left for an image of this size."""


class Parts(Protocol):
    """What of a loaded model can be made to take less of the device; see `families.placement`."""

    def bring(self, group: Group) -> None: ...

    def send_away(self, group: Group) -> None: ...

    def tile(self, *, on: bool) -> None: ...


class ThriftyFamily:
    """A family that retries what ran out of memory on the next rung of its ladder.

    The image is the same on every rung but those in tiles, whose seams are blended. A batch is
    never retried here: making it smaller is cheaper, and its owner knows how. What this class
    does not define is the inner family's own.
    """

    def __init__(
        self,
        family: Family,
        parts: Parts,
        ladder: Ladder,
        *,
        monotonic: Callable[[], float],
        relieve: Callable[[], None],
        spare: Callable[[], None],
        changed: Callable[[], None],
    ) -> None:
        """`relieve` gives freed memory back and may be called by any thread, `spare` also puts
        idle models off the device and belongs to the loop's. `changed` hears of refused sizes.
        """
        self._family = family
        self._parts = parts
        self._ladder = ladder
        self._monotonic = monotonic
        self._relieve = relieve
        self._spare = spare
        self._changed = changed
        self._pixels: dict[Hashable, int] = {}  # by a sample's key, which tells its size
        self._learning = threading.Lock()
        # The loop's thread encodes while the finisher's decodes, and either may clear the device.
        self._locks: dict[Group, threading.Lock] = {
            "texts": threading.Lock(),
            "vae": threading.Lock(),
        }
        self._away: set[Group] = set()  # a group joins and leaves under its lock

    def __getattr__(self, name: str) -> Any:
        return getattr(self._family, name)

    def returned(self) -> None:
        """Take note that all of the model was brought to the device again."""
        self._away.clear()

    def encode(self, job: ImageJob) -> Any:
        def work(rung: Rung) -> Any:
            self._follow(rung)
            return self._beside("texts", lambda: self._family.encode(job))

        return self._climb(Stage.ENCODE, job.width * job.height, work)

    def start(self, job: ImageJob, prompt: Any, seed: int) -> Any:
        pixels = job.width * job.height
        self._starting_rung(pixels, begun=False)
        sample = self._family.start(job, prompt, seed)
        self._pixels[sample.key] = pixels
        return sample

    def step(self, samples: Sequence[Any], checkpoint: Checkpoint) -> None:
        if len(samples) > 1:
            self._family.step(samples, checkpoint)
            return
        stage = Stage.WHOLE if self._family.alone else Stage.STEP

        def work(rung: Rung) -> None:
            if stage is Stage.WHOLE:
                self._parts.tile(on=rung >= Rung.TILED)
            else:
                self._follow(rung)
            self._family.step(samples, checkpoint)

        self._climb(stage, self._pixels.get(samples[0].key), work)

    def decode(self, sample: Any) -> NDArray[uint8]:
        def work(rung: Rung) -> NDArray[uint8]:
            if rung >= Rung.OFFLOADED:
                self._follow(rung)
            return self._beside("vae", lambda: self._decode(sample, rung))

        return self._climb(Stage.DECODE, self._pixels.get(sample.key), work)

    def _decode(self, sample: Any, rung: Rung) -> NDArray[uint8]:
        self._parts.tile(on=rung >= Rung.TILED)
        return self._family.decode(sample)

    def _climb(self, stage: Stage, pixels: int | None, work: Callable[[Rung], _T]) -> _T:
        if pixels is None:
            return work(Rung.PLAIN)
        rung = self._starting_rung(pixels, begun=stage is not Stage.ENCODE)
        clear = self._relieve if stage is Stage.DECODE else self._spare
        cleared = False
        while True:
            try:
                result = work(rung)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
            else:
                self._note_success(stage, pixels)
                return result
            # Out of the except block, whose traceback would keep the failed attempt's tensors.
            if cleared:
                rung = self._next_rung(stage, pixels, rung)
            clear()
            cleared = True

    def _starting_rung(self, pixels: int, *, begun: bool) -> Rung:
        """Refuse a size that did not fit lately, unless this image was begun before that."""
        with self._learning:
            rung = self._ladder.rung(pixels, self._monotonic())
        if rung is not Rung.REFUSED:
            return rung
        if not begun:
            raise DoesNotFitError
        return self._ladder.thriftiest()

    def _note_success(self, stage: Stage, pixels: int) -> None:
        with self._learning:
            offered_again = self._ladder.fitted(stage, pixels)
        if offered_again:
            self._changed()

    def _next_rung(self, stage: Stage, pixels: int, failed: Rung) -> Rung:
        with self._learning:
            rung = self._ladder.climb(stage, pixels, failed, self._monotonic())
        if rung is Rung.REFUSED:
            self._changed()
            raise DoesNotFitError
        return rung

    def _follow(self, rung: Rung) -> None:
        """Put the waiting parts off the device, or back once no size needs that any more."""
        with self._learning:
            highest = self._ladder.highest(self._monotonic())
        wanted = max(rung, highest) >= Rung.OFFLOADED
        for group, lock in self._locks.items():
            # Seen from here first: the lock is held for as long as the other thread decodes.
            if wanted == (group in self._away):
                continue
            with lock:
                if wanted and group not in self._away:
                    self._parts.send_away(group)
                    self._away.add(group)
                elif group in self._away and not wanted:
                    self._parts.bring(group)
                    self._away.discard(group)

    def _beside(self, group: Group, work: Callable[[], _T]) -> _T:
        """Work with a group of parts, on the device only meanwhile if it must be."""
        with self._locks[group]:
            if group not in self._away:
                return work()
            try:
                self._parts.bring(group)
                return work()
            finally:
                self._parts.send_away(group)
