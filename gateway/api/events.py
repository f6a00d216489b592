"""Server-sent events (https://html.spec.whatwg.org, 9.2): a request's news while it is made."""

from collections.abc import Mapping
from typing import Any, Final

import orjson
from aiohttp.web import BaseRequest, StreamResponse
from pybase64 import b64encode_as_string

from gateway.api.answers import SERVER
from gateway.api.stalling import taken
from gateway.orchestrators.job_events import Advanced, News, Preview, Queued, StillThere

EVENT_STREAM: Final = "text/event-stream"
#: Seconds in which a reader has to take an event.
_STALL: Final = 30.0


def event(name: str, data: Mapping[str, Any]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name.encode(), orjson.dumps(data))


def event_of(news: News) -> bytes:
    """One piece of news, in the words of `GET /jobs/{id}`."""
    match news:
        case Queued(position):
            return event("queued", {"position": position})
        case Advanced(done, total):
            return event("progress", {"done_steps": done, "total_steps": total})
        case Preview(image, step, jpeg):
            told = {"image": image, "step": step, "jpeg": b64encode_as_string(jpeg)}
            return event("preview", told)
        case StillThere():
            return b": still there\n\n"


class EventStream:
    """An answer that is written event by event."""

    def __init__(self, request: BaseRequest, headers: Mapping[str, str]) -> None:
        self._request = request
        self._response = StreamResponse(
            headers={
                **headers,
                "Content-Type": EVENT_STREAM,
                "Cache-Control": "no-store",
                # Proxies of nginx's kind gather an answer before they pass it on, unless told not to.
                "X-Accel-Buffering": "no",
                "Server": SERVER,
            }
        )

    @property
    def is_open(self) -> bool:
        """Whether something was sent: an error can no longer have a status of its own."""
        return self._response.prepared

    def tell(self, headers: Mapping[str, str]) -> None:
        """Add to the head, if that was not sent yet."""
        if not self.is_open:
            self._response.headers.update(headers)

    async def begin(self) -> None:
        """Send the head, if that was not sent yet."""
        if not self._response.prepared:
            await self._response.prepare(self._request)

    async def send(self, chunk: bytes) -> None:
        """Raises ConnectionError for a reader who is gone or takes nothing."""
        await self.begin()
        await taken(self._request, self._response.write(chunk), _STALL)

    async def end(self) -> StreamResponse:
        await taken(self._request, self._response.write_eof(), _STALL)
        return self._response
