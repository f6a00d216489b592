"""One source, read again and again; what it last told stays when it tells nothing any more."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import structlog

from gateway.discovery.listing import Admitted, Claim, Rules, admit
from gateway.discovery.sources import Source, SourceError
from network.runtime.clock import Clock

_log = structlog.get_logger(__name__)

#: Seconds until a source that failed is read again: doubled each time, up to its own interval.
_FIRST_RETRY: Final = 2.0


@dataclass(frozen=True, slots=True)
class Following:
    """Which source, and how. `interval` in seconds."""

    name: str
    source: Source
    interval: float
    #: What its list depends on, e.g. the webhook's URL, in a form that tells nothing.
    fingerprint: str = ""
    allow_private: bool = True

    @property
    def key(self) -> str:
        """What its list is remembered under."""
        return f"{self.name} {self.fingerprint}".rstrip()


class Follower:
    """Run `run` under the supervisor; `tell` gets each list that is not the one before."""

    def __init__(
        self,
        following: Following,
        rules: Rules,
        clock: Clock,
        tell: Callable[[str, Admitted], None],
    ) -> None:
        self.following = following
        self._rules = rules
        self._clock = clock
        self._tell = tell
        self.admitted = Admitted()
        #: Monotonic seconds of the last good reading.
        self._read_at: float | None = None
        self._problem = ""
        self._failures = 0
        self._wake = asyncio.Event()
        self._has_looked = asyncio.Event()

    def recall(self, claims: Sequence[Claim]) -> None:
        """What an earlier process read, until the source answers."""
        self._take(claims)

    async def run(self) -> None:
        """Read for ever. Cancel to stop."""
        while True:
            self._wake.clear()
            await self.look()
            with suppress(TimeoutError):
                async with asyncio.timeout(self.pause()):
                    await self._wake.wait()

    def hurry(self) -> None:
        """Something changed there: read soon."""
        self._wake.set()

    async def first_look(self) -> None:
        """Return when the source was read once, or failed."""
        await self._has_looked.wait()

    async def look(self) -> None:
        """Read now; a failure is kept, and logged when it begins."""
        name = self.following.name
        try:
            claims = await self.following.source.read()
        except SourceError as error:
            if str(error) != self._problem:
                _log.warning(
                    "orchestrators_not_listed",
                    source=name,
                    problem=str(error),
                    kept=len(self.admitted.accounts),
                )
            self._problem = str(error)
            self._failures += 1
        else:
            if self._problem:
                _log.info("orchestrators_listed_again", source=name)
            self._problem, self._failures = "", 0
            self._read_at = self._clock.monotonic()
            self._take(claims)
        finally:
            self._has_looked.set()

    def _take(self, claims: Sequence[Claim]) -> None:
        following = self.following
        admitted = admit(claims, self._rules, allow_private=following.allow_private)
        if admitted == self.admitted:
            return
        self.admitted = admitted
        _log.info(
            "orchestrators_listed",
            source=following.name,
            listed=len(admitted.accounts),
            skipped=admitted.skipped_count,
        )
        self._tell(following.name, admitted)

    def pause(self) -> float:
        """Seconds until the next reading."""
        interval = self.following.interval
        if not self._failures:
            return interval
        return min(interval, _FIRST_RETRY * 2.0 ** min(self._failures - 1, 16))

    def describe(self) -> dict[str, Any]:
        """For the operator's `/status`."""
        age = None if self._read_at is None else self._clock.monotonic() - self._read_at
        return {
            "source": self.following.name,
            "listed": len(self.admitted.accounts),
            "age_seconds": None if age is None else round(age, 3),
            "problem": self._problem,
            "skipped_count": self.admitted.skipped_count,
            "skipped": [{"entry": one.text, "reason": one.why} for one in self.admitted.skipped],
        }
