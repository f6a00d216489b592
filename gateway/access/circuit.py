"""When a service that does not answer is asked again. Pure; times are monotonic seconds."""

from typing import Final

#: Failures in a row after which nobody waits for it any more.
_FAILURES: Final = 5
_FIRST_PAUSE: Final = 1.0
_LONGEST_PAUSE: Final = 30.0


class Circuit:
    """Closed: everybody may ask. Open: nobody, until a pause is over; then one, whose luck decides."""

    def __init__(self) -> None:
        self._failures = 0
        self._asked_again_at = 0.0
        self._is_probing = False

    @property
    def is_open(self) -> bool:
        return self._failures >= _FAILURES

    def enter(self, now: float) -> bool:
        """Whether the service may be asked. Then `succeeded`, `failed` or `left` tells how it went."""
        if not self.is_open:
            return True
        if self._is_probing or now < self._asked_again_at:
            return False
        self._is_probing = True
        return True

    def succeeded(self) -> None:
        self._failures = 0
        self._is_probing = False

    def failed(self, now: float) -> None:
        # Those that were under way when it opened say nothing new.
        if not self.is_open or self._is_probing:
            self._failures += 1
            self._asked_again_at = now + _pause(self._failures - _FAILURES)
        self._is_probing = False

    def left(self) -> None:
        """Nothing was learnt: whoever asked was cut off."""
        self._is_probing = False

    def wait(self, now: float) -> float:
        """Seconds until it may be asked again."""
        return max(0.0, self._asked_again_at - now) if self.is_open else 0.0


def _pause(times: int) -> float:
    """`times` it failed since it opened; below 0 it is not open."""
    return float(min(_FIRST_PAUSE * 2 ** min(max(times, 0), 16), _LONGEST_PAUSE))
