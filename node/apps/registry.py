"""Who may be called: apps of others, kept as long as their heartbeats come. Pure.

A runner comes with the operator's registration secret, gets one of its own, and beats with that. It
leaves by saying so or by falling silent. A runner that we do not know any more is refused, and
registers again under the id that it had, so that its URL outlives a restart of either side.
"""

import hmac
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum
from hashlib import sha256
from typing import Final

from node.apps.heartbeat import Heartbeat, Told

#: How often a runner is asked to beat, and how long it is believed without; in seconds.
INTERVAL: Final = 5
LIFETIME: Final = 20

_LONGEST_NAME: Final = 40


class Operator(Enum):
    """Whoever knows the registration secret."""

    OPERATOR = "operator"


@dataclass(frozen=True, slots=True)
class Runner:
    """A registered app of somebody else. Times are those of a monotonic clock."""

    #: Its place as well: `/apps/{runner_id}/app`.
    runner_id: str
    told: Told
    since: float
    seen_at: float


@dataclass(frozen=True, slots=True)
class Registered:
    """A heartbeat was taken. `secret` is for the next ones; None where it stays as it was."""

    runner: Runner
    secret: str | None


class Rejection(Enum):
    """Why a heartbeat was not taken."""

    UNAUTHORIZED = "wrong_secret"
    FULL = "too_many_runners"
    TAKEN = "name_taken"


class Registry:
    """The runners of one node."""

    def __init__(
        self,
        secret: str,
        *,
        most: int,
        is_taken: Callable[[str, str], bool],
        draw: Callable[[int], str],
        lifetime: float = LIFETIME,
    ) -> None:
        """`is_taken` tells whether an app's name, or a route, is one of our own apps'.

        `draw` returns so many random bytes in hex.
        """
        self._operator = _digest(secret)
        self._most = most
        self._is_taken = is_taken
        self._draw = draw
        self._lifetime = lifetime
        self._runners: dict[str, Runner] = {}
        #: whose secret has this digest; and the other way round
        self._owners: dict[bytes, str] = {}
        self._digests: dict[str, bytes] = {}

    def runners(self, now: float) -> tuple[Runner, ...]:
        """Return those whose heartbeats come, in the order in which they registered."""
        self._expire(now)
        return tuple(self._runners.values())

    def find(self, runner_id: str, now: float) -> Runner | None:
        """Return a runner whose heartbeats come."""
        self._expire(now)
        return self._runners.get(runner_id)

    def caller(self, authorization: str, now: float) -> str | Operator | None:
        """Tell whose secret this is: a runner's, whose id is returned, the operator's, nobody's."""
        self._expire(now)
        digest = _digest(authorization)
        if hmac.compare_digest(digest, self._operator):
            return Operator.OPERATOR
        # Looked up by its digest, which tells nobody how near a guess was.
        owner = self._owners.get(digest)
        if owner is None or not hmac.compare_digest(digest, self._digests[owner]):
            return None
        return owner

    def beat(self, authorization: str, beat: Heartbeat, now: float) -> Registered | Rejection:
        """Take a heartbeat: a runner's own, or the operator's word for a new or lost one."""
        caller = self.caller(authorization, now)
        if caller is None:
            return Rejection.UNAUTHORIZED
        if caller is Operator.OPERATOR:
            return self._register(beat, now)
        if beat.runner_id not in {"", caller}:
            return Rejection.UNAUTHORIZED
        if self._is_taken(beat.told.app, caller):
            return Rejection.TAKEN
        known = self._runners[caller]
        runner = self._runners[caller] = replace(known, told=beat.told, seen_at=now)
        return Registered(runner, None)

    def unregister(self, authorization: str, runner_id: str, now: float) -> bool | Rejection:
        """Take a runner out; False if there is none. It or the operator may do so."""
        caller = self.caller(authorization, now)
        if caller is None or caller not in {Operator.OPERATOR, runner_id}:
            return Rejection.UNAUTHORIZED
        return self._remove(runner_id)

    def _register(self, beat: Heartbeat, now: float) -> Registered | Rejection:
        runner_id = beat.runner_id or self._new_id(beat.told.app)
        if self._is_taken(beat.told.app, runner_id):
            return Rejection.TAKEN
        known = self._runners.get(runner_id)
        if known is None and len(self._runners) >= self._most:
            return Rejection.FULL
        secret = self._draw(32)
        # The secret of a process that is gone must not speak for its successor.
        self._owners.pop(self._digests.get(runner_id, b""), None)
        digest = self._digests[runner_id] = _digest(secret)
        self._owners[digest] = runner_id
        since = now if known is None else known.since
        runner = self._runners[runner_id] = Runner(runner_id, beat.told, since, now)
        return Registered(runner, secret)

    def _new_id(self, app: str) -> str:
        """A readable place that nobody has."""
        name = re.sub("[^a-z0-9]+", "-", app.lower()).strip("-")[:_LONGEST_NAME] or "app"
        while True:
            found = f"{name}-{self._draw(4)}"
            if found not in self._runners:
                return found

    def _expire(self, now: float) -> None:
        for runner in tuple(self._runners.values()):
            if now - runner.seen_at > self._lifetime:
                self._remove(runner.runner_id)

    def _remove(self, runner_id: str) -> bool:
        if self._runners.pop(runner_id, None) is None:
            return False
        del self._owners[self._digests.pop(runner_id)]
        return True


def _digest(secret: str) -> bytes:
    return sha256(secret.encode(errors="surrogateescape")).digest()
