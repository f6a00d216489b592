"""The requests under way, as their own clients may look them up."""

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from gateway.keys import KeyGrant
from gateway.orchestrators.job_events import News
from network.errors import Problem, ProblemError
from network.wire import problems
from network.wire.messages import TextToImageRequest

#: Seconds for which a progress answer is good enough for the next poll of the same request.
_FRESH_SECONDS = 0.1
#: Streams of one request's news at a time; each costs a connection to its orchestrator.
_MOST_WATCHERS = 2
_LOOK = 0.05


class Progress(Protocol):
    """How far a request is (`gateway.dispatch.RequestProgress`)."""

    @property
    def state(self) -> str: ...
    @property
    def done_steps(self) -> int: ...
    @property
    def total_steps(self) -> int: ...
    @property
    def position(self) -> int: ...


class ProgressSource(Protocol):
    """Tells of requests in flight (`gateway.dispatch.watching.Watching`)."""

    async def progress(self, request_id: str, key_id: str) -> Progress | None: ...

    def watch(self, request_id: str, key_id: str) -> AsyncGenerator[News]: ...


@dataclass(slots=True)
class RunningRequest:
    """One request under way."""

    #: Ours, unique; the client's own id may be used again by another client.
    job_id: str
    key_id: str
    total_steps: int
    watchers: int = 0
    seen: Progress | None = None
    seen_at: float = float("-inf")
    asking: asyncio.Lock = field(default_factory=asyncio.Lock)
    #: Who makes it, for as long as it can be stopped.
    _maker: "asyncio.Task[object] | None" = None
    _is_stopped: bool = False

    def __enter__(self) -> None:
        """In this block, before its images are charged, it can be stopped."""
        self._maker = asyncio.current_task()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Raises ProblemError 409 where it was stopped."""
        maker, self._maker = self._maker, None
        if self._is_stopped and kind is asyncio.CancelledError:
            if maker is not None:
                maker.uncancel()
            raise ProblemError(_stopped()) from None

    def stop(self) -> bool:
        """End it, at no charge; False where it is too late for that."""
        if self._maker is None:
            return False
        # Whoever makes it waits for something now, and that is in the block: it cannot get away.
        self._is_stopped = True
        self._maker.cancel()
        return True


class RunningRequests:
    """Found by owner and the client's request id, so that nobody sees another's requests."""

    def __init__(self, source: ProgressSource, *, patience: float = 2.0) -> None:
        """`patience`: seconds for which events may be asked for before their request arrives."""
        self._source = source
        self._patience = patience
        self._running: dict[tuple[str, str], RunningRequest] = {}

    def __len__(self) -> int:
        return len(self._running)

    @contextmanager
    def track(
        self, grant: KeyGrant, request_id: str, job_id: str, request: TextToImageRequest
    ) -> Iterator[RunningRequest]:
        """List a request while it runs. Raises ProblemError 400 when its id is already running."""
        name = (grant.owner, request_id)
        if name in self._running:
            raise ProblemError(id_in_use("is still under way"))
        steps = request.num_inference_steps * request.num_images_per_prompt
        entry = self._running[name] = RunningRequest(job_id, grant.key_id, steps)
        try:
            yield entry
        finally:
            del self._running[name]

    def find(self, owner: str, request_id: str) -> RunningRequest | None:
        return self._running.get((owner, request_id))

    async def progress(self, owner: str, request_id: str, now: float) -> dict[str, object]:
        """The body of `GET /jobs/{id}`; `now` is monotonic. Raises ProblemError 404.

        Polls of one request share their answers: a client cannot make us poll a node in a storm.
        """
        running = self._running.get((owner, request_id))
        if running is None:
            raise ProblemError(problems.not_found("request under way"))
        async with running.asking:
            if now - running.seen_at >= _FRESH_SECONDS:
                running.seen = await self._source.progress(running.job_id, running.key_id)
                running.seen_at = now
        seen = running.seen
        return {
            "id": request_id,
            "state": "waiting" if seen is None else seen.state,
            "done_steps": 0 if seen is None else seen.done_steps,
            "total_steps": running.total_steps if seen is None else seen.total_steps,
            "position": 0 if seen is None else seen.position,
        }

    async def news(self, owner: str, request_id: str) -> AsyncGenerator[News]:
        """A request's news until it is answered. Raises ProblemError 404, 429."""
        running = await self._arrived((owner, request_id))
        if running is None:
            raise ProblemError(problems.not_found("request under way"))
        if running.watchers >= _MOST_WATCHERS:
            message = f"{_MOST_WATCHERS} streams of this request's events are open already."
            raise ProblemError(problems.rate_limited(1.0, message))
        running.watchers += 1
        try:
            async with aclosing(self._source.watch(running.job_id, running.key_id)) as watching:
                async for news in watching:
                    yield news
        finally:
            running.watchers -= 1

    async def _arrived(self, name: tuple[str, str]) -> RunningRequest | None:
        for _ in range(round(self._patience / _LOOK)):
            if name in self._running:
                break
            await asyncio.sleep(_LOOK)
        return self._running.get(name)


def id_in_use(why: str) -> Problem:
    message = f"A request with this X-Request-Id {why}; choose another id."
    return problems.bad_request(message, "request_id_in_use", "X-Request-Id")


def _stopped() -> Problem:
    return problems.conflict(
        "The request was cancelled by DELETE; nothing was charged.", "cancelled"
    )
