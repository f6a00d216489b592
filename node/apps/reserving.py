"""Sessions of apps that keep a place for one caller over many requests (Livepeer wire, 7.2).

A session is one call in the books, from its reservation to its end: its caller, or the app, stops it,
or nobody uses it any more.
"""

import asyncio
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import structlog

from network.errors import LimnerError
from network.runtime.clock import Clock
from network.runtime.supervisor import Supervisor
from node.accounting.model import NOBODY
from node.apps.calls import AppCalls, Delivery, NoRoomError, Place
from node.apps.registered import RegisteredApp, job_of

#: Requests of one session at a time.
_MOST_REQUESTS: Final = 16

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Session:
    """A place in an app. Whoever knows `session_id` uses it; `token` is for the app, which may end it."""

    session_id: str
    token: str
    route: str
    used_at: float
    under_way: int = 0
    #: Requests that were answered whole, and not with an error.
    served: int = 0
    over: asyncio.Event = field(default_factory=asyncio.Event)


class Reservations:
    """Every open session."""

    def __init__(
        self, calls: AppCalls, supervisor: Supervisor, clock: Clock, idle_seconds: float
    ) -> None:
        """A session that nobody uses for `idle_seconds` ends."""
        self._calls = calls
        self._supervisor = supervisor
        self._clock = clock
        self._idle_seconds = idle_seconds
        self._sessions: dict[str, Session] = {}

    async def open(self, app: RegisteredApp) -> Session:
        """Reserve a place. Raises NoRoomError, DatabaseError."""
        session = Session(
            secrets.token_hex(16),
            secrets.token_hex(16),
            app.runner.runner_id,
            self._clock.monotonic(),
        )
        opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._supervisor.start("session", partial(self._live, app, session, opened))
        try:
            await opened
        except asyncio.CancelledError:
            # Nobody will ever know of it.
            session.over.set()
            raise
        return session

    def find(self, route: str, session_id: str) -> Session | None:
        """Return an open session of the app at `route`."""
        session = self._sessions.get(session_id)
        return None if session is None or session.route != route else session

    def ids_of(self, route: str) -> list[str]:
        """Return the open sessions of the app at `route`."""
        return [one.session_id for one in self._sessions.values() if one.route == route]

    @contextmanager
    def used(self, session: Session) -> Iterator[None]:
        """Keep a session for one request. Raises NoRoomError where there are too many at once."""
        if session.under_way >= _MOST_REQUESTS:
            raise NoRoomError("too many requests of this session at once")
        session.under_way += 1
        try:
            yield
        finally:
            session.under_way -= 1
            session.used_at = self._clock.monotonic()

    async def _live(
        self, app: RegisteredApp, session: Session, opened: asyncio.Future[None]
    ) -> None:
        async def deliver() -> Delivery[None]:
            self._sessions[session.session_id] = session
            if not opened.done():
                opened.set_result(None)
            await self._until_over(session)
            return Delivery(None, "" if session.served else "unused")

        job = job_of(app.runner, NOBODY, app.terms.fee, attempt_id=session.session_id)
        place = Place(session.route, app.runner.told.capacity)
        try:
            await self._calls.run(job, place, None, deliver)
        except LimnerError as error:
            if opened.done():
                log.warning("a session ended early", runner=session.route, why=str(error))
            else:
                opened.set_exception(error)
        finally:
            self._sessions.pop(session.session_id, None)

    async def _until_over(self, session: Session) -> None:
        while True:
            left = self._idle_seconds
            if not session.under_way:
                left -= self._clock.monotonic() - session.used_at
            if left <= 0:
                return
            try:
                async with asyncio.timeout(left):
                    await session.over.wait()
            except TimeoutError:
                continue
            return
