"""Leaves an endpoint alone that keeps failing, and tries it again later. Pure."""

from typing import Final

_FAILURES: Final = 5
_FIRST_PAUSE: Final = 2.0
_LONGEST_PAUSE: Final = 30.0


class Breaker:
    """Closed: asked as usual. Open: not asked for a pause. Half open: one question tells which.

    The pause doubles each time the probe fails. All times are monotonic seconds of one clock.
    """

    def __init__(self) -> None:
        self._failures = 0
        self._pause = _FIRST_PAUSE
        self._open_until: float | None = None
        self._is_probing = False

    def admits(self, now: float) -> bool:
        """Whether a question may be asked now; a yes when half open is the probe."""
        if self._open_until is None:
            return True
        if self._is_probing or now < self._open_until:
            return False
        self._is_probing = True
        return True

    def succeeded(self) -> None:
        self._failures = 0
        self._pause = _FIRST_PAUSE
        self._open_until = None
        self._is_probing = False

    def failed(self, now: float) -> None:
        was_probe, self._is_probing = self._is_probing, False
        self._failures += 1
        if was_probe:
            self._pause = min(_LONGEST_PAUSE, self._pause * 2)
        elif self._failures < _FAILURES or self._open_until is not None:
            return
        self._open_until = now + self._pause

    def abandoned(self) -> None:
        """The question was cancelled: it tells nothing, and another may be the probe."""
        self._is_probing = False

    @property
    def is_open(self) -> bool:
        return self._open_until is not None
