"""Bearers that the operator's own service knows: asked once, remembered for a while.

Those that were good go on working for a time while the service is away. Nobody waits for one that is known to
be dead, and many who come with one bearer ask once.
"""

import asyncio
import hashlib
from functools import partial
from math import inf
from typing import Final, Protocol, TypeAlias

import structlog

from gateway.access.circuit import Circuit
from gateway.access.memory import Keeping, Known, Memory
from gateway.access.verdict import Allowed, Denied, UnreachableError, UnreadableError
from gateway.keys import KeyGrant
from network.errors import Problem, ProblemError
from network.runtime.clock import Clock
from network.runtime.supervisor import Supervisor
from network.wire import problems

_log = structlog.get_logger(__name__)

#: Questions at a time. Guesses must leave room for those whose bearer was good before.
MOST_AT_ONCE: Final = 64
_MOST_FOR_UNKNOWN: Final = 48
#: Characters of a bearer; JSON Web Tokens are well below.
_LONGEST_BEARER: Final = 8192
_UNAUTHENTICATED: Final = 401
_UNPAID: Final = 402
_FORBIDDEN: Final = 403
_RETRY_AFTER: Final = 1.0
#: Between two lines about one doubt.
_DOUBT_SECONDS: Final = 60.0
_RETRY_UNPAID: Final = 60.0


class Service(Protocol):
    """Whom bearers are shown (`gateway.access.service.AuthService`)."""

    async def ask(self, bearer: str) -> Allowed | Denied:
        """Raises UnreachableError, UnreadableError."""


_Answer: TypeAlias = "Allowed | Denied | _Silence"


class _Silence(str):
    """Why there is no answer."""

    __slots__ = ()


class AuthWebhook:
    """One per gateway."""

    def __init__(
        self, service: Service, keeping: Keeping, clock: Clock, supervisor: Supervisor
    ) -> None:
        self._service = service
        self._clock = clock
        self._supervisor = supervisor
        self._memory = Memory(keeping)
        self._circuit = Circuit()
        #: By the digest of the bearer.
        self._asking: dict[bytes, asyncio.Future[_Answer]] = {}
        #: What was wrong with the last answer, or why there was none; "" for nothing.
        self._silence = _Silence("")
        self._is_away = False
        self._doubted_again_at = 0.0

    async def check(self, bearer: str) -> KeyGrant:
        """What the bearer may do. Raises ProblemError: 401, 402, 403 by the service's word, or 503."""
        if len(bearer) > _LONGEST_BEARER or not (bearer.isascii() and bearer.isprintable()):
            raise ProblemError(problems.unauthenticated())
        digest = hashlib.sha256(bearer.encode()).digest()
        now = self._clock.monotonic()
        known = self._memory.grant(digest, now)
        # Whoever is known waits for nobody who is known to be away.
        if known is not None and (now < known.fresh_until or self._is_away):
            if now >= known.renew_at:
                self._ask(digest, bearer, now, MOST_AT_ONCE)
            return known.grant
        denied = self._memory.refusal(digest, now)
        if denied is not None:
            raise ProblemError(_refusal(denied))
        most = _MOST_FOR_UNKNOWN if known is None else MOST_AT_ONCE
        asking = self._ask(digest, bearer, now, most)
        # Whoever leaves takes nothing from those who wait for the same answer.
        answer = None if asking is None else await asyncio.shield(asking)
        if isinstance(answer, Allowed):
            return answer.grant
        if isinstance(answer, Denied):
            raise ProblemError(_refusal(answer))
        return self._without_an_answer(known, answer)

    def grants(self) -> tuple[KeyGrant, ...]:
        """Of those who were let in and are remembered."""
        return tuple(self._memory.grants())

    def grant_of(self, key_id: str) -> KeyGrant | None:
        return next((one for one in self._memory.grants() if one.key_id == key_id), None)

    def status(self) -> dict[str, object]:
        """For the operator; of no bearer in particular."""
        return {
            "is_away": self._is_away,
            "problem": str(self._silence),
            "known": len(self._memory),
            "asking": len(self._asking),
        }

    def _ask(
        self, digest: bytes, bearer: str, now: float, most: int
    ) -> "asyncio.Future[_Answer] | None":
        """The question under way for this bearer, or a new one; None where none may be asked."""
        asking = self._asking.get(digest)
        if asking is None and len(self._asking) < most and self._circuit.enter(now):
            asking = self._asking[digest] = asyncio.get_running_loop().create_future()
            self._supervisor.start("auth webhook", partial(self._settle, digest, bearer, asking))
        return asking

    async def _settle(self, digest: bytes, bearer: str, asking: "asyncio.Future[_Answer]") -> None:
        """Ask, and give everybody who waits the answer. Raises nothing."""
        answer: _Answer | None = None
        try:
            answer = await self._answer(digest, bearer)
        finally:
            del self._asking[digest]
            if answer is None:
                self._circuit.left()
                asking.cancel()
            else:
                asking.set_result(answer)

    async def _answer(self, digest: bytes, bearer: str) -> _Answer:
        try:
            answer = await self._service.ask(bearer)
        except UnreachableError as error:
            self._circuit.failed(self._clock.monotonic())
            return self._note(str(error), is_away=True)
        except UnreadableError as error:
            # It lives, and may have good answers about others.
            self._circuit.succeeded()
            return self._note(str(error), is_away=False)
        self._circuit.succeeded()
        self._note("", is_away=False)
        now = self._clock.monotonic()
        if isinstance(answer, Denied):
            if answer.is_bare and answer.status == _UNAUTHENTICATED:
                self._doubt_own_secret(now)
            self._memory.deny(digest, answer, now)
            return answer
        left = inf if answer.expiry is None else answer.expiry - self._clock.now()
        if left > 0:
            self._memory.allow(digest, answer.grant, now, left)
        return answer

    def _doubt_own_secret(self, now: float) -> None:
        """A service that does not know the gateway says 401 to everything."""
        if now >= self._doubted_again_at:
            self._doubted_again_at = now + _DOUBT_SECONDS
            _log.warning(
                "auth_webhook_answers_401",
                advice="if good keys are refused, compare auth_webhook.secret with what the service "
                "expects; limner-gateway doctor asks it",
            )

    def _note(self, problem: str, *, is_away: bool) -> _Silence:
        """Log what changed."""
        if problem and problem != self._silence:
            _log.error("auth_webhook_fails", problem=problem, known=len(self._memory))
        elif self._is_away and not is_away:
            _log.info("auth_webhook_answers_again", after=str(self._silence))
        self._silence, self._is_away = _Silence(problem), is_away
        return self._silence

    def _without_an_answer(self, known: Known | None, silence: _Silence | None) -> KeyGrant:
        """The service's last word, where it was a good one. Raises ProblemError 503."""
        if known is not None:
            return known.grant
        now = self._clock.monotonic()
        if silence is None and not self._circuit.is_open:
            message = "The service that knows this key is asked about too many others; try again."
            raise ProblemError(problems.authentication_unavailable(message, _RETRY_AFTER))
        why = silence or self._silence
        message = f"The service that knows this gateway's keys cannot be asked: {why}."
        wait = max(_RETRY_AFTER, self._circuit.wait(now))
        raise ProblemError(problems.authentication_unavailable(message, wait))


def _refusal(denied: Denied) -> Problem:
    if denied.status == _FORBIDDEN:
        return problems.forbidden(denied.reason)
    if denied.status == _UNPAID:
        return problems.budget_exceeded(denied.reason, _RETRY_UNPAID)
    return problems.unauthenticated(denied.reason)
