"""A job's news from the orchestrator that runs it. Livepeer has no such call; our node does."""

import asyncio
import binascii
from base64 import b64decode
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Final

import aiohttp
import msgspec
from yarl import URL

_OK: Final = 200
#: Seconds until the head of the answer, and between two signs of life: nodes give one each 15.
_OPEN_SECONDS: Final = 5.0
_SILENCE_SECONDS: Final = 40.0
#: A preview is a JPEG of at most 256 pixels a side.
_LARGEST_EVENT: Final = 256 * 1024
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
class JobEvents:
    """Reads over the session of the client."""

    session: aiohttp.ClientSession

    async def of(self, url: URL) -> AsyncGenerator[News]:
        """Every piece of news until the job is over. Raises NoEvents."""
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
                        news = read_event(event)
                        if news is not None:
                            yield news
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError):
            raise NoEvents from None


async def _events(content: aiohttp.StreamReader) -> AsyncGenerator[bytes]:
    gathered = b""
    async for chunk in content.iter_any():
        *whole, gathered = (gathered + chunk).split(_END)
        for event in whole:
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
                if not jpeg.startswith(b"\xff\xd8\xff"):
                    raise NoEvents
                return Preview(shown.image, shown.step, jpeg)
            case None if event.startswith(b":"):
                return StillThere()
            case _:
                return None
    except (msgspec.MsgspecError, binascii.Error, ValueError, RecursionError):
        raise NoEvents from None
