"""`GET /jobs/{request id}` and `.../events`: how far one's own request is."""

from contextlib import aclosing

from aiohttp.web import BaseRequest, StreamResponse

from gateway.api.answers import json_answer
from gateway.api.auth import Keys, authenticate
from gateway.api.events import EventStream, event, event_of
from gateway.api.exchange import Exchange, is_request_id
from gateway.api.running import RunningRequests
from gateway.keys import KeyGrant
from network.errors import ProblemError
from network.runtime.clock import Clock
from network.wire import problems

PREFIX = "/jobs/"
_EVENTS = "/events"


class Jobs:
    """The endpoint."""

    def __init__(self, *, keys: Keys, running: RunningRequests, clock: Clock) -> None:
        self._keys = keys
        self._running = running
        self._clock = clock

    async def show(self, request: BaseRequest, exchange: Exchange) -> StreamResponse:
        """Progress of a request of the same key; another key's is as unknown as none."""
        grant = await authenticate(self._keys, request, exchange)
        request_id, is_stream = _named(request.rel_url.raw_path)
        if is_stream:
            return await self._stream(request, exchange, grant, request_id)
        now = self._clock.monotonic()
        return json_answer(await self._running.progress(grant.key_id, request_id, now))

    async def _stream(
        self, request: BaseRequest, exchange: Exchange, grant: KeyGrant, request_id: str
    ) -> StreamResponse:
        """News until the request is answered; what became of it tells that answer."""
        stream = EventStream(request, {"X-Request-Id": exchange.request_id})
        async with aclosing(self._running.news(grant.key_id, request_id)) as news:
            async for one in news:
                await stream.send(event_of(one))
        await stream.send(event("over", {}))
        return await stream.end()


def _named(path: str) -> tuple[str, bool]:
    """The request's id, and whether its events are meant. Raises ProblemError 404."""
    name = path.removeprefix(PREFIX)
    request_id = name.removesuffix(_EVENTS)
    if not is_request_id(request_id):
        raise ProblemError(problems.not_found("request under way"))
    return request_id, name != request_id
