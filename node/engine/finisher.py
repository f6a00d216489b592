"""Turns denoised samples into PNG bytes on a thread of its own, beside the next steps."""

import queue
import threading
from collections.abc import Callable, Container
from dataclasses import dataclass
from typing import Any

from node.engine.canary import Canary
from node.engine.families.base import Family
from node.engine.png import encode_png
from node.engine.protocol import ImageDone
from node.engine.safety import SafetyChecker


@dataclass(frozen=True, slots=True)
class Denoised:
    """A sample that took its last step."""

    ticket: int
    index: int
    family: Family
    sample: Any
    check: bool
    denoise_seconds: float


@dataclass(frozen=True, slots=True)
class Delivered:
    """A denoised sample is off the finisher's hands: sent, dropped, or failed with `error`."""

    ticket: int
    error: Exception | None = None


class Finisher:
    """Every `Denoised` put in comes out as exactly one `Delivered`, in the same order."""

    def __init__(
        self,
        *,
        send: Callable[[ImageDone], None],
        deliver: Callable[[Delivered], None],
        cancelled: Container[int],
        canary: Canary,
        longest: float,
        checker: SafetyChecker | None = None,
    ) -> None:
        self._send = send
        self._deliver = deliver
        self._cancelled = cancelled
        self._canary = canary
        self._longest = longest
        self._checker = checker
        self._queue: queue.SimpleQueue[Denoised] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="finisher", daemon=True)

    def start(self) -> None:
        """Begin to take samples."""
        self._thread.start()

    def put(self, denoised: Denoised) -> None:
        """Hand a sample over; returns at once."""
        self._queue.put(denoised)

    def _run(self) -> None:
        while True:
            delivered = self._finish(self._queue.get())
            self._canary.rest("finisher")
            self._deliver(delivered)

    def _finish(self, denoised: Denoised) -> Delivered:
        self._canary.note("finisher", "finishing an image", self._longest)
        try:
            image = self._make_image(denoised)
        except Exception as error:  # noqa: BLE001  torch raises anything; the loop sorts it
            return Delivered(denoised.ticket, error)
        if image is not None:
            self._send(image)
        return Delivered(denoised.ticket)

    def _make_image(self, denoised: Denoised) -> ImageDone | None:
        if denoised.ticket in self._cancelled:
            return None
        pixels = denoised.family.decode(denoised.sample)
        if denoised.ticket in self._cancelled:
            return None
        checker = self._checker if denoised.check else None
        return ImageDone(
            denoised.ticket,
            denoised.index,
            encode_png(pixels),
            checker is not None and checker.is_unsafe(pixels),
            denoised.denoise_seconds,
        )
