"""What is told of a job while somebody watches it, and the mailbox that keeps the newest of it."""

import asyncio
from dataclasses import dataclass
from enum import StrEnum

from node.accounting.model import Ending, Outcome
from node.engine.work import Preview


@dataclass(frozen=True, slots=True)
class Queued:
    """The job waits at `position`; 1 is next."""

    position: int


@dataclass(frozen=True, slots=True)
class Advanced:
    """Denoise steps done of those of all the job's images."""

    done: int
    total: int


class Fate(StrEnum):
    """How a job ended, for who watched it."""

    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class Over:
    """The job ended. `reason` is a short fixed word, empty where there is nothing to explain."""

    fate: Fate
    reason: str = ""

    @classmethod
    def of(cls, ending: Ending) -> "Over":
        """Tell a job's ending as it concerns who asked for it."""
        match ending.outcome:
            case Outcome.DELIVERED:
                return cls(Fate.DONE)
            case Outcome.CANCELLED:
                return cls(Fate.CANCELLED)
            case Outcome.INTERRUPTED:
                return cls(Fate.FAILED, "closing")
            case Outcome.FAILED | Outcome.REFUSED:
                return cls(Fate.FAILED, ending.reason)


News = Queued | Advanced | Preview | Over


class Mailbox:
    """Holds the newest news of each kind, and of each image, until they are taken.

    So a reader who is slow loses what is stale, and holds up nobody. Belongs to one event loop.
    """

    def __init__(self) -> None:
        self._queued: Queued | None = None
        self._last_queued: Queued | None = None
        self._advanced: Advanced | None = None
        self._previews: dict[int, Preview] = {}
        self._over: Over | None = None
        self._closed = False
        self._filled = asyncio.Event()

    def put(self, news: News) -> None:
        """Take news in. After the job is over there are none."""
        if self._closed:
            return
        match news:
            case Queued():
                if news == self._last_queued:
                    return
                self._queued = self._last_queued = news
            case Advanced():
                self._advanced = news
            case Preview():
                self._previews[news.index] = news
            case Over():
                self._over = news
                self._closed = True
        self._filled.set()

    def take(self) -> tuple[News, ...]:
        """Return what came since the last time, the end last."""
        previews = (self._previews[index] for index in sorted(self._previews))
        news = (self._queued, self._advanced, *previews, self._over)
        self._queued = self._advanced = self._over = None
        self._previews = {}
        self._filled.clear()
        return tuple(one for one in news if one is not None)

    async def filled(self) -> None:
        """Wait until there is something to take."""
        await self._filled.wait()
