"""POST /apps/{route}/session: a place in an app for many requests (Livepeer wire, 7.2)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import orjson
import structlog
from aiohttp import web

from network.errors import JSON_TYPE, DatabaseError, ProblemError
from network.wire import problems
from network.wire.headers import JOB_ID
from node.api.bodies import read_body
from node.api.envelope import in_json
from node.apps.calls import NoRoomError, UpstreamError
from node.apps.paying import JOURNAL
from node.apps.refusal import Refusal
from node.apps.registered import ROUTE, SESSION, RegisteredApp, RegisteredApps, no_room
from node.apps.reserving import Reservations, Session
from node.apps.upstream import target_of

#: For the app: what it may end the session with, and where.
TOKEN: Final = "Livepeer-Session-Token"  # noqa: S105  a header's name
CONTROL: Final = "Livepeer-Session-Control"
_SMALLEST_BODY: Final = 4096

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class SessionService:
    """Opens, serves and ends sessions, where anybody may have them free."""

    apps: RegisteredApps
    reservations: Reservations
    service_uri: str
    max_body_bytes: int
    body_timeout: float

    async def reserve(self, request: web.Request) -> web.Response:
        """Open a session. Raises Refusal, ProblemError."""
        app = self._app(request)
        # What a client has to say to the app goes to `app_url`.
        await read_body(request, max_bytes=_SMALLEST_BODY, seconds=self.body_timeout)
        try:
            session = await self.reservations.open(app)
        except NoRoomError:
            raise no_room() from None
        except DatabaseError:
            log.exception("the journal does not take writes")
            raise Refusal(500, "the session could not be written down", JOURNAL) from None
        place = self._place(session)
        told = {
            "session_id": session.session_id,
            "app_url": f"{place}/app",
            "control_url": f"{place}/control",
        }
        return web.Response(body=orjson.dumps(told), content_type=JSON_TYPE)

    async def call(self, request: web.Request) -> web.StreamResponse:
        """Hand a request of a session on. Raises Refusal, ProblemError."""
        app, session = self._app(request), self._session(request)
        limit = self.max_body_bytes
        body = await read_body(request, max_bytes=limit, seconds=self.body_timeout)
        query = request.rel_url.raw_query_string
        target = target_of(app.runner.told.url, request.match_info["tail"], query)
        if target is None:
            raise Refusal(400, "the path leaves the app", "bad_path")
        told = {
            ROUTE: session.route,
            SESSION: session.session_id,
            TOKEN: session.token,
            CONTROL: f"{self._place(session)}/control",
        }
        try:
            with self.reservations.used(session):
                delivery = await self.apps.upstream.hand_on(
                    request, body, target, told=told, added={JOB_ID: session.session_id}
                )
                session.served += not delivery.fault
        except NoRoomError:
            raise no_room() from None
        except UpstreamError as error:
            if error.is_cut:
                raise ConnectionAbortedError("the answer was cut off") from None
            raise Refusal(502, str(error), f"app_{error.reason}") from None
        return delivery.answer

    async def stop(self, request: web.Request) -> web.Response:
        """End a session: what is under way goes on. Raises ProblemError."""
        self._session(request).over.set()
        return web.Response(status=204)

    def _app(self, request: web.Request) -> RegisteredApp:
        app = self.apps.find(request.match_info["route"])
        if app is None or not app.is_reserved:
            raise ProblemError(problems.not_found("app with sessions"))
        return app

    def _session(self, request: web.Request) -> Session:
        route, session_id = request.match_info["route"], request.match_info["session"]
        session = self.reservations.find(route, session_id)
        if session is None:
            raise ProblemError(problems.not_found("session"))
        return session

    def _place(self, session: Session) -> str:
        uri = self.service_uri.rstrip("/")
        return f"{uri}/apps/{session.route}/session/{session.session_id}"


def session_routes(
    service: SessionService, refused: Callable[[str], None]
) -> Callable[[web.Application], None]:
    """Return what adds the routes of sessions. `refused` counts refusals by reason."""

    def add(application: web.Application) -> None:
        router, place = application.router, "/apps/{route}/session"
        router.add_post(place, in_json(refused, service.reserve))
        one = f"{place}/{{session}}"
        router.add_route("*", f"{one}/app{{tail:(/.*)?}}", in_json(refused, service.call))
        router.add_post(f"{one}/control/stop", in_json(refused, service.stop))

    return add
