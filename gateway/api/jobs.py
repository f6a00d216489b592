"""`GET /jobs/{request id}`: how far one's own request is."""

from aiohttp.web import BaseRequest, StreamResponse

from gateway.api.answers import json_answer
from gateway.api.auth import Keys, authenticate
from gateway.api.exchange import Exchange, is_request_id
from gateway.api.running import RunningRequests
from network.errors import ProblemError
from network.runtime.clock import Clock
from network.wire import problems

PREFIX = "/jobs/"


class Jobs:
    """The endpoint."""

    def __init__(self, *, keys: Keys, running: RunningRequests, clock: Clock) -> None:
        self._keys = keys
        self._running = running
        self._clock = clock

    async def show(self, request: BaseRequest, exchange: Exchange) -> StreamResponse:
        """Progress of a request of the same key; another key's is as unknown as none."""
        grant = await authenticate(self._keys, request, exchange)
        request_id = request.rel_url.raw_path.removeprefix(PREFIX)
        if not is_request_id(request_id):
            raise ProblemError(problems.not_found("request under way"))
        now = self._clock.monotonic()
        return json_answer(await self._running.progress(grant.key_id, request_id, now))
