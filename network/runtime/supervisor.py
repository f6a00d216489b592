"""Background work with a name, an owner and an end.

    async with supervise() as supervisor:
        supervisor.start("directory", directory.refresh_forever)
        ...

A job that raises is logged and started again after a growing pause; leaving the block
cancels every job and waits for it. Nobody calls a bare `create_task`.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import structlog

from network.runtime.clock import Clock, SystemClock

Job = Callable[[], Awaitable[object]]

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Backoff:
    """Pause before a restart: doubled with each failure, forgotten after a long run. Seconds."""

    first: float = 0.5
    most: float = 30.0
    forget_after: float = 60.0

    def pause(self, failures: int) -> float:
        """The pause after so many failures in a row, the first being 1."""
        return float(min(self.most, self.first * 2 ** min(failures - 1, 32)))


class Supervisor:
    """Starts jobs in the block of `supervise`."""

    def __init__(self, group: asyncio.TaskGroup, clock: Clock, backoff: Backoff) -> None:
        self._group = group
        self._clock = clock
        self._backoff = backoff
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, name: str, job: Job) -> None:
        """Run `job` until it returns; after an exception, run it again."""
        task = self._group.create_task(self._keep_running(name, job), name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def cancel(self) -> None:
        """Cancel every job; `supervise` waits for them."""
        for task in self._tasks:
            task.cancel()

    async def _keep_running(self, name: str, job: Job) -> None:
        failures = 0
        while True:
            started = self._clock.monotonic()
            try:
                await job()
            except Exception:  # noqa: BLE001  whatever a job raises, the program goes on
                if self._clock.monotonic() - started >= self._backoff.forget_after:
                    failures = 0
                failures += 1
                pause = self._backoff.pause(failures)
                _log.exception("background job failed", job=name, restart_in=pause)
                await asyncio.sleep(pause)
            else:
                return


@asynccontextmanager
async def supervise(
    clock: Clock | None = None, backoff: Backoff | None = None
) -> AsyncIterator[Supervisor]:
    """A block whose background jobs end with it."""
    failure: Exception | None = None
    async with asyncio.TaskGroup() as group:
        supervisor = Supervisor(group, clock or SystemClock(), backoff or Backoff())
        try:
            yield supervisor
        except Exception as error:  # noqa: BLE001  raised below, outside of the group's wrapping
            failure = error
        finally:
            supervisor.cancel()
    if failure is not None:
        raise failure
