"""The promises that are being kept in this process."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Final

import structlog

from gateway.accounting.events import Fulfilment
from gateway.api.generation import Asked
from gateway.api.kept_images import answer_lost
from gateway.api.kept_job import Job, Means
from gateway.api.running import RunningRequest
from gateway.keys import KeyGrant
from gateway.promises.interrupted import Interrupted
from gateway.promises.model import Kept, Promise, refused
from network.errors import ProblemError
from network.wire import problems

_log = structlog.get_logger(__name__)

#: Seconds between two looks for a free place, after a restart.
_LOOK: Final = 0.5

Readers = Mapping[str, Callable[[bytes], Asked]]


class Keeper:
    """One per gateway."""

    def __init__(self, means: Means, interrupted: Interrupted) -> None:
        self._means = means
        self._interrupted = interrupted
        self._by_name: dict[tuple[str, str], Job] = {}
        self._by_key: dict[tuple[str, str], Job] = {}

    def __len__(self) -> int:
        return len(self._by_name)

    def repeated(self, key_id: str, idempotency_key: str | None) -> Job | None:
        """The job under way for a request with this key."""
        if idempotency_key is None:
            return None
        return self._by_key.get((key_id, idempotency_key))

    def begin(
        self,
        promise: Promise,
        grant: KeyGrant,
        asked: Asked,
        entry: RunningRequest,
        held: ExitStack,
        *,
        instead_of: str | None,
    ) -> Job:
        """Write the promise down and keep it; what is `held` is the job's from now on.

        `instead_of` is the id of a promise that an earlier process did not keep.
        """
        left = self._interrupted.take(promise.request_id)
        job = Job(self._means, promise, grant, asked, entry, held, left)
        write_down = partial(self._means.store.add, promise, instead_of=instead_of)
        self._start(job, write_down)
        return job

    def taking_up(self, promise: Promise, before: Promise) -> Promise:
        """A promise in the place of one that an earlier process did not keep.

        It has its seed; and its id, where what that one was cut off from is still open.
        """
        if before.seed is None:
            return promise
        is_open = before.request_id in self._interrupted
        request_id = before.request_id if is_open else promise.request_id
        return replace(promise, request_id=request_id, seed=before.seed)

    async def cancel(self, key_id: str, name: str) -> Fulfilment | None:
        """End a job. Answers how it ended, which may be otherwise; None where there is no such job."""
        job = self._by_name.get((key_id, name))
        if job is None:
            return None
        job.entry.stop()
        return (await asyncio.shield(job.ended)).fulfilment

    async def resume(self, grant_of: Callable[[str], KeyGrant | None], readers: Readers) -> None:
        """Go on with what an earlier process promised and nobody waits for. Raises DatabaseError.

        For the gateway's start, before it takes requests.
        """
        store = self._means.store
        await store.forget_fulfilled_bodies()
        left = await store.unfinished()
        for kept in left:
            try:
                self._resume(kept, grant_of(kept.promise.key_id), readers)
            except ProblemError as error:
                promise, now = kept.promise, self._means.clock.now()
                await self._means.journal.write(refused(promise.request_id, error.problem, now))
                await store.forget_body(promise.promise_id)
        if left:
            _log.info("jobs_resumed", jobs=len(left))

    def _resume(self, kept: Kept, grant: KeyGrant | None, readers: Readers) -> None:
        promise = kept.promise
        if kept.charged is not None:
            raise ProblemError(answer_lost(str(kept.charged)))
        if grant is None:
            message = "The key of this request is not known any more; nothing was charged."
            raise ProblemError(problems.unauthenticated(message))
        asked = readers[promise.endpoint](promise.body or b"")
        held = ExitStack()
        entry = held.enter_context(
            self._means.running.track(grant, promise.name, promise.request_id, asked.wanted)
        )
        left = () if promise.seed is None else self._interrupted.take(promise.request_id)
        job = Job(self._means, promise, grant, asked, entry, held, left)
        self._start(job, partial(self._again, job))

    async def _again(self, job: Job) -> None:
        if not job.left:
            await job.renew()
        while True:
            try:
                job.held.enter_context(self._means.admission.place(job.grant))
            except ProblemError:
                await asyncio.sleep(_LOOK)
            else:
                return

    def _start(self, job: Job, write_down: Callable[[], Awaitable[None]]) -> None:
        promise = job.promise
        name, key = (promise.key_id, promise.name), (promise.key_id, promise.idempotency_key)
        self._by_name[name] = job
        if key[1] is not None:
            self._by_key[key[0], key[1]] = job

        def leave() -> None:
            del self._by_name[name]
            if key[1] is not None:
                del self._by_key[key[0], key[1]]

        self._means.supervisor.start("job", partial(job.run, write_down, leave))
