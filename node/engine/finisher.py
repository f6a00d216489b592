"""Turns denoised samples into PNG bytes on a thread of its own, beside the next steps."""

import queue
import threading
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from typing import Any, Final

from network.wire.safety import Safety
from node.engine.canary import Canary
from node.engine.families.base import Family
from node.engine.png import encode_png
from node.engine.protocol import ImageDone
from node.engine.safety import Guard, Pixels, UnsafeImageError

#: Pictures checked in one call. They are held decoded meanwhile, and the first waits for the last.
_MOST_TOGETHER: Final = 8
_THREAD: Final = "finisher"


@dataclass(frozen=True, slots=True)
class Denoised:
    """A sample that took its last step. `kind` names those that take as long to finish."""

    ticket: int
    index: int
    family: Family
    sample: Any
    check: bool
    denoise_seconds: float
    kind: str = ""


@dataclass(frozen=True, slots=True)
class Delivered:
    """A denoised sample is off the finisher's hands: sent, dropped, or failed with `error`."""

    ticket: int
    error: Exception | None = None


@dataclass(slots=True)
class _Picture:
    """A sample on its way. Without pixels: not decoded, as it was cancelled or failed."""

    denoised: Denoised
    pixels: Pixels | None = None
    safety: Safety = Safety.UNCHECKED
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
        guard: Guard | None = None,
    ) -> None:
        """Without a `guard` no picture is checked. `longest` is in seconds, for one picture."""
        self._send = send
        self._deliver = deliver
        self._cancelled = cancelled
        self._canary = canary
        self._longest = longest
        self._guard = guard
        self._queue: queue.SimpleQueue[Denoised] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=_THREAD, daemon=True)

    def start(self) -> None:
        """Begin to take samples."""
        self._thread.start()

    def put(self, denoised: Denoised) -> None:
        """Hand a sample over; returns at once."""
        self._queue.put(denoised)

    def _run(self) -> None:
        while True:
            self._finish([_Picture(denoised) for denoised in self._take()])

    def _take(self) -> list[Denoised]:
        """Wait for a sample; return it with those that wait already."""
        taken = [self._queue.get()]
        while len(taken) < _MOST_TOGETHER and not self._queue.empty():
            taken.append(self._queue.get())
        return taken

    def _finish(self, pictures: Sequence[_Picture]) -> None:
        for picture in pictures:
            self._attempt("decoding", self._decode, [picture])
        checked = [one for one in pictures if self._is_to_be_checked(one)]
        self._attempt("checking", self._check, checked)
        for picture in pictures:
            self._attempt("encoding", self._encode, [picture])
            self._deliver(Delivered(picture.denoised.ticket, picture.error))

    def _attempt(
        self,
        activity: str,
        work: Callable[[Sequence[_Picture]], None],
        pictures: Sequence[_Picture],
    ) -> None:
        """Do one thing to those that are still wanted and well; an error is theirs together."""
        wanted = [
            one
            for one in pictures
            if one.error is None and one.denoised.ticket not in self._cancelled
        ]
        if not wanted:
            return
        kinds = {one.denoised.kind for one in wanted}
        pace = f"{activity} {min(kinds)} x{len(wanted)}" if len(kinds) == 1 else None
        try:
            with self._canary.at(_THREAD, activity, self._longest * len(wanted), pace=pace):
                work(wanted)
        except Exception as error:  # noqa: BLE001  torch raises anything; the loop sorts it
            for picture in wanted:
                picture.error = error

    def _is_to_be_checked(self, picture: _Picture) -> bool:
        return self._guard is not None and self._guard.wants(asked=picture.denoised.check)

    def _decode(self, pictures: Sequence[_Picture]) -> None:
        for picture in pictures:
            picture.pixels = picture.denoised.family.decode(picture.denoised.sample)

    def _check(self, pictures: Sequence[_Picture]) -> None:
        if self._guard is None:
            return
        judged = self._guard.judge([one.pixels for one in pictures if one.pixels is not None])
        for picture, verdict in zip(pictures, judged, strict=True):
            picture.pixels = verdict.pixels
            picture.safety = verdict.safety
            if verdict.refused:
                picture.error = UnsafeImageError()

    def _encode(self, pictures: Sequence[_Picture]) -> None:
        for picture in pictures:
            if picture.pixels is None:
                continue
            denoised = picture.denoised
            self._send(
                ImageDone(
                    denoised.ticket,
                    denoised.index,
                    encode_png(picture.pixels),
                    denoised.denoise_seconds,
                    picture.safety,
                )
            )
