"""Tells webhooks how jobs ended: at least once, for as long as a day, restarts included."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final
from weakref import WeakValueDictionary

import aiohttp
import structlog
from yarl import URL

from gateway.promises.model import Kept
from gateway.promises.signing import key_secret, signed_headers
from gateway.promises.store import PromiseStore
from gateway.promises.targets import guarded_socket
from network.errors import ProblemError
from network.runtime.clock import Clock
from network.runtime.supervisor import Supervisor

_log = structlog.get_logger(__name__)

_GONE: Final = 410
#: Posts at a time, and of one key: a receiver that hangs keeps nobody else's waiting.
_AT_ONCE: Final = 32
_AT_ONCE_PER_KEY: Final = 4
#: Webhooks that wait to be told; beyond it a new one is tried once.
_MOST_WAITING: Final = 10_000
_LONGEST_PAUSE: Final = 3600.0
_AGENT: Final = "limner-gateway"

#: What a webhook is told. Raises ProblemError where that cannot be said now.
Body = Callable[[Kept], Awaitable[bytes]]


@dataclass(frozen=True, slots=True)
class Delivering:
    """How webhooks are told. Seconds."""

    timeout: float = 10.0
    #: Before the second try; tripled with each.
    first_pause: float = 5.0
    give_up: float = 86_400.0


def pauses(first: float) -> Iterator[float]:
    """Between tries, in seconds: growing, then even."""
    pause = first
    while True:
        yield min(pause, _LONGEST_PAUSE)
        pause = min(pause * 3, _LONGEST_PAUSE)


class Courier:
    """One per gateway."""

    def __init__(
        self,
        *,
        session: aiohttp.ClientSession,
        store: PromiseStore,
        body: Body,
        master: bytes,
        delivering: Delivering,
        supervisor: Supervisor,
        clock: Clock,
        randomness: random.Random,
    ) -> None:
        self._session = session
        self._store = store
        self._body = body
        self._master = master
        self._delivering = delivering
        self._supervisor = supervisor
        self._clock = clock
        self._randomness = randomness
        self._under_way: set[str] = set()
        self._posts = asyncio.Semaphore(_AT_ONCE)
        self._posts_of: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    async def resume(self) -> None:
        """Go on with what an earlier process did not bring. Raises DatabaseError."""
        for kept in await self._store.untold():
            self.send(kept.promise.promise_id)

    def send(self, promise_id: str) -> None:
        """Tell the webhook of a fulfilled promise, beside the caller."""
        if promise_id not in self._under_way:
            self._under_way.add(promise_id)
            self._supervisor.start("webhook", lambda: self._carry(promise_id))

    async def _carry(self, promise_id: str) -> None:
        """Until it is brought, or there is no hope. Started again after a DatabaseError."""
        for pause in pauses(self._delivering.first_pause):
            kept = await self._store.one(promise_id)
            if kept is None or kept.fulfilment is None or kept.promise.webhook is None:
                break
            if await self._bring(kept, kept.promise.webhook):
                await self._store.forget_webhook(promise_id)
                break
            age = self._clock.now() - kept.fulfilment.finished_at
            if age + pause > self._delivering.give_up or len(self._under_way) > _MOST_WAITING:
                _log.warning("webhook_given_up", promise=promise_id, key_id=kept.promise.key_id)
                await self._store.forget_webhook(promise_id)
                break
            await asyncio.sleep(pause * self._randomness.uniform(0.8, 1.2))
        self._under_way.discard(promise_id)

    async def _bring(self, kept: Kept, url: str) -> bool:
        """Whether there is nothing more to do. Only the host is logged: a URL may hold secrets."""
        key_id = kept.promise.key_id
        try:
            body = await self._body(kept)
        except ProblemError as error:
            # Told now, it would be told for good, and wrongly.
            _log.warning("webhook_waits", promise=kept.promise.promise_id, why=error.problem.code)
            return False
        own = self._posts_of.setdefault(key_id, asyncio.Semaphore(_AT_ONCE_PER_KEY))
        async with own, self._posts:
            outcome = await self._post(kept, url, body)
        host = URL(url).host
        _log.info("webhook", promise=kept.promise.promise_id, key_id=key_id, host=host, **outcome)
        status = outcome.get("status")
        return isinstance(status, int) and (200 <= status < 300 or status == _GONE)  # noqa: PLR2004

    async def _post(self, kept: Kept, url: str, body: bytes) -> dict[str, object]:
        secret = key_secret(self._master, kept.promise.key_id)
        message_id = f"msg_{kept.promise.promise_id}"
        signed = signed_headers(secret, message_id, int(self._clock.now()), body)
        try:
            async with self._session.post(
                url,
                data=body,
                headers={"Content-Type": "application/json", "User-Agent": _AGENT, **signed},
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=self._delivering.timeout),
            ) as response:
                # Its body says nothing that we need, and may be endless.
                response.close()
                return {"status": response.status}
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError) as error:
            return {"error": type(error).__name__}


@asynccontextmanager
async def open_session(*, allow_private: bool) -> AsyncIterator[aiohttp.ClientSession]:
    """A session that connects only to what webhooks may lead to."""
    connector = aiohttp.TCPConnector(
        socket_factory=None if allow_private else guarded_socket,
        limit=_AT_ONCE,
        force_close=True,
    )
    async with aiohttp.ClientSession(
        connector=connector, trust_env=False, cookie_jar=aiohttp.DummyCookieJar()
    ) as session:
        yield session
