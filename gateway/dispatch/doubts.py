"""Payments whose end is not known: the connection was cut, or this process was not there.

Our own nodes tell what became of an attempt when they are asked. Livepeer's do not, and may have forgotten
it: what they had of ours then is given up, as Livepeer's gateways give it up.
"""

import asyncio
import heapq
import itertools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

import structlog

from gateway.accounting.events import Receipt
from gateway.accounting.journal import Journal
from gateway.orchestrators.answers import OrchestratorFailed, Statement
from gateway.orchestrators.receipts import NoReceipt
from gateway.payments.purse import Purse, Settled
from network.runtime.clock import Clock

#: Asks an orchestrator (by URI) about an attempt. Raises OrchestratorFailed.
Ask = Callable[[str, str], Awaitable[Statement | NoReceipt]]

#: Seconds for which a request that was cut off may still be on its way into the node's books.
_GRACE: Final = 10.0
#: Seconds after which nobody is asked any more.
_PATIENCE: Final = 3600.0
_FIRST_PAUSE: Final = 0.25
_LONGEST_PAUSE: Final = 30.0
_AT_ONCE: Final = 32

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Doubt:
    attempt_id: str
    uri: str
    #: Whatever the orchestrator did with the payment, it had done before it answered.
    was_answered: bool
    #: Monotonic seconds.
    since: float
    asked: int = 0


class Doubts:
    """`run` is the job of a supervisor."""

    def __init__(self, purse: Purse, journal: Journal, ask: Ask, clock: Clock) -> None:
        self._purse = purse
        self._journal = journal
        self._ask = ask
        self._clock = clock
        #: When each is to be asked about next, in monotonic seconds; the counter breaks ties.
        self._queue: list[tuple[float, int, _Doubt]] = []
        self._numbers = itertools.count()
        self._open = 0
        #: Told of each that is settled: the URI, and what was said there last.
        self.heard: Callable[[str, Statement | NoReceipt], None] | None = None
        self._news = asyncio.Event()

    def __len__(self) -> int:
        return self._open

    def add(self, attempt_id: str, uri: str, *, was_answered: bool) -> None:
        """Look into an attempt. `was_answered`: a whole answer came, which did not tell."""
        now = self._clock.monotonic()
        self._open += 1
        self._push(now, _Doubt(attempt_id, uri, was_answered, now))

    async def run(self) -> None:
        """Ask until cancelled; what is open then is in the journal, for the next start."""
        while True:
            self._news.clear()
            await self._ask_all_due()
            pause = None
            if self._queue:
                pause = max(self._queue[0][0] - self._clock.monotonic(), 0.0)
            try:
                async with asyncio.timeout(pause):
                    await self._news.wait()
            except TimeoutError:
                continue

    async def _ask_all_due(self) -> None:
        while due := self._due():
            await asyncio.gather(*(self._look(one) for one in due))

    def _due(self) -> list[_Doubt]:
        now = self._clock.monotonic()
        due: list[_Doubt] = []
        while self._queue and self._queue[0][0] <= now and len(due) < _AT_ONCE:
            due.append(heapq.heappop(self._queue)[2])
        return due

    async def _look(self, doubt: _Doubt) -> None:
        try:
            told = await self._ask(doubt.uri, doubt.attempt_id)
        except OrchestratorFailed:
            told = NoReceipt.NOT_YET
        except asyncio.CancelledError:
            self._push(self._clock.monotonic(), doubt)
            raise
        now = self._clock.monotonic()
        settled = self._judge(doubt, told, now - doubt.since)
        if settled is not None:
            self._open -= 1
            if self.heard is not None:
                self.heard(doubt.uri, told)
            _ = self._journal.record(receipt_of(settled, self._clock.now()))
        elif self._purse.is_open(doubt.attempt_id):
            pause = min(_FIRST_PAUSE * 2.0 ** min(doubt.asked, 16), _LONGEST_PAUSE)
            doubt.asked += 1
            self._push(now + pause, doubt)
        else:
            self._open -= 1

    def _judge(self, doubt: _Doubt, told: Statement | NoReceipt, age: float) -> Settled | None:
        """None where it is too early to tell."""
        attempt_id = doubt.attempt_id
        if isinstance(told, Statement):
            return self._purse.settle_told(attempt_id, told.credited, told.charged, "receipt")
        if told is NoReceipt.NEVER_SEEN and (doubt.was_answered or age >= _GRACE):
            return self._purse.settle_ignored(attempt_id)
        if told is NoReceipt.NOT_KEPT or age >= _PATIENCE:
            _log.warning("payment_lost", attempt_id=attempt_id, uri=doubt.uri, told=told.value)
            return self._purse.settle_lost(attempt_id)
        return None

    def _push(self, at: float, doubt: _Doubt) -> None:
        heapq.heappush(self._queue, (at, next(self._numbers), doubt))
        self._news.set()


def receipt_of(settled: Settled, now: float) -> Receipt:
    """As the journal has it; `now` in unix seconds."""
    return Receipt(
        attempt_id=settled.attempt_id,
        credited=settled.credited,
        charged=settled.charged,
        forfeited=settled.forfeited,
        source=settled.source,
        told_at=now,
    )
