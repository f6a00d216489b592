"""Apps of others as what is sold here: the registered runners, each an `App`."""

import secrets
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from typing import Final

import structlog
from aiohttp import web
from typing_extensions import override

from network.chain.model import ChainError
from network.errors import DatabaseError
from network.runtime.clock import Clock
from network.units import Address, JobId, ModelId, Pixels, Wei
from network.wire.headers import FEE, JOB_ID
from node.accounting.journal import InsufficientBalanceError, PaymentRefusedError
from node.accounting.model import Job
from node.apps.calls import AppCalls, NoRoomError, Place, UpstreamError
from node.apps.heartbeat import Asked
from node.apps.model import App, Call, Listing, Offer, Sale
from node.apps.paying import JOURNAL
from node.apps.refusal import Refusal, insufficient_capacity
from node.apps.registry import Registry, Runner
from node.apps.selling import NotSold, Terms, terms
from node.apps.shop import Apps
from node.apps.upstream import Upstream, target_of
from node.jobs.model import RepeatedAttemptError

#: For the app: where it was called, and a name for this call.
ROUTE: Final = "Livepeer-Runner-Route"
SESSION: Final = "Livepeer-Session-Id"

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class RegisteredApps(Apps):
    """The apps of runners whose heartbeats come.

    `usd_per_eth` is None where it is not known. `unpayable` is as at `terms`.
    """

    registry: Registry
    calls: AppCalls
    upstream: Upstream
    clock: Clock
    usd_per_eth: Callable[[], Fraction | None]
    unpayable: Callable[[Wei], str] | None
    #: Whether sessions can be had.
    sessions: bool = False
    #: Refused calls by reason, for the operator.
    refusals: Counter[str] = field(default_factory=Counter)
    _last: dict[str, tuple[Asked, Wei]] = field(default_factory=dict)

    @override
    def all(self) -> Iterator[App]:
        """Return the apps that may be called now, from memory."""
        for runner in self.registry.runners(self.clock.monotonic()):
            app = self._app(runner)
            if app is not None:
                yield app

    @override
    def find(self, route: str) -> "RegisteredApp | None":
        """Return the app at `/apps/{route}`, from memory."""
        runner = self.registry.find(route, self.clock.monotonic())
        return None if runner is None else self._app(runner)

    def _app(self, runner: Runner) -> "RegisteredApp | None":
        sold = self.terms(runner)
        if not runner.told.is_ready or isinstance(sold, NotSold):
            return None
        return RegisteredApp(self, runner, sold)

    def terms(self, runner: Runner) -> Terms | NotSold:
        """Return how a runner's app is sold now; a price moves only when it has to."""
        asked, before = self._last.get(runner.runner_id, (None, None))
        found = terms(
            runner.told,
            self.usd_per_eth(),
            unpayable=self.unpayable,
            sessions=self.sessions,
            before=before if asked == runner.told.asked else None,
        )
        if isinstance(found, Terms) and found.price is not None:
            self._last[runner.runner_id] = (runner.told.asked, found.fee)
        return found

    def forget(self, known: set[str]) -> None:
        """Drop what is remembered of runners that are gone."""
        self.calls.forget_all_but(known)
        for runner_id in self._last.keys() - known:
            del self._last[runner_id]


