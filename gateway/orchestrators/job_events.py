"""A job's news from the orchestrator that runs it. Livepeer has no such call; our node does."""

import asyncio
import binascii
from base64 import b64decode
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Final

import aiohttp
import msgspec
from yarl import URL

from gateway.orchestrators.image_files import check_jpeg

_OK: Final = 200
#: Seconds until the head of the answer, and between two signs of life: nodes give one each 15.
_OPEN_SECONDS: Final = 5.0
_SILENCE_SECONDS: Final = 40.0
#: Our nodes' previews are JPEGs of at most 256 pixels a side.
_LONGEST_SIDE: Final = 512
_LARGEST_EVENT: Final = 256 * 1024
#: News of one attempt: as much of each step of each image, and as much again beside.
_NEWS_A_STEP: Final = 4
_NEWS_AT_LEAST: Final = 200
#: A model may take other steps than were asked for.
_MOST_STEPS: Final = 1000
_FARTHEST_PLACE: Final = 1_000_000
_END: Final = b"\n\n"


@dataclass(frozen=True, slots=True)
class Queued:
    """It waits at `position`, the first being 1."""

    position: int


@dataclass(frozen=True, slots=True)
class Advanced:
    """Denoise steps done of those of all its images."""

    done: int
    total: int


@dataclass(frozen=True, slots=True)
class Preview:
    """What image `image` looks like after `step` steps; no safety checker has seen it."""

    image: int
    step: int
    jpeg: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class StillThere:
    """Nothing is new, but somebody is at it: whoever is between would cut a silent stream."""


News = Queued | Advanced | Preview | StillThere


class _Queued(msgspec.Struct):
    position: int


class _Advanced(msgspec.Struct):
    done: int
    total: int


class _Preview(msgspec.Struct):
    image: int
    step: int
    jpeg: str


class NoEvents(Exception):  # noqa: N818  an outcome, not an error
    """The orchestrator does not tell, or what it tells makes no sense."""


@dataclass(frozen=True, slots=True)
class Job:
    """What news can be about."""

    images: int
    #: Of each image.
    steps: int

    def holds(self, news: News) -> bool:
        """Whether the job can have such news."""
        match news:
            case Queued(position):
                return 0 <= position <= _FARTHEST_PLACE
            case Advanced(done, total):
                return 0 <= done <= total <= self.images * _MOST_STEPS
            case Preview(image, step):
                return 0 <= image < self.images and 0 <= step <= _MOST_STEPS
            case StillThere():
                return True

    @property
    def most_news(self) -> int:
        return _NEWS_AT_LEAST + _NEWS_A_STEP * self.images * self.steps


@dataclass(frozen=True, slots=True)
class JobEvents:
    """Reads over the session of the client."""

    session: aiohttp.ClientSession

    async def of(self, url: URL, job: Job) -> AsyncGenerator[News]:
        """Every piece of news until the job is over. Raises NoEvents, also where there is no end of it."""
        told = 0
        async with aclosing(self._told(url)) as events:
            async for event in events:
                news = read_event(event)
                told += 1
                if told > job.most_news or not (news is None or job.holds(news)):
                    raise NoEvents
                if news is not None:
                    yield news

    async def _told(self, url: URL) -> AsyncGenerator[bytes]:
        timeout = aiohttp.ClientTimeout(total=None, sock_read=_SILENCE_SECONDS)
        try:
            async with asyncio.timeout(_OPEN_SECONDS) as opening:
                async with self.session.get(
                    url, allow_redirects=False, timeout=timeout
                ) as response:
                    opening.reschedule(None)
                    if response.status != _OK or response.content_type != "text/event-stream":
                        raise NoEvents
                    async for event in _events(response.content):
                        yield event
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError):
            raise NoEvents from None


async def _events(content: aiohttp.StreamReader) -> AsyncGenerator[bytes]:
    gathered = b""
    async for chunk in content.iter_any():
        *whole, gathered = (gathered + chunk).split(_END)
        for event in whole:
            if len(event) > _LARGEST_EVENT:
                raise NoEvents
            yield event
        if len(gathered) > _LARGEST_EVENT:
            raise NoEvents


def read_event(event: bytes) -> News | None:
    """One server-sent event; None for an end and what we do not know. Raises NoEvents."""
    fields = dict(line.partition(b": ")[::2] for line in event.split(b"\n"))
    data = fields.get(b"data", b"")
    try:
        match fields.get(b"event"):
            case b"queued":
                return Queued(max(msgspec.json.decode(data, type=_Queued).position, 0))
            case b"progress":
                told = msgspec.json.decode(data, type=_Advanced)
                return Advanced(max(told.done, 0), max(told.total, 0))
            case b"preview":
                shown = msgspec.json.decode(data, type=_Preview)
                jpeg = b64decode(shown.jpeg, validate=True)
                check_jpeg(jpeg, _LONGEST_SIDE)
                return Preview(shown.image, shown.step, jpeg)
            case None if event.startswith(b":"):
                return StillThere()
            case _:
                return None
    except (msgspec.MsgspecError, binascii.Error, ValueError, RecursionError):
        raise NoEvents from None
