"""GET /jobs/{job_id}/events: a job's progress and previews as server-sent events.

As with its progress, whoever knows a job's id may watch it, which nobody can guess.
"""

import asyncio
from dataclasses import dataclass
from typing import Any, Final

import orjson
import pybase64
from aiohttp import web

from node.engine.work import Preview
from node.jobs.news import Advanced, Mailbox, News, Over, Queued
from node.jobs.runner import JobRunner

_HEADERS: Final = {
    "Content-Type": "text/event-stream",
    "Cache-Control": "no-store",
    # Proxies of nginx's kind collect an answer before they pass it on, unless told not to.
    "X-Accel-Buffering": "no",
}
_STILL_HERE: Final = b": still here\n\n"


@dataclass(frozen=True, slots=True)
class JobEventService:
    """Serves event streams. All times are seconds.

    A job's stream may be asked for before the job has arrived, by up to `patience`. A reader who
    takes nothing for `stall` is cut off.
    """

    runner: JobRunner
    heartbeat: float = 15.0
    patience: float = 2.0
    stall: float = 30.0

    async def get_events(self, request: web.Request) -> web.StreamResponse:
        """Stream a job's events until its end; 404 where there is no such job."""
        async with self.runner.watch(request.match_info["job_id"], self.patience) as mailbox:
            if mailbox is None:
                raise web.HTTPNotFound
            response = web.StreamResponse(headers=_HEADERS)
            await response.prepare(request)
            if request.method == "HEAD":
                # What would be written after a head would be taken for the next answer.
                return response
            try:
                await self._stream(response, mailbox)
            except TimeoutError:
                if request.transport is not None:
                    request.transport.abort()
            return response

    async def _stream(self, response: web.StreamResponse, mailbox: Mailbox) -> None:
        """Write until the job is over. Raises TimeoutError when the reader takes nothing."""
        while True:
            for chunk, is_last in await self._next_chunks(mailbox):
                async with asyncio.timeout(self.stall):
                    await response.write(chunk)
                    if is_last:
                        await response.write_eof()
                        return

    async def _next_chunks(self, mailbox: Mailbox) -> list[tuple[bytes, bool]]:
        try:
            async with asyncio.timeout(self.heartbeat):
                await mailbox.filled()
        except TimeoutError:
            return [(_STILL_HERE, False)]
        return [(event_of(news), isinstance(news, Over)) for news in mailbox.take()]


def event_of(news: News) -> bytes:
    """Return news as one server-sent event (https://html.spec.whatwg.org, 9.2)."""
    match news:
        case Queued(position):
            return _event("queued", {"position": position})
        case Advanced(done, total):
            return _event("progress", {"done": done, "total": total})
        case Preview():
            jpeg = pybase64.b64encode_as_string(news.jpeg)
            return _event("preview", {"image": news.index, "step": news.step, "jpeg": jpeg})
        case Over(fate, reason):
            return _event(fate.value, {"reason": reason} if reason else {})


def _event(name: str, data: dict[str, Any]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name.encode(), orjson.dumps(data))
