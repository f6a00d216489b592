"""News of a request under way, whichever orchestrator it is at and however often that changes."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Final, Literal

from gateway.dispatch.journey import Journey, RequestProgress, Running
from gateway.orchestrators.client import OrchestratorClient
from gateway.orchestrators.job_events import Advanced, Job, News, NoEvents, Queued, StillThere

#: Seconds between two looks where nobody tells us by himself.
_LOOK: Final = 0.25
_LOOKS_UNTIL_A_SIGN: Final = 60


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
        """Ask the orchestrator how far the request is; None unless it is in flight for this key."""
        journey = self._journey(request_id)
        if journey is None or journey.buyer.key_id != key_id:
            return None
        total = journey.need.steps * journey.expected.images
        running = journey.running
        if running is None:
            return RequestProgress("waiting", 0, total, self._position(journey))
        told = await self._client.progress(running.place.offer, running.attempt_id)
        if told is None:
            return RequestProgress("sent", 0, total, 0)
        state: Literal["waiting", "running"] = "waiting" if told.position > 0 else "running"
        done = min(max(told.done_steps, 0), total)
        return RequestProgress(state, done, total, max(told.position, 0))

    async def watch(self, request_id: str, key_id: str) -> AsyncGenerator[News]:
        """Until the request is over; nothing for another key's."""
        last: News | None = None
        followed = ""
        looks = 0
        while True:
            journey = self._journey(request_id)
            if journey is None or journey.buyer.key_id != key_id:
                return
            running = journey.running
            if running is None:
                news: News = Queued(self._position(journey))
                looks += 1
                if news != last:
                    last = news
                    yield news
                elif looks % _LOOKS_UNTIL_A_SIGN == 0:
                    yield StillThere()
            elif running.attempt_id != followed:
                followed = running.attempt_id
                async with aclosing(self._follow(journey, running)) as following:
                    async for news in following:
                        last = news
                        yield news
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
            while journey.running is running:
                told = await self._client.progress(offer, attempt_id)
                if told is not None and told.position > 0:
                    yield Queued(told.position)
                elif told is not None:
                    yield Advanced(min(max(told.done_steps, 0), total), total)
                await asyncio.sleep(_LOOK)
