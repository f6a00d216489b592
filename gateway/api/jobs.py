"""`/jobs/{request id}`: how far one's own request is, what came of it, and its end by DELETE."""

import asyncio
from contextlib import aclosing
from typing import Any, Final, Protocol

import orjson
from aiohttp.web import BaseRequest, StreamResponse

from gateway.accounting.events import Fulfilment
from gateway.api.answers import json_answer, json_bytes
from gateway.api.auth import Keys, authenticate
from gateway.api.events import EventStream, event, event_of
from gateway.api.exchange import SERVER_TIMING, Exchange, is_request_id
from gateway.api.kept_images import Images, filled
from gateway.api.looks import Looks
from gateway.api.running import RunningRequests
from gateway.promises.model import Kept, headers_of
from network.errors import Problem, ProblemError
from network.runtime.clock import Clock
from network.wire import headers, problems

PREFIX: Final = "/jobs/"
EVENTS: Final = "/jobs/*/events"
#: Seconds until a job is looked at again that waits between two tries.
_LOOK: Final = 0.25
_UNAVAILABLE: Final = 503


class Endings(Protocol):
    """Knows how requests ended whose answers are kept."""

    async def find(self, key_id: str, *, name: str) -> tuple[Kept, ...]: ...

    async def cancel(self, key_id: str, name: str) -> Fulfilment | None: ...

    async def told(self, kept: Kept) -> bytes:
        """Raises ProblemError 503."""


class NoEndings:
    """Where no answers are kept."""

    async def find(self, key_id: str, *, name: str) -> tuple[Kept, ...]:
        del key_id, name
        return ()

    async def cancel(self, key_id: str, name: str) -> Fulfilment | None:
        del key_id, name
        return None

    async def told(self, kept: Kept) -> bytes:
        raise ValueError(kept.promise.promise_id)


class Jobs:
    """The endpoint."""

    def __init__(
        self,
        *,
        keys: Keys,
        running: RunningRequests,
        clock: Clock,
        endings: Endings | None = None,
    ) -> None:
        self._keys = keys
        self._running = running
        self._clock = clock
        self._looks = Looks()
        self._endings: Endings = NoEndings() if endings is None else endings

    async def show(self, request: BaseRequest, exchange: Exchange) -> StreamResponse:
        """Where a request of the same key is; another key's is as unknown as none."""
        grant = await authenticate(self._keys, request, exchange)
        request_id = _named(request)
        if self._running.find(grant.owner, request_id) is None:
            kept = await self._kept(grant.owner, request_id)
            if kept is not None:
                return json_bytes(await self._endings.told(kept))
        now = self._clock.monotonic()
        return json_answer(await self._running.progress(grant.owner, request_id, now))

    async def stream(self, request: BaseRequest, exchange: Exchange) -> StreamResponse:
        """News until the request is answered; what became of it tells that answer."""
        grant = await authenticate(self._keys, request, exchange)
        request_id = _named(request)
        stream = EventStream(
            request,
            {"X-Request-Id": exchange.request_id, SERVER_TIMING: exchange.timing()},
        )
        is_known = self._running.find(grant.owner, request_id) is not None
        is_over = not is_known and await self._kept(grant.owner, request_id) is not None
        if request.method == "HEAD":
            # What would be written after a head would be taken for the next answer.
            if not (is_known or is_over):
                raise ProblemError(problems.not_found("request under way"))
            await stream.begin()
            return await stream.end()
        if not is_over:
            await self._send_news(stream, grant.owner, request_id)
        await stream.send(event("over", {}))
        return await stream.end()

    async def stop(self, request: BaseRequest, exchange: Exchange) -> StreamResponse:
        """End a request under way; nothing is charged. Raises ProblemError 404, 409."""
        grant = await authenticate(self._keys, request, exchange)
        request_id = _named(request)
        entry = self._running.find(grant.owner, request_id)
        if entry is None:
            if await self._kept(grant.owner, request_id) is None:
                raise ProblemError(problems.not_found("request under way"))
            raise ProblemError(_too_late())
        ended = await self._endings.cancel(grant.owner, request_id)
        is_cancelled = entry.stop() if ended is None else ended.state == "cancelled"
        if not is_cancelled:
            raise ProblemError(_too_late())
        return json_answer({"id": request_id, "state": "cancelled"})

    async def _kept(self, owner: str, request_id: str) -> Kept | None:
        """Raises ProblemError 429."""
        self._looks.take(owner, self._clock.monotonic())
        for kept in await self._endings.find(owner, name=request_id):
            # Without an answer: nobody is at it any more, and only a repeat would have it made.
            if kept.fulfilment is not None or kept.promise.is_async:
                return kept
        return None

    async def _send_news(self, stream: EventStream, owner: str, request_id: str) -> None:
        while True:
            try:
                async with aclosing(self._running.news(owner, request_id)) as news:
                    async for one in news:
                        await stream.send(event_of(one))
            except ProblemError:
                # Once it has begun, whoever came between is waited for.
                if not stream.is_open:
                    raise
            # What nobody waits for is tried again after a while: it is not over in between.
            if self._running.find(owner, request_id) is not None:
                await asyncio.sleep(_LOOK)
            if self._running.find(owner, request_id) is None:
                return


async def told(kept: Kept, images: Images) -> bytes:
    """What `GET /jobs/{id}` says of a request whose answer is kept, and what its webhook is told.

    Raises ProblemError 503 while nobody can tell whether its images are there.
    """
    promise, fulfilment = kept.promise, kept.fulfilment
    said: dict[str, Any] = {"id": promise.name}
    if fulfilment is None:
        return orjson.dumps({**said, "state": "waiting"})
    said |= {"state": fulfilment.state, "finished_at": fulfilment.finished_at}
    if fulfilment.state == "done":
        head = headers_of(fulfilment)
        fee = head[headers.FEE]
        said["fee"] = fee
        if headers.WARNINGS in head:
            said["warnings"] = head[headers.WARNINGS]
        try:
            answer = await filled(fulfilment.body.encode(), images, fee)
        except ProblemError as error:
            if error.problem.status == _UNAVAILABLE:
                raise
            return orjson.dumps({**said, "error": _error(error.problem.body())})
        return orjson.dumps({**said, "result": orjson.Fragment(answer)})
    why = _error(fulfilment.body.encode())
    return orjson.dumps({**said, "status": fulfilment.status, "error": why})


def _error(body: bytes) -> object:
    return orjson.loads(body)["error"]


def _named(request: BaseRequest) -> str:
    """The id in the request's path. Raises ProblemError 404."""
    request_id = request.rel_url.raw_path.removeprefix(PREFIX).removesuffix("/events")
    if not is_request_id(request_id):
        raise ProblemError(problems.not_found("request under way"))
    return request_id


def _too_late() -> Problem:
    return problems.conflict("The request has come to its end already.", "already_finished")
