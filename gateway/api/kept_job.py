"""One promise on its way: asked for, made, written down, whoever waits for it or leaves."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import Final, Protocol

import msgspec
import structlog

from gateway.accounting.events import Attempt, Fulfilment
from gateway.accounting.interrupted import ends_of
from gateway.accounting.journal import Journal
from gateway.api.admission import Admission
from gateway.api.exchange import Exchange, new_request_id
from gateway.api.frontend import Watcher
from gateway.api.generation import (
    Asked,
    Delivered,
    Delivery,
    Dispatching,
    Recovering,
    delivery_headers,
)
from gateway.api.kept_images import Images, Stored
from gateway.api.running import RunningRequest, RunningRequests
from gateway.keys import KeyGrant
from gateway.orchestrators.trail import bind, branch
from gateway.promises.model import Promise, delivered, is_lasting, refused
from gateway.promises.store import PromiseStore
from network.errors import DatabaseError, Problem, ProblemError
from network.runtime.clock import Clock
from network.runtime.supervisor import Supervisor
from network.units import pixels_of
from network.wire import headers, problems

_log = structlog.get_logger(__name__)

_UNAVAILABLE: Final = 503
#: Seconds between two tries of a job that nobody waits for: doubled with each.
_FIRST_PAUSE: Final = 1.0
_LONGEST_PAUSE: Final = 30.0
#: The routes by which logs and metrics know what is done for promises. Where somebody waits for it, how it
#: ended is counted by the route of that request as well.
JOB_ROUTE: Final = "job"
KEPT_ROUTE: Final = "kept"


class Telling(Protocol):
    """Tells webhooks (`gateway.promises.courier.Courier`)."""

    def send(self, promise_id: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Means:
    """What jobs are done with."""

    dispatcher: Dispatching
    recovering: Recovering
    admission: Admission
    running: RunningRequests
    images: Images
    store: PromiseStore
    journal: Journal
    supervisor: Supervisor
    courier: Telling
    watchers: Sequence[Watcher]
    clock: Clock
    reveal_orchestrator: bool
    #: Seconds for which a job that nobody waits for is tried again while there is no capacity.
    patience: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a promise ended, with the whole answer: more may be in it than is kept."""

    fulfilment: Fulfilment
    body: bytes


