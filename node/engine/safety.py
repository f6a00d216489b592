"""The operator's policy for unsafe images, applied to finished pictures. Needs no torch.

A checker gives scores; the guard compares them with the operator's threshold and does what the
policy says. It fails closed: without its checker no picture passes for checked.
"""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from network.wire.safety import REFUSED_AS_UNSAFE, Safety
from node.engine.canary import Canary
from node.engine.options import SafetyOptions
from node.engine.protocol import CheckerChanged

#: `(height, width, 3)`, RGB.
Pixels = NDArray[np.uint8]

_CELLS = 8  # of a blurred picture, in width and in height: all that is left of it


class SafetyChecker(Protocol):
    """Looks at finished pictures, on the finisher's thread."""

    def scores(self, pictures: Sequence[Pixels]) -> list[float]:
        """Return for each picture how unsafe it is, from 0 to 1. Sizes may differ."""


class CheckerError(Exception):
    """The checker cannot be had. The message is for the operator."""


class UnsafeImageError(Exception):
    """The policy is to refuse, and the checker objects. The message may go to the client."""

    def __init__(self) -> None:
        super().__init__(f"{REFUSED_AS_UNSAFE}: its safety checker objects to an image")


@dataclass(frozen=True, slots=True)
class Judged:
    """A picture as the policy leaves it. `refused`: it must not leave this process at all."""

    pixels: Pixels
    safety: Safety
    refused: bool = False


class Guard:
    """Judges pictures. `checker` may wait until the checker is loaded, and may raise."""

    def __init__(self, options: SafetyOptions, checker: Callable[[], SafetyChecker]) -> None:
        self._options = options
        self._checker = checker

    def wants(self, *, asked: bool) -> bool:
        """Tell whether a picture is to be judged whose client `asked` for that, or did not."""
        return asked or self._options.always

    def may_preview(self, *, asked: bool) -> bool:
        """Tell whether an image may be shown before it is finished, which nobody checks.

        Where an unsafe image must not be seen, its last preview would give it away.
        """
        return self._options.policy == "flag" or not self.wants(asked=asked)

    def judge(self, pictures: Sequence[Pixels]) -> list[Judged]:
        """Look at all of them in one call."""
        scores = self._checker().scores(pictures)
        return [
            self._judged(pixels, score) for pixels, score in zip(pictures, scores, strict=True)
        ]

    def _judged(self, pixels: Pixels, score: float) -> Judged:
        # Said this way round, a score that is no number is unsafe.
        if score < self._options.threshold:
            return Judged(pixels, Safety.PASSED)
        match self._options.policy:
            case "flag":
                return Judged(pixels, Safety.FLAGGED)
            case "blur":
                return Judged(blurred(pixels), Safety.BLURRED)
            case "refuse":
                return Judged(pixels, Safety.FLAGGED, refused=True)


def blurred(pixels: Pixels) -> Pixels:
    """Return what 8 x 8 mean colours tell of a picture, drawn smoothly at its size."""
    from PIL import Image  # noqa: PLC0415  half the price of a start where it is not needed

    height, width, _ = pixels.shape
    cells = Image.fromarray(pixels).resize((_CELLS, _CELLS), Image.Resampling.BOX)
    return np.asarray(cells.resize((width, height), Image.Resampling.BICUBIC))


class CheckerInLoading:
    """A checker that is loaded on a thread of its own, beside the models.

    The finisher calls it for the checker, and waits if need be. Raises CheckerError.
    """

    def __init__(
        self,
        load: Callable[[], SafetyChecker],
        *,
        report: Callable[[CheckerChanged], None],
        canary: Canary,
        longest_load: float,
    ) -> None:
        self._load = load
        self._report = report
        self._canary = canary
        self._longest_load = longest_load
        self._loaded: Future[SafetyChecker | CheckerError] = Future()

    def start(self) -> None:
        """Begin to load."""
        threading.Thread(target=self._run, name="checker", daemon=True).start()

    def __call__(self) -> SafetyChecker:
        if self._loaded.done():
            loaded = self._loaded.result()
        else:
            with self._canary.at(
                "finisher", "waiting for the safety checker", self._longest_load, kind="wait"
            ):
                loaded = self._loaded.result()
        if isinstance(loaded, CheckerError):
            raise CheckerError(f"the safety checker cannot be used: {loaded}")
        return loaded

    def _run(self) -> None:
        with self._canary.at("checker", "loading", self._longest_load, kind="read"):
            loaded = self._try()
        self._loaded.set_result(loaded)
        failed = isinstance(loaded, CheckerError)
        self._report(
            CheckerChanged("failed" if failed else "ready", str(loaded) if failed else "")
        )

    def _try(self) -> SafetyChecker | CheckerError:
        try:
            return self._load()
        except CheckerError as error:
            return error
        except Exception as error:  # noqa: BLE001  libraries raise anything
            return CheckerError(f"{type(error).__name__}: {error}")
