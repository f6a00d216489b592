"""Where apps of others register, and what the operator sees of them (Livepeer wire, 7.2)."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

import orjson
import structlog
from aiohttp import web

from network.errors import JSON_TYPE, Problem, ProblemError
from network.runtime.clock import Clock
from network.units import format_price
from network.wire import problems
from node.api.bodies import read_body
from node.api.envelope import in_json
from node.api.runner_sessions import SessionService, session_routes
from node.apps.addresses import Reach
from node.apps.heartbeat import MAX_HEARTBEAT_BYTES, Heartbeat, read_heartbeat
from node.apps.refusal import Refusal
from node.apps.registered import RegisteredApps
from node.apps.registry import INTERVAL, LIFETIME, Registered, Registry, Rejection, Runner
from node.apps.selling import NotSold
from node.apps.upstream import refusal_of

#: Heartbeats that are looked at at once; the next have to come again.
_MOST_AT_ONCE: Final = 64
_LOOPBACK: Final = ("127.", "::1")

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class RunnerService:
    """Takes heartbeats. `service_uri` is what runners are told to come back to."""

    registry: Registry
    apps: RegisteredApps
    reach: Reach
    clock: Clock
    service_uri: str
    #: For a whole body, in seconds.
    body_timeout: float
    #: None where sessions cannot be had.
    sessions: SessionService | None = None
    #: Refused heartbeats by reason.
    refusals: Counter[str] = field(default_factory=Counter)
    _under_way: int = 0

    async def post_heartbeat(self, request: web.Request) -> web.Response:
        """Register a runner, or hear that it is still there. Raises ProblemError, Refusal."""
        with self._counted():
            return await self._heartbeat(request)

    async def post_unregister(self, request: web.Request) -> web.Response:
        """Take a runner out; calls under way go on. Raises ProblemError."""
        with self._counted():
            return self._unregister(request)

    @contextmanager
    def _counted(self) -> Iterator[None]:
        if self._under_way >= _MOST_AT_ONCE:
            raise ProblemError(problems.no_capacity(1.0, "Too many heartbeats at once."))
        self._under_way += 1
        try:
            yield
        except ProblemError as error:
            self.refusals[error.problem.code] += 1
            raise
        except Refusal as refusal:
            self.refusals[refusal.reason] += 1
            raise
        finally:
            self._under_way -= 1

    async def _heartbeat(self, request: web.Request) -> web.Response:
        authorization = request.headers.get("Authorization", "")
        # Before a byte of the body is read: strangers cost nothing but a digest.
        if self.registry.caller(authorization, self.clock.monotonic()) is None:
            raise _unauthorized()
        try:
            beat = read_heartbeat(await self._body(request))
        except ValueError as error:
            raise ProblemError(problems.bad_request(str(error), "bad_heartbeat")) from None
        await self._look_at(beat)
        known = self.registry.find(beat.runner_id, self.clock.monotonic())
        result = self.registry.beat(authorization, beat, self.clock.monotonic())
        if isinstance(result, Rejection):
            raise _rejected(result, beat)
        self._tell_of(result, known)
        return self._taken(request, result)

    async def _body(self, request: web.Request) -> bytes:
        body = await read_body(request, max_bytes=MAX_HEARTBEAT_BYTES, seconds=self.body_timeout)
        if len(body) > MAX_HEARTBEAT_BYTES:
            # One that did not say how long it is.
            raise ProblemError(problems.too_large(MAX_HEARTBEAT_BYTES))
        return body

    async def _look_at(self, beat: Heartbeat) -> None:
        """See where a new URL leads; that of a known runner is looked at by each call anyway."""
        known = self.registry.find(beat.runner_id, self.clock.monotonic())
        if known is not None and known.told.url == beat.told.url:
            return
        why = await refusal_of(beat.told.url, self.reach)
        if why is not None:
            raise ProblemError(
                problems.bad_request(f"runner_url: {why}", "runner_url", param="runner_url")
            )

    def _taken(self, request: web.Request, result: Registered) -> web.Response:
        body: dict[str, object] = {
            "runner_id": result.runner.runner_id,
            "orchestrator": _way_back(request, self.service_uri),
            "heartbeat_interval": f"{INTERVAL}s",
            "heartbeat_ttl": f"{LIFETIME}s",
            "session_ids": self._session_ids(result.runner),
        }
        if result.secret is not None:
            body["heartbeat_secret"] = result.secret
        return web.Response(body=orjson.dumps(body), content_type=JSON_TYPE)

    def _session_ids(self, runner: Runner) -> list[str]:
        """Those that are open; the app hears of each with its first request."""
        sessions = self.sessions
        return [] if sessions is None else sessions.reservations.ids_of(runner.runner_id)

    def _unregister(self, request: web.Request) -> web.Response:
        runner_id = request.match_info["runner_id"]
        authorization = request.headers.get("Authorization", "")
        result = self.registry.unregister(authorization, runner_id, self.clock.monotonic())
        if result is Rejection.UNAUTHORIZED:
            raise _unauthorized()
        if result is False:
            raise ProblemError(problems.not_found("runner"))
        log.info("an app left", runner=runner_id)
        return web.Response(status=204)

    def _tell_of(self, result: Registered, known: Runner | None) -> None:
        """Log what changed; most heartbeats change nothing."""
        runner = result.runner
        if known is not None and known.told == runner.told and result.secret is None:
            return
        sold = self.apps.terms(runner)
        told = runner.told
        facts = {"runner": runner.runner_id, "app": told.app, "url": str(told.url)}
        if isinstance(sold, NotSold):
            log.warning("an app registered that is not sold", **facts, why=sold.why)
        else:
            fee = None if sold.price is None else str(sold.price.wei)
            log.info("an app registered", **facts, capacity=told.capacity, wei=fee)

    async def watch(self) -> None:
        """Tell of runners that fell silent. Never ends."""
        known = self._ids()
        while True:
            await asyncio.sleep(INTERVAL)
            now = self._ids()
            for runner_id in known - now:
                log.info("an app is gone", runner=runner_id)
            self.apps.forget(now)
            known = now

    def _ids(self) -> set[str]:
        return {one.runner_id for one in self.registry.runners(self.clock.monotonic())}

    def status(self) -> dict[str, object]:
        """Tell the operator which runners there are, and what was refused. Wei are text."""
        now = self.clock.monotonic()
        return {
            "runners": [self._line(runner, now) for runner in self.registry.runners(now)],
            "refused_heartbeats": dict(self.refusals),
            "refused_calls": dict(self.apps.refusals),
        }

    def _line(self, runner: Runner, now: float) -> dict[str, object]:
        told, sold = runner.told, self.apps.terms(runner)
        why = sold.why if isinstance(sold, NotSold) else ""
        if not why and not told.is_ready:
            why = f'its status is "{told.status}"'
        price = None if isinstance(sold, NotSold) else sold.price
        return {
            "id": runner.runner_id,
            "app": told.app,
            "label": told.label,
            "url": str(told.url),
            "mode": told.mode,
            "status": told.status or "ready",
            "sold": not why,
            "why_not": why,
            "asked": f"{format_price(told.asked.usd)} USD {told.asked.unit}",
            "wei": None if price is None else str(price.wei),
            "capacity": told.capacity,
            "in_use": self.apps.calls.in_use.get(runner.runner_id, 0),
            "calls": dict(self.apps.calls.tally(runner.runner_id)),
            "seconds_since_heartbeat": round(now - runner.seen_at, 1),
            "registered_for_seconds": round(now - runner.since, 1),
        }


def runner_routes(
    service: RunnerService | None, refused: Callable[[str], None]
) -> Callable[[web.Application], None]:
    """Return what adds the routes of runners; none without a service. `refused` counts by reason.

    Before those of apps, which take what is left below /apps.
    """

    def add(application: web.Application) -> None:
        if service is None:
            return
        heartbeat = in_json(refused, service.post_heartbeat)
        application.router.add_post("/runners/heartbeat", heartbeat)
        unregister = in_json(refused, service.post_unregister)
        application.router.add_post("/runners/{runner_id}/unregister", unregister)
        if service.sessions is not None:
            session_routes(service.sessions, refused)(application)

    return add


def _way_back(request: web.Request, service_uri: str) -> str:
    """Where a runner is to send its next heartbeats.

    One on this machine goes on as it came: behind a home router, nobody inside may reach the node by
    its public address.
    """
    host = urlsplit(f"//{request.host}").hostname or ""
    came_directly = (request.remote or "").startswith(_LOOPBACK)
    if came_directly and (host == "localhost" or host.startswith(_LOOPBACK)):
        return f"{request.scheme}://{request.host}"
    return service_uri


def _unauthorized() -> ProblemError:
    return ProblemError(
        Problem(401, "Wrong secret.", "authentication_error", Rejection.UNAUTHORIZED.value)
    )


def _rejected(rejection: Rejection, beat: Heartbeat) -> ProblemError:
    match rejection:
        case Rejection.UNAUTHORIZED:
            return _unauthorized()
        case Rejection.FULL:
            text = "As many apps are registered here as may be (runners.max_runners)."
            return ProblemError(problems.no_capacity(LIFETIME, text))
        case Rejection.TAKEN:
            text = f"{beat.told.app!r}, or the id, is one of the node's own apps; choose another."
            return ProblemError(
                Problem(409, text, "invalid_request_error", rejection.value, param="app")
            )
