"""Every request of a listener passes here once: routed, answered, counted, logged."""

from asyncio import CancelledError, get_running_loop
from collections.abc import Sequence
from time import perf_counter
from typing import Final, Protocol

import structlog
from aiohttp.web import BaseRequest, StreamResponse

from gateway.api.answers import no_content, problem_answer
from gateway.api.exchange import SERVER_TIMING, Exchange, open_exchange
from gateway.api.router import Router
from gateway.orchestrators.trail import bind
from network.errors import Problem, ProblemError
from network.runtime.trace import TRACEPARENT
from network.wire import problems

_log = structlog.get_logger(__name__)

#: What logs and metrics say of a client that left before its answer (nginx's number for it).
_CLIENT_LEFT: Final = 499
#: Routes whose every request is worth a line; the others tell only of refusals.
IMAGE_ROUTES: Final = frozenset({"text-to-image", "openai-images"})


class Watcher(Protocol):
    """Told of every finished request (`gateway.api.metrics`)."""

    def finished(
        self, exchange: Exchange, status: int, seconds: float, own_seconds: float
    ) -> None: ...


class Frontend:
    """The handler of a low-level aiohttp server.

    No application and no middlewares: each layer costs more than all the rest of this path.
    """

    def __init__(self, router: Router, watchers: Watcher | Sequence[Watcher]) -> None:
        self._router = router
        self._watchers = watchers if isinstance(watchers, Sequence) else (watchers,)
        # Bound once: the lazy logger would do it anew for every line.
        self._log = _log.bind()

    async def __call__(self, request: BaseRequest) -> StreamResponse:
        exchange = open_exchange(request, perf_counter())
        bind(exchange.trail)
        try:
            response = await self._answer(request, exchange)
        except ProblemError as error:
            exchange.code = error.problem.code
            response = self._instead(request, exchange, error.problem)
        except (CancelledError, ConnectionError):
            exchange.code = "client_left"
            self._conclude(request, exchange, _CLIENT_LEFT)
            raise
        except Exception:  # noqa: BLE001 - whatever it is, the client gets an envelope and we a line
            self._log.exception(
                "request_failed", request_id=exchange.request_id, route=exchange.route
            )
            exchange.code = "internal_error"
            response = self._instead(request, exchange, problems.internal())
        if not response.prepared:
            response.headers["X-Request-Id"] = exchange.request_id
            response.headers[TRACEPARENT] = exchange.trail.trace.header
            response.headers[SERVER_TIMING] = exchange.timing()
            for name, value in exchange.rate_headers().items():
                # A refusal tells of the limit that it is about.
                response.headers.setdefault(name, value)
        if response.status in {408, 413}:
            # What is left of the body may be endless; the connection is of no more use.
            response.force_close()
        # Counted and told of when aiohttp has sent it, which it does before the loop does anything else.
        seconds = perf_counter() - exchange.started
        get_running_loop().call_soon(
            self._tell, request.method, exchange, response.status, seconds
        )
        return response

    async def _answer(self, request: BaseRequest, exchange: Exchange) -> StreamResponse:
        route = self._router.find(request.rel_url.raw_path)
        exchange.route = route.name
        if request.method == "OPTIONS":
            return no_content(", ".join(sorted(route.allowed)))
        return await route.handler(request.method)(request, exchange)

    def _instead(
        self, request: BaseRequest, exchange: Exchange, problem: Problem
    ) -> StreamResponse:
        """The answer with what went wrong. Raises ConnectionError where another one has begun."""
        if request.writer.output_size:
            self._conclude(request, exchange, problem.status)
            raise ConnectionResetError("an answer was under way; no other can follow it")
        return problem_answer(problem)

    def _conclude(self, request: BaseRequest, exchange: Exchange, status: int) -> None:
        self._tell(request.method, exchange, status, perf_counter() - exchange.started)

    def _tell(self, method: str, exchange: Exchange, status: int, seconds: float) -> None:
        own = max(0.0, seconds - exchange.foreign_seconds)
        for watcher in self._watchers:
            watcher.finished(exchange, status, seconds, own)
        if exchange.route not in IMAGE_ROUTES and not exchange.code:
            return
        write = self._log.error if status == 500 else self._log.info  # noqa: PLR2004
        write("request", method=method, status=status, **_fields(exchange, seconds, own))


def _fields(exchange: Exchange, seconds: float, own: float) -> dict[str, object]:
    """What the one line of a request says; neither prompt nor key is ever among it."""
    fields: dict[str, object] = {
        "request_id": exchange.request_id,
        "trace_id": exchange.trail.trace.trace_id,
        "route": exchange.route,
        "ms": round(seconds * 1000, 2),
    }
    if exchange.fee is not None or not exchange.model_id:
        # Where nothing was delivered, the orchestrators' share of the time is not known.
        fields["own_ms"] = round(own * 1000, 2)
    if exchange.code:
        fields["code"] = exchange.code
    if exchange.key_id is not None:
        fields["key_id"] = exchange.key_id
    if exchange.model_id:
        fields |= {"model_id": exchange.model_id, "pixels": exchange.pixels}
    if exchange.job_id:
        fields["job_id"] = exchange.job_id
    if exchange.trail.waited:
        fields["wait_ms"] = round(exchange.trail.waited * 1000, 2)
    if exchange.trail.attempts:
        # The node's line has both, and the trace.
        telling = exchange.trail.telling
        fields |= {"attempt_id": telling.attempt_id, "node_job_id": telling.node_job_id}
    if exchange.trail.hedge:
        fields["hedge"] = exchange.trail.hedge
    if exchange.orchestrator:
        fields |= _delivered(exchange)
    return fields


def _delivered(exchange: Exchange) -> dict[str, object]:
    found: dict[str, object] = {
        "orchestrator": exchange.orchestrator,
        "attempts": exchange.attempts,
        "fee_wei": str(exchange.fee),
    }
    if exchange.cache:
        found["cache"] = exchange.cache
    return found
