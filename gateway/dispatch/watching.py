"""News of a request under way, whichever orchestrator it is at and however often that changes."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Final, Literal

from gateway.dispatch.journey import Journey, RequestProgress, Running
from gateway.dispatch.leading import Leading
from gateway.orchestrators.client import JobProgress, OrchestratorClient
from gateway.orchestrators.job_events import Advanced, Job, News, NoEvents, Queued, StillThere

#: Seconds between two looks where nobody tells us by himself.
_LOOK: Final = 0.25
_LOOKS_UNTIL_A_SIGN: Final = 60
#: News that wait for whoever watches; the orchestrator waits with what comes after them.
_MOST_UNREAD: Final = 8


class Watching:
    """Asks on behalf of those who watch; a request is not touched by it."""

    def __init__(
        self,
        client: OrchestratorClient,
        journey: Callable[[str], Journey | None],
        position: Callable[[Journey], int],
    ) -> None:
        self._client = client
        self._journey = journey
        self._position = position

    async def progress(self, request_id: str, key_id: str) -> RequestProgress | None:
        """Ask the orchestrator how far the request is; None unless it is in flight for this key.

        Of two that are at it, whoever is ahead is told of.
        """
        journey = self._journey(request_id)
        if journey is None or journey.buyer.key_id != key_id:
            return None
        total = journey.need.steps * journey.expected.images
        if not journey.under_way:
            return RequestProgress("waiting", 0, total, self._position(journey))
        answers = await asyncio.gather(
            *(
                self._client.progress(running.place.offer, running.attempt_id)
                for running in journey.under_way
            )
        )
        told = max((one for one in answers if one is not None), key=_ahead, default=None)
        if told is None:
            return RequestProgress("sent", 0, total, 0)
        state: Literal["waiting", "running"] = "waiting" if told.position > 0 else "running"
        done = min(max(told.done_steps, 0), total)
        return RequestProgress(state, done, total, max(told.position, 0))

    async def watch(self, request_id: str, key_id: str) -> AsyncGenerator[News]:
        """Until the request is over; nothing for another key's."""
        last: News | None = None
        looks = 0
        async with aclosing(_Feeds(self._follow)) as feeds:
            while True:
                journey = self._journey(request_id)
                if journey is None or journey.buyer.key_id != key_id:
                    for news in feeds.unread():
                        yield news
                    return
                feeds.attend(journey)
                if journey.under_way:
                    told = await feeds.next(_LOOK)
                    if told is not None:
                        last = told
                        yield told
                    continue
                queued: News = Queued(self._position(journey))
                looks += 1
                if queued != last:
                    last = queued
                    yield queued
                elif looks % _LOOKS_UNTIL_A_SIGN == 0:
                    yield StillThere()
                await asyncio.sleep(_LOOK)

    async def _follow(self, journey: Journey, running: Running) -> AsyncGenerator[News]:
        """One attempt's news: as told, or asked for where nothing is told."""
        offer, attempt_id = running.place.offer, running.attempt_id
        job = Job(journey.expected.images, journey.need.steps)
        try:
            async with aclosing(self._client.events(offer, attempt_id, job)) as events:
                async for news in events:
                    yield news
        except NoEvents:
            total = journey.need.steps * journey.expected.images
            while any(one is running for one in journey.under_way):
                told = await self._client.progress(offer, attempt_id)
                if told is not None and told.position > 0:
                    yield Queued(told.position)
                elif told is not None:
                    yield Advanced(min(max(told.done_steps, 0), total), total)
                await asyncio.sleep(_LOOK)


class _Feeds:
    """The news of all attempts of one request, of which those of the leading one are passed on."""

    def __init__(self, follow: Callable[[Journey, Running], AsyncGenerator[News]]) -> None:
        self._follow = follow
        self._leading = Leading()
        self._news: asyncio.Queue[tuple[str, News]] = asyncio.Queue(_MOST_UNREAD)
        self._readers: dict[str, asyncio.Task[None]] = {}

    def attend(self, journey: Journey) -> None:
        """Follow those attempts that are under way now, and no others."""
        under_way = {running.attempt_id: running for running in journey.under_way}
        for attempt_id, reader in self._readers.items():
            if reader.done() and not reader.cancelled():
                reader.result()  # raises what should not have happened
            if attempt_id not in under_way:
                _ = reader.cancel()
                self._leading.leave(attempt_id)
        for attempt_id in under_way.keys() - self._readers.keys():
            reading = self._read(journey, under_way[attempt_id])
            # A group's block cannot have `yield` in it; `aclose` waits for them instead.
            self._readers[attempt_id] = asyncio.get_running_loop().create_task(reading)

    async def next(self, seconds: float) -> News | None:
        """News to be shown; None if there are none within so many seconds."""
        try:
            async with asyncio.timeout(seconds):
                attempt_id, news = await self._news.get()
        except TimeoutError:
            return None
        return news if self._leading.tell(attempt_id, news) else None

    def unread(self) -> list[News]:
        """What has come and was not taken."""
        found: list[News] = []
        while not self._news.empty():
            attempt_id, news = self._news.get_nowait()
            if self._leading.tell(attempt_id, news):
                found.append(news)
        return found

    async def aclose(self) -> None:
        """Follow nobody any more."""
        for reader in self._readers.values():
            _ = reader.cancel()
        _ = await asyncio.gather(*self._readers.values(), return_exceptions=True)

    async def _read(self, journey: Journey, running: Running) -> None:
        async with aclosing(self._follow(journey, running)) as following:
            async for news in following:
                await self._news.put((running.attempt_id, news))


def _ahead(told: JobProgress) -> tuple[int, int]:
    """Of two in a queue, whoever has the better place."""
    return told.done_steps, -told.position