@dataclass(frozen=True, slots=True)
class RegisteredApp(App):
    """One runner's app, as it was sold when it was asked for."""

    apps: RegisteredApps
    runner: Runner
    terms: Terms

    @property
    def is_reserved(self) -> bool:
        """Whether a place is reserved for many requests, and not called for each."""
        return self.runner.told.mode == "persistent"

    @override
    def listing(self) -> Listing:
        """Return what holds now, from memory."""
        told, route = self.runner.told, self.runner.runner_id
        return Listing(
            app=told.app,
            route=route,
            capacity=told.capacity,
            in_use=self.apps.calls.in_use.get(route, 0),
            price=self.terms.price,
            mode=told.mode,
            version=told.version,
            metadata=told.metadata,
            gpu=told.gpu,
        )

    @override
    def offer(self, call: Call, payer: Address) -> Offer:
        """Price a call: all cost the same. Raises Refusal where it cannot be served."""
        del payer
        if self.is_reserved:
            text = "this app wants a session: POST /apps/{route}/session"
            raise self._refused(Refusal(409, text, "no_session"))
        base = self.runner.told.url
        if target_of(base, call.tail, call.request.rel_url.raw_query_string) is None:
            raise self._refused(Refusal(400, "the path leaves the app", "bad_path"))
        if self.apps.calls.in_use.get(self.runner.runner_id, 0) >= self.runner.told.capacity:
            raise self._refused(no_room())
        return Offer(self.terms.fee, partial(self._fulfil, call))

    async def _fulfil(self, call: Call, sale: Sale) -> web.StreamResponse:
        job = job_of(self.runner, sale.payer, sale.fee, attempt_id=sale.attempt_id)
        try:
            return await self._called(call, sale, job)
        except Refusal as refusal:
            raise self._refused(refusal) from None

    async def _called(self, call: Call, sale: Sale, job: Job) -> web.StreamResponse:
        route = self.runner.runner_id
        target = target_of(self.runner.told.url, call.tail, call.request.rel_url.raw_query_string)
        if target is None:
            raise Refusal(400, "the path leaves the app", "bad_path")
        deliver = partial(
            self.apps.upstream.hand_on,
            call.request,
            call.body,
            target,
            told={ROUTE: route, SESSION: job.job_id},
            # What the caller can ask for a receipt by, and what it will say.
            added={JOB_ID: job.attempt_id, FEE: str(job.fee)},
        )
        try:
            place = Place(route, self.runner.told.capacity)
            return await self.apps.calls.run(job, place, sale.pay, deliver)
        except NoRoomError as error:
            _stop_if_cut(call.request, error)
            raise no_room() from None
        except UpstreamError as error:
            log.warning("an app failed", runner=route, app=job.model_id, reason=error.reason)
            _stop_if_cut(call.request, error)
            raise Refusal(502, str(error), f"app_{error.reason}") from None
        except ChainError as error:
            log.warning("no payment can be looked at", why=str(error))
            raise insufficient_capacity("chain_unavailable") from None
        except PaymentRefusedError as error:
            raise Refusal(400, str(error), "payment") from None
        except InsufficientBalanceError:
            raise Refusal(400, "Insufficient balance", "insufficient_balance") from None
        except RepeatedAttemptError as error:
            raise Refusal(409, str(error), "repeated_job_id") from None
        except DatabaseError:
            log.exception("the journal does not take writes", job_id=job.job_id)
            _stop_if_cut(call.request, None)
            raise Refusal(500, "the job could not be written down", JOURNAL) from None

    def _refused(self, refusal: Refusal) -> Refusal:
        self.apps.refusals[refusal.reason] += 1
        return refusal


def job_of(runner: Runner, payer: Address, fee: Wei, *, attempt_id: str) -> Job:
    """A call as the books see it; `attempt_id` is ours where it is empty."""
    job_id = JobId(secrets.token_hex(16))
    return Job(
        job_id=job_id,
        attempt_id=attempt_id or job_id,
        payer=payer,
        model_id=ModelId(runner.told.app),
        # It is not known whether there are images in an answer.
        width=0,
        height=0,
        images=0,
        steps=0,
        pixels=Pixels(0),
        price=Fraction(fee),
        fee=fee,
    )


def no_room() -> Refusal:
    """As many calls of a runner are under way as it takes."""
    text = "no capacity available for runner"
    return Refusal(503, text, "runner_busy", {"Retry-After": "1"})


def _stop_if_cut(request: web.Request, error: Exception | None) -> None:
    """Raise ConnectionAbortedError where a part of an answer has left: no other can follow it."""
    if isinstance(error, UpstreamError) and not error.is_cut:
        return
    transport = request.transport
    if request.writer.output_size > 0 and transport is not None:
        transport.abort()
    if transport is None or transport.is_closing():
        raise ConnectionAbortedError("the answer was cut off")
