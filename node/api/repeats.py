"""Attempts that are asked for again: a gateway that was cut off from one gets its answer, at no charge.

What an attempt comes to is made once, whoever waits for it, and its answer is kept for a while.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final

import structlog

from network.runtime.clock import Clock
from network.runtime.supervisor import Supervisor
from node.apps.images import Order
from node.engine.work import ImageResult
from node.jobs.kept import Claim, KeptAnswers

#: Bytes that an answer without any image takes, about.
_LEAST_SIZE: Final = 4096
#: Seconds for which answers that are made may still be on their way out, at a stop.
_LAST_WORDS: Final = 2.0
#: Seconds between two looks for answers whose time is over.
_SWEEP: Final = 5.0

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Made:
    """A delivered job, and what its payer was told of its payment."""

    order: Order
    result: ImageResult
    headers: Mapping[str, str]

    @property
    def size(self) -> int:
        """Bytes that it takes to keep it."""
        words = sum(map(len, (*self.order.work.prompts, *self.order.work.negative_prompts)))
        return _LEAST_SIZE + 4 * words + sum(len(image.png) for image in self.result.images)


@dataclass(slots=True, eq=False)
class _Run:
    """An attempt that is being made, for so many who wait."""

    ended: "asyncio.Future[Made | BaseException]"
    waiting: int = 0
    maker: "asyncio.Task[object] | None" = None
    is_stopped: bool = False


class Repeats:
    """Has attempts made in tasks of their own, so that a repeat may take the place of who left."""

    def __init__(
        self,
        kept: KeptAnswers[Made],
        is_settling: Callable[[str], bool],
        supervisor: Supervisor,
        clock: Clock,
    ) -> None:
        """`is_settling` tells of an attempt whether its end is decided, so that it is too late to stop it."""
        self._kept = kept
        self._is_settling = is_settling
        self._supervisor = supervisor
        self._clock = clock
        self._runs: dict[Claim, _Run] = {}
        self._waiting = 0
        self._nobody_waits = asyncio.Event()
        self._nobody_waits.set()

    async def answer(self, claim: Claim, make: Callable[[], Awaitable[Made]]) -> Made:
        """Return what an equal claim came to before, or comes to now; else what `make` does.

        Raises what making it raised. When nobody waits for it any more, it is cancelled.
        """
        known = self._kept.find(claim, self._clock.monotonic())
        if known is not None:
            log.info("answered_again", attempt_id=claim.attempt_id, was="kept")
            return known
        run = self._runs.get(claim)
        if run is None:
            run = self._begin(claim, make)
        else:
            log.info("answered_again", attempt_id=claim.attempt_id, was="under way")
        came = await self._wait(run, claim)
        if isinstance(came, BaseException):
            raise came
        return came

    async def sweep(self) -> None:
        """Forget in time; the job of a supervisor."""
        while True:
            await asyncio.sleep(_SWEEP)
            self._kept.sweep(self._clock.monotonic())

    async def drain(self) -> None:
        """Return when nobody waits, or after a moment: for a stop, once no job is under way."""
        try:
            async with asyncio.timeout(_LAST_WORDS):
                await self._nobody_waits.wait()
        except TimeoutError:
            log.warning("answers were not fetched", count=self._waiting)

    def _begin(self, claim: Claim, make: Callable[[], Awaitable[Made]]) -> _Run:
        run = self._runs[claim] = _Run(asyncio.get_running_loop().create_future())
        self._supervisor.start("attempt", partial(self._make, claim, run, make))
        return run

    async def _make(self, claim: Claim, run: _Run, make: Callable[[], Awaitable[Made]]) -> None:
        came: Made | BaseException = asyncio.CancelledError()
        try:
            if not run.is_stopped:
                run.maker = asyncio.current_task()
                came = await make()
                self._kept.keep(claim, came, came.size, self._clock.monotonic())
        except Exception as error:  # noqa: BLE001  it is raised where it is waited for
            came = error
        finally:
            if self._runs.get(claim) is run:
                del self._runs[claim]
            run.ended.set_result(came)

    async def _wait(self, run: _Run, claim: Claim) -> Made | BaseException:
        run.waiting += 1
        self._waiting += 1
        self._nobody_waits.clear()
        try:
            return await asyncio.shield(run.ended)
        finally:
            run.waiting -= 1
            self._waiting -= 1
            if not self._waiting:
                self._nobody_waits.set()
            if not run.waiting and not run.ended.done():
                self._leave(run, claim)

    def _leave(self, run: _Run, claim: Claim) -> None:
        """Nobody waits: free the device. What is being charged already is kept for a repeat."""
        if self._is_settling(claim.attempt_id):
            return
        # Who comes now does not wait for what is being given up.
        del self._runs[claim]
        run.is_stopped = True
        if run.maker is not None:
            run.maker.cancel()
