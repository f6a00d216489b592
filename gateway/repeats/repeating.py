"""A dispatcher that looks first whether the same was asked before, or is being asked now."""

import asyncio
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from typing import Final, TypeAlias

from gateway.accounting.events import Event
from gateway.dispatch import Delivered, Dispatcher, DispatchResult, Keep
from gateway.dispatch.journey import CacheUse
from gateway.repeats.answering import Answer, Answering, Asker, Order
from gateway.repeats.flights import Flight, Flights, Member
from gateway.repeats.model import Scope, charge_of, circle_of, concerns, parameters_of
from gateway.repeats.recollection import Recollection
from gateway.repeats.wish import wished
from network.errors import Problem, ProblemError
from network.runtime.clock import Clock
from network.runtime.supervisor import Supervisor
from network.units import Wei
from network.wire import problems
from network.wire.messages import TextToImageRequest

_DIGEST_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class Rules:
    """The settings."""

    #: Who shares answers. Across keys, the speed of an answer tells that somebody asked the same:
    #: whoever guesses a prompt and its seed learns of it, so it is each key's own by default.
    scope: Scope
    #: Equal requests under way are run once.
    coalesce: bool
    #: Of the fee that was paid for the images, the part that a repeat is charged.
    share: Fraction


@dataclass(slots=True, eq=False)
class Run:
    """The task that has the images made, and what came of it."""

    ended: "asyncio.Future[DispatchResult | BaseException]"
    maker: "asyncio.Task[object] | None" = None
    is_stopped: bool = False

    def stop(self) -> None:
        """Nobody waits for it."""
        self.is_stopped = True
        if self.maker is not None:
            self.maker.cancel()


_Flight: TypeAlias = Flight[Run]