@dataclass(slots=True, eq=False)
class Job:
    """Made by the keeper; `run` is awaited once."""

    means: Means
    promise: Promise
    grant: KeyGrant
    asked: Asked
    entry: RunningRequest
    #: Its places, until it ends.
    held: ExitStack
    #: Whether the promise is on disk.
    promised: asyncio.Future[bool] = field(init=False)
    ended: asyncio.Future[Outcome] = field(init=False)
    #: What an earlier process was cut off from, while it is open in the journal.
    left: tuple[Attempt, ...] = ()
    #: The answer, once its images are on disk.
    _answer: Outcome | None = None
    _exchange: Exchange = field(init=False)

    def __post_init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.promised, self.ended = loop.create_future(), loop.create_future()
        wanted = self.asked.wanted
        self._exchange = Exchange(
            perf_counter(),
            self.promise.name,
            trail=branch(),
            job_id=self.promise.request_id,
            route=JOB_ROUTE if self.promise.is_async else KEPT_ROUTE,
            key_id=self.grant.key_id,
            model_id=wanted.model_id,
            pixels=pixels_of(wanted.width, wanted.height, wanted.num_images_per_prompt),
        )

    async def run(
        self, write_down: Callable[[], Awaitable[None]], leave: Callable[[], None]
    ) -> None:
        """From the promise to its end. Raises nothing: what is run twice would be charged twice.

        `write_down` returns when the promise is on disk. `leave` is called before anybody is
        answered, so that whoever asks again at once finds the place free.
        """
        outcome: Outcome | None = None
        bind(self._exchange.trail)
        try:
            outcome = await self._made(write_down)
            await self._conclude(outcome.fulfilment)
        finally:
            leave()
            self.held.close()
            if outcome is None:
                # The gateway stops. What nobody waits for is resumed at its next start.
                self.ended.cancel()
                self.promised.cancel()
            else:
                if not self.promised.done():
                    self.promised.set_result(False)
                self.ended.set_result(outcome)
                self._tell(outcome.fulfilment)

    async def _made(self, write_down: Callable[[], Awaitable[None]]) -> Outcome:
        try:
            with self.entry:
                await write_down()
                self.promised.set_result(True)
                delivery = await self._deliver()
        except ProblemError as error:
            self._give_up_left()
            return self._refused(error.problem)
        except DatabaseError as error:
            # Its words only: what it comes from may quote the row, and a prompt with it.
            _log.error("job_not_written", job_id=self.promise.request_id, error=str(error))
            return self._refused(problems.internal())
        except Exception:  # noqa: BLE001  whatever it is, those who wait get an answer and we a line
            _log.exception("job_failed", job_id=self.promise.request_id)
            return self._refused(problems.internal())
        await delivery.settled
        return self._answer or self._refused(problems.internal())

    async def _deliver(self) -> Delivery:
        """Have it made; where nobody waits, there is time to try again. Raises ProblemError."""
        clock, means = self.means.clock, self.means
        recovered = await self._recovered()
        if recovered is not None:
            return recovered
        give_up = clock.monotonic() + means.patience
        pause = _FIRST_PAUSE
        while True:
            try:
                return await means.dispatcher.run(
                    self.promise.request_id,
                    self.grant,
                    self.asked.wanted,
                    self._keep,
                    seed=self.promise.seed,
                )
            except ProblemError as error:
                if not self.promise.is_async or error.problem.status != _UNAVAILABLE:
                    raise
                if clock.monotonic() + pause > give_up:
                    raise
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
            await self.renew()

    async def _recovered(self) -> Delivery | None:
        """What an earlier process had made of it, where an orchestrator still has that."""
        promise = self.promise
        if not self.left or promise.seed is None:
            return None
        try:
            delivery = await self.means.recovering.recover(
                promise.request_id,
                self.grant,
                self.asked.wanted,
                self._keep,
                self.left,
                seed=promise.seed,
            )
        except ProblemError:
            self.left = ()
            raise
        self.left = ()
        if delivery is None:
            await self.renew()
        return delivery

    def _give_up_left(self) -> None:
        """It ends before anybody was asked what became of it."""
        if self.left:
            ends = ends_of(self.promise.request_id, self.left, self.means.clock.now())
            _ = self.means.journal.record(*ends)
            self.left = ()

    async def renew(self) -> None:
        """Take a new id for the journal, which has closed the one before. Raises DatabaseError."""
        self.promise = replace(self.promise, request_id=new_request_id())
        self.entry.job_id = self._exchange.job_id = self.promise.request_id
        await self.means.store.run_again(self.promise.promise_id, self.promise.request_id)

    async def _keep(self, came: Delivered) -> Fulfilment:
        """The answer, with its images on disk (`gateway.dispatch.Keep`)."""
        promise, asked = self.promise, self.asked
        showing = Stored(self.means.images, promise.base_url, promise.request_id)
        if asked.tell is None:
            raise TypeError("a stream is no answer that could be kept")
        told = await asked.tell(came, showing)
        is_safe = await showing.secure()
        head = delivery_headers(
            promise.request_id, came, reveal_orchestrator=self.means.reveal_orchestrator
        )
        if warnings := "; ".join((*filter(None, [came.warnings]), *asked.warnings)):
            head[headers.WARNINGS] = warnings
        fulfilment, body = delivered(promise.request_id, told, head, self.means.clock.now())
        if not is_safe:
            fulfilment = msgspec.structs.replace(fulfilment, body="")
        exchange = self._exchange
        exchange.fee, exchange.orchestrator = came.fee, came.orchestrator
        exchange.attempts, exchange.foreign_seconds = came.attempts, came.orchestrator_seconds
        exchange.cache = came.cache
        self._answer = Outcome(fulfilment, body)
        return fulfilment

    def _refused(self, problem: Problem) -> Outcome:
        exchange = self._exchange
        exchange.code, exchange.fee = problem.code, None
        told = self.asked.problem(problem)
        fulfilment = refused(self.promise.request_id, told, self.means.clock.now())
        return Outcome(fulfilment, fulfilment.body.encode())

    async def _conclude(self, fulfilment: Fulfilment) -> None:
        """Write down what the settlement did not, and forget what is of no more use."""
        promise, store = self.promise, self.means.store
        try:
            if fulfilment.state != "done":
                if promise.is_async or is_lasting(fulfilment):
                    await self.means.journal.record(fulfilment)
                else:
                    await store.withdraw(promise.promise_id)
            if promise.is_async:
                await store.forget_body(promise.promise_id)
        except DatabaseError as error:
            # The next start finds it as it is.
            _log.error("job_not_concluded", job_id=promise.request_id, error=str(error))

    def _tell(self, fulfilment: Fulfilment) -> None:
        exchange = self._exchange
        seconds = perf_counter() - exchange.started
        own = max(0.0, seconds - exchange.foreign_seconds)
        for watcher in self.means.watchers:
            watcher.finished(exchange, fulfilment.status, seconds, own)
        _log.info(
            "job",
            request_id=exchange.request_id,
            job_id=exchange.job_id,
            trace_id=exchange.trail.trace.trace_id,
            key_id=exchange.key_id,
            status=fulfilment.status,
            state=fulfilment.state,
            code=exchange.code,
            model_id=exchange.model_id,
            pixels=exchange.pixels,
            orchestrator=exchange.orchestrator,
            fee_wei=None if exchange.fee is None else str(exchange.fee),
            ms=round(seconds * 1000, 2),
        )
        if self.promise.webhook is not None:
            self.means.courier.send(self.promise.promise_id)
