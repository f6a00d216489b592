"""What to try when an image's work runs out of memory, and which sizes to refuse for a while. Pure.

Each rung costs more than the one below: plain; the autoencoder works in tiles; the parts that wait
(text encoders, autoencoder) leave the device while they do; at the top the size is refused. Fewer
images in a batch come before all of these, and are the step loop's affair. A size that needed a
rung starts there next time, and so does every larger one, until that is forgotten: what took the
memory (another program, another model) may be gone by then.
"""

from collections.abc import Collection
from dataclasses import dataclass
from enum import IntEnum, StrEnum


class Rung(IntEnum):
    """How thriftily an image is made; higher ones include the lower."""

    PLAIN = 0
    TILED = 1
    OFFLOADED = 2
    REFUSED = 3


class Stage(StrEnum):
    """Where an image ran out of memory."""

    ENCODE = "encode"
    STEP = "step"
    DECODE = "decode"
    WHOLE = "whole"


#: Tiles make only decoding cheaper.
_HELPS = {
    Rung.TILED: frozenset({Stage.DECODE, Stage.WHOLE}),
    Rung.OFFLOADED: frozenset(Stage),
    Rung.REFUSED: frozenset(Stage),
}


@dataclass(frozen=True, slots=True)
class _Lesson:
    """Images of `pixels` and more need a rung in a stage, as was seen `at` (seconds)."""

    pixels: int
    stage: Stage
    at: float


class Ladder:
    """What one model's work on one device has taught. Not safe for several threads."""

    def __init__(self, rungs: Collection[Rung], forget_after: float) -> None:
        """`rungs` are those that this device and model have; refusing is always one."""
        self._rungs = sorted({*rungs, Rung.REFUSED} - {Rung.PLAIN})
        self._forget_after = forget_after
        self._lessons: dict[Rung, _Lesson] = {}

    def rung(self, pixels: int, now: float) -> Rung:
        """Return where an image of so many pixels starts."""
        known = self._known(now).items()
        needed = [rung for rung, lesson in known if pixels >= lesson.pixels]
        return max(needed, default=Rung.PLAIN)

    def highest(self, now: float) -> Rung:
        """Return the highest rung that any size needs now, other than to be refused."""
        known = [rung for rung in self._known(now) if rung is not Rung.REFUSED]
        return max(known, default=Rung.PLAIN)

    def climb(self, stage: Stage, pixels: int, failed: Rung, now: float) -> Rung:
        """Learn that an image had too little memory on rung `failed`; return the one to try."""
        higher = (r for r in self._rungs if r > failed and stage in _HELPS[r])
        rung = next(higher, Rung.REFUSED)
        known = self._known(now).get(rung)
        least = pixels if known is None else min(pixels, known.pixels)
        self._lessons[rung] = _Lesson(least, stage, now)
        return rung

    def fitted(self, stage: Stage, pixels: int) -> bool:
        """Learn that there was enough memory; tell whether that size had been refused till now."""
        lesson = self._lessons.get(Rung.REFUSED)
        if lesson is None or lesson.stage is not stage or pixels < lesson.pixels:
            return False
        del self._lessons[Rung.REFUSED]
        return True

    def thriftiest(self) -> Rung:
        """Return the highest rung below refusing."""
        return self._rungs[-2] if len(self._rungs) > 1 else Rung.PLAIN

    def refused_pixels(self, now: float) -> int | None:
        """Return from how many pixels on images are refused now; None while none are."""
        lesson = self._known(now).get(Rung.REFUSED)
        return None if lesson is None else lesson.pixels

    def _known(self, now: float) -> dict[Rung, _Lesson]:
        return {
            rung: lesson
            for rung, lesson in self._lessons.items()
            if now - lesson.at < self._forget_after
        }
