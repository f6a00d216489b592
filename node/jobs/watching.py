"""The watchers of jobs: who they are, and what each is to be told."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Protocol

from network.units import JobId
from node.engine.work import Preview
from node.jobs.model import JobProgress
from node.jobs.news import Advanced, Mailbox, News, Over, Queued


class PreviewSource(Protocol):
    """The part of an engine that shows images while they are made."""

    def watch(
        self, job_id: JobId, on_preview: Callable[[Preview], None]
    ) -> Callable[[], None]: ...


class Watchers:
    """Belongs to one event loop. Jobs are known by their attempt's id."""

    def __init__(self, source: PreviewSource) -> None:
        self._source = source
        self._jobs: dict[str, JobId] = {}
        self._mailboxes: dict[str, list[Mailbox]] = {}
        self._awaited: dict[str, list[asyncio.Future[None]]] = {}

    def begin(self, attempt_id: str, job_id: JobId) -> None:
        """Let a job be watched."""
        self._jobs[attempt_id] = job_id
        for arrival in self._awaited.pop(attempt_id, ()):
            if not arrival.done():
                arrival.set_result(None)

    def tell(self, attempt_id: str, news: News) -> None:
        """Tell a job's watchers, if there are any."""
        for mailbox in self._mailboxes.get(attempt_id, ()):
            mailbox.put(news)

    def end(self, attempt_id: str, over: Over) -> None:
        """Tell a job's watchers how it ended; nobody can begin to watch it any more."""
        self.tell(attempt_id, over)
        del self._jobs[attempt_id]

    def watched(self) -> tuple[str, ...]:
        """Return the attempts that somebody watches."""
        return tuple(self._mailboxes)

    @asynccontextmanager
    async def watch(
        self, attempt_id: str, progress: Callable[[str], JobProgress | None], patience: float
    ) -> AsyncIterator[Mailbox | None]:
        """Watch a job for the length of the block; None when there is none.

        A job that is not there yet is waited for, `patience` seconds: who asks for a job and for
        its news at the same time does not know which request arrives first.
        """
        if attempt_id not in self._jobs:
            await self._arrival(attempt_id, patience)
        job_id = self._jobs.get(attempt_id)
        if job_id is None:
            yield None
            return
        mailbox = Mailbox()
        mailboxes = self._mailboxes.setdefault(attempt_id, [])
        mailboxes.append(mailbox)
        now = progress(attempt_id)
        if now is not None:
            mailbox.put(first_news(now))
        leave = self._source.watch(job_id, mailbox.put)
        try:
            yield mailbox
        finally:
            leave()
            mailboxes.remove(mailbox)
            if not mailboxes:
                del self._mailboxes[attempt_id]

    async def _arrival(self, attempt_id: str, patience: float) -> None:
        arrival: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        awaiting = self._awaited.setdefault(attempt_id, [])
        awaiting.append(arrival)
        try:
            await asyncio.wait([arrival], timeout=patience)
        finally:
            awaiting.remove(arrival)
            if not awaiting and self._awaited.get(attempt_id) is awaiting:
                del self._awaited[attempt_id]


def first_news(progress: JobProgress) -> Queued | Advanced:
    """Tell where a job stands."""
    if progress.state == "waiting":
        return Queued(progress.position)
    return Advanced(progress.done_steps, progress.total_steps)
