"""Bringing a file to the disk without keeping the loop waiting.

A thread that syncs needs Python before and after, which it gets when the loop has nothing more to do: the
disk starts late, and each request pays for two changes of threads. Linux syncs by itself where it is asked
(`io_submit` with IOCB_CMD_FDSYNC, since 4.18) and says through a descriptor when it is done. Wherever it
does not, there is the thread.
"""

import asyncio
import os
import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias

from caio import AbstractOperation, linux_aio
from typing_extensions import override

if TYPE_CHECKING:
    from caio.linux_aio import Context

#: Told in the loop how it ended; None is well.
Done: TypeAlias = Callable[[OSError | None], None]

#: Syncs under way at once: one, and one more while that is told of.
_MOST_AT_ONCE: Final = 2
_PROBE_SECONDS: Final = 10
#: What caio makes of the kernel's errors.
_ERRORS: Final = (ValueError, OverflowError, RuntimeError, SystemError)
_sync: Final = getattr(os, "fdatasync", os.fsync)  # macOS has only the one


class Syncer(Protocol):
    """Syncs one file. Used from the loop that was running when it was made."""

    def begin(self, done: Done) -> None:
        """What was written to the file until now is to outlive a power cut."""

    def close(self) -> None:
        """Nothing is under way any more. Does not block."""


class KernelSyncer(Syncer):
    """The kernel syncs; with a context of `kernel_context`."""

    def __init__(self, descriptor: int, context: "Context") -> None:
        self._descriptor = descriptor
        self._context = context
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(context.fileno, self._take)

    @override
    def begin(self, done: Done) -> None:
        try:
            operation = _submit(
                self._context, self._descriptor, lambda _: done(_error_of(operation))
            )
        except (OSError, *_ERRORS) as error:
            self._loop.call_soon(done, OSError(f"the kernel took no sync: {error}"))

    @override
    def close(self) -> None:
        self._loop.remove_reader(self._context.fileno)

    def _take(self) -> None:
        with suppress(BlockingIOError):
            self._context.poll()
        self._context.process_events()


class ThreadSyncer(Syncer):
    """A thread syncs."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._loop = asyncio.get_running_loop()
        self._asked: queue.SimpleQueue[Done | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="write-ahead-log", daemon=True)
        self._thread.start()

    @override
    def begin(self, done: Done) -> None:
        self._asked.put(done)

    @override
    def close(self) -> None:
        self._asked.put(None)
        self._thread.join()  # it has nothing to do

    def _run(self) -> None:
        while (done := self._asked.get()) is not None:
            error: OSError | None = None
            try:
                _sync(self._descriptor)
            except OSError as failure:
                error = failure
            # The loop may be gone when a program is torn down without closing us.
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(done, error)


async def syncer_for(descriptor: int) -> Syncer:
    """The better one that works here."""
    try:
        context = await asyncio.to_thread(kernel_context, descriptor)
    except OSError:
        return ThreadSyncer(descriptor)
    return KernelSyncer(descriptor, context)


def kernel_context(descriptor: int) -> "Context":
    """Where the kernel is asked; blocks for one sync. Raises OSError where it does not do it."""
    if linux_aio is None:
        raise OSError("this system has no asynchronous files")
    try:
        context = linux_aio.Context(max_requests=_MOST_AT_ONCE)
        probe = _submit(context, descriptor, _ignore)
        context.process_events(min_requests=1, timeout=_PROBE_SECONDS)
    except _ERRORS as error:
        raise OSError(f"this kernel does not sync by itself: {error}") from None
    failure = _error_of(probe)
    if failure is not None:
        raise failure
    return context


def _submit(
    context: "Context", descriptor: int, told: Callable[[int], object]
) -> AbstractOperation:
    operation = linux_aio.Operation.fdsync(descriptor)
    operation.set_callback(told)
    if context.submit(operation) != 1:
        raise OSError("it is busy")
    return operation


def _error_of(operation: AbstractOperation) -> OSError | None:
    try:
        operation.get_value()
    except (OSError, *_ERRORS) as error:
        return OSError(str(error))
    return None


def _ignore(_: int) -> None:
    """Of the probe nobody is told."""