class Repeating:
    """In the place of the dispatcher (`gateway.api.generation.Dispatching`); one per gateway."""

    def __init__(
        self,
        inner: Dispatcher,
        answering: Answering,
        recollection: Recollection | None,
        rules: Rules,
        *,
        secret: bytes,
        supervisor: Supervisor,
        clock: Clock,
    ) -> None:
        """`recollection` None remembers nothing. With `secret`, what is kept of a prompt tells nobody."""
        self._inner = inner
        self._answering = answering
        self._recollection = recollection
        self._rules = rules
        self._secret = secret
        self._supervisor = supervisor
        self._clock = clock
        self.flights: Flights[Run] = Flights()
        #: Wei paid for runs whose leader had left: no request's answer tells of it.
        self._unclaimed = 0

    def foretell(self, buyer: Asker, request: TextToImageRequest) -> tuple[CacheUse, Wei | None]:
        """How a request would be answered now, and what it would be charged if from memory."""
        digest = self._digest(buyer, request)
        if digest is None:
            return "bypassed", None
        found = None if self._recollection is None else self._recollection.find(digest)
        if found is not None:
            return "hit", charge_of(found.fee, self._rules.share)
        is_under_way = self._rules.coalesce and self.flights.find(digest) is not None
        return ("coalesced" if is_under_way else "miss"), None

    def distrust(self, orchestrator: str) -> None:
        """Give nothing again that came from this URI."""
        if self._recollection is not None:
            self._recollection.distrust(orchestrator)

    def figures(self) -> Mapping[str, int]:
        """For the operator: what is remembered and who waits now."""
        remembered = 0 if self._recollection is None else len(self._recollection)
        return {
            "remembered": remembered,
            "runs": len(self.flights),
            "waiting": self.flights.waiting,
            "unclaimed_wei": self._unclaimed,
        }

    async def run(
        self,
        request_id: str,
        buyer: Asker,
        request: TextToImageRequest,
        keep: Keep | None = None,
        *,
        seed: int | None = None,
    ) -> DispatchResult:
        """As `Dispatcher.run`. A request that may not be answered by another's images is run by itself."""
        order = Order(request_id, buyer, request, keep, seed)
        wish = wished()
        digest = self._digest(buyer, request)
        if digest is None or wish.no_store or not self._answering.may_use(order):
            return await self._alone(order, "bypassed")
        if wish.no_cache:
            result = await self._alone(order, "refreshed")
            if self._recollection is not None:
                self._recollection.remember_soon(digest, request_id, result)
            return result
        known = await self._recalled(digest, order)
        if known is not None:
            return known
        if wish.only_if_cached:
            raise ProblemError(problems.not_cached())
        if self._rules.coalesce:
            return await self._together(digest, order)
        result = await self._alone(order, "miss")
        if self._recollection is not None:
            self._recollection.remember_soon(digest, request_id, result)
        return result

    def _digest(self, buyer: Asker, request: TextToImageRequest) -> bytes | None:
        """Equal for those that may share an answer; None where nobody may."""
        parameters = parameters_of(request)
        if parameters is None:
            return None
        team = None if buyer.team is None else buyer.team.name
        circle = circle_of(buyer.owner, team, self._rules.scope)
        # Of the circle's length first, so that no circle and parameters look like others.
        told = len(circle).to_bytes(4, "big") + circle + parameters
        return hashlib.blake2b(told, digest_size=_DIGEST_BYTES, key=self._secret).digest()

    async def _alone(self, order: Order, use: CacheUse) -> DispatchResult:
        keep = None if order.keep is None else partial(_keep_as, use, order.keep)
        result = await self._inner.run(
            order.request_id, order.buyer, order.request, keep, seed=order.seed
        )
        return replace(result, cache=use)

    # Remembered

    async def _recalled(self, digest: bytes, order: Order) -> DispatchResult | None:
        """The answer that was given before; None where there is none for this buyer."""
        recollection = self._recollection
        found = None if recollection is None else recollection.find(digest)
        if recollection is None or found is None:
            return None
        charge = charge_of(found.fee, self._rules.share)
        if not self._answering.may_charge(order, charge):
            return None
        images = await recollection.pictures(digest, found)
        if images is None:
            return None
        answer = Answer(found.request_id, images, found.fee, found.orchestrator, found.warnings)
        return await self._answering.answer(order, answer, "hit", charge, 0.0)

    # Under way

    async def _together(self, digest: bytes, order: Order) -> DispatchResult:
        """Lead a run, or wait for the one under way; and again, where that was in vain."""
        member = Member(order.request_id, order.buyer.key_id)
        began = self._clock.monotonic()
        deadline = began + self._inner.routing.deadline
        has_waited = False
        while True:
            left = deadline - self._clock.monotonic()
            flight = self.flights.find(digest)
            if flight is None:
                # A run sees to its own deadline, but knows nothing of time spent before it.
                return await self._lead(digest, order, member, left if has_waited else None)
            has_waited = True
            self.flights.join(flight, member)
            came = await self._wait(flight, member, left)
            if isinstance(came, DispatchResult):
                return await self._share(flight, order, member, came, began)
            if isinstance(came, ProblemError):
                same_key = member.key_id == flight.leader.key_id
                if concerns(came.problem, same_key=same_key):
                    raise ProblemError(came.problem)

    async def _lead(
        self, digest: bytes, order: Order, member: Member, left: float | None
    ) -> DispatchResult:
        """Have it made, for whoever comes to wait as well. `left`: seconds, None for all there are.

        It is made by a task of its own, which outlives its leader while others wait. But where an
        answer is kept, what makes it outlives its client anyway, and is ended by `DELETE` only.
        """
        run = Run(asyncio.get_running_loop().create_future())
        is_bound = order.keep is not None
        flight = self.flights.begin(digest, member, run, is_bound=is_bound)
        if is_bound:
            try:
                async with asyncio.timeout(left):
                    await self._make(flight, order)
            except TimeoutError:
                raise ProblemError(_out_of_time()) from None
            finally:
                self.flights.leave(flight, member)
            came = run.ended.result()
        else:
            self._supervisor.start("run", partial(self._make, flight, order))
            came = await self._wait(flight, member, left)
        if isinstance(came, BaseException):
            raise came
        return came

    async def _make(self, flight: _Flight, order: Order) -> None:
        """Raises CancelledError only: what else goes wrong is told to those who wait."""
        run = flight.run
        if run.is_stopped:
            return  # before it began: nobody waits any more
        try:
            run.maker = asyncio.current_task()
            result = await self._alone(order, "miss")
        except BaseException as error:
            self.flights.close(flight)
            run.ended.set_result(error)
            if isinstance(error, Exception):
                return
            raise
        flight.land()
        if not flight.is_led:
            self._unclaimed += result.fee
        run.ended.set_result(result)
        if self._recollection is None:
            self.flights.close(flight)
        else:
            # Until it is remembered, who comes finds it here: nothing is made twice in between.
            self._supervisor.start("remember", partial(self._conclude, flight, result))

    async def _conclude(self, flight: _Flight, result: DispatchResult) -> None:
        try:
            if self._recollection is not None:
                request_id = flight.leader.request_id
                await self._recollection.remember(flight.digest, request_id, result)
        finally:
            self.flights.close(flight)

    async def _wait(
        self, flight: _Flight, member: Member, left: float | None
    ) -> DispatchResult | BaseException:
        """What came of it. Who goes away before stops it, if nobody else waits. Raises ProblemError 503."""
        run = flight.run
        try:
            async with asyncio.timeout(left):
                # Shielded: it is others' as well.
                return await asyncio.shield(run.ended)
        except TimeoutError:
            raise ProblemError(_out_of_time()) from None
        finally:
            if self.flights.leave(flight, member) and not run.ended.done():
                run.stop()

    async def _share(
        self,
        flight: _Flight,
        order: Order,
        member: Member,
        result: DispatchResult,
        began: float,
    ) -> DispatchResult:
        charge = flight.charge(member, result.fee, self._rules.share)
        if not self._answering.may_charge(order, charge):
            return await self._alone(order, "bypassed")
        answer = Answer(
            flight.leader.request_id,
            result.images,
            result.fee,
            result.orchestrator,
            result.warnings,
        )
        waited = self._clock.monotonic() - began
        return await self._answering.answer(order, answer, "coalesced", charge, waited)


async def _keep_as(use: CacheUse, keep: Keep, delivered: Delivered) -> Event:
    return await keep(replace(delivered, cache=use))


def _out_of_time() -> Problem:
    return problems.timed_out("No equal request under way was answered within the deadline.")
