"""News of a request that waits for another: they are the news of the one that is run."""

from collections.abc import AsyncGenerator
from typing import Generic, Protocol, TypeVar

from gateway.dispatch import RequestProgress
from gateway.orchestrators.job_events import News
from gateway.repeats.flights import Flights

T = TypeVar("T")


class Source(Protocol):
    """Tells of requests in flight (`gateway.dispatch.watching.Watching`)."""

    async def progress(self, request_id: str, key_id: str) -> RequestProgress | None: ...

    def watch(self, request_id: str, key_id: str) -> AsyncGenerator[News]: ...


class RepeatsWatching(Generic[T]):
    """In the place of the dispatcher's own (`gateway.api.running.ProgressSource`)."""

    def __init__(self, source: Source, flights: Flights[T]) -> None:
        self._source = source
        self._flights = flights

    async def progress(self, request_id: str, key_id: str) -> RequestProgress | None:
        return await self._source.progress(*self._run_of(request_id, key_id))

    def watch(self, request_id: str, key_id: str) -> AsyncGenerator[News]:
        """Of the run that it waits for when this is called."""
        return self._source.watch(*self._run_of(request_id, key_id))

    def _run_of(self, request_id: str, key_id: str) -> tuple[str, str]:
        """Whose images a request of this key will get: those are its own to look at already."""
        flight = self._flights.of(request_id)
        if flight is None or flight.waiting[request_id].key_id != key_id:
            return request_id, key_id
        return flight.leader.request_id, flight.leader.key_id
