"""From a client's request to delivered images: what every endpoint that makes images shares."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol
from urllib.parse import quote

from aiohttp.web import BaseRequest, StreamResponse

from gateway.api.admission import Admission
from gateway.api.auth import Keys, authenticate
from gateway.api.body import read_json_body
from gateway.api.exchange import REQUEST_ID_PATTERN, Exchange, new_request_id
from gateway.api.rates import Rates
from gateway.api.running import RunningRequests
from gateway.keys import KeyGrant
from gateway.orchestrators.job_events import News
from network.errors import Problem, ProblemError
from network.units import Wei, pixels_of
from network.wire import headers, problems
from network.wire.messages import TextToImageRequest
from network.wire.safety import Safety


class Picture(Protocol):
    """One delivered image (`gateway.orchestrators.client.Picture`)."""

    @property
    def png(self) -> bytes: ...
    @property
    def seed(self) -> int: ...
    @property
    def safety(self) -> Safety: ...


class Delivery(Protocol):
    """What a dispatcher brings back (`gateway.dispatch.DispatchResult`)."""

    @property
    def images(self) -> tuple[Picture, ...]: ...
    @property
    def fee(self) -> Wei: ...
    @property
    def orchestrator(self) -> str: ...
    @property
    def attempts(self) -> int: ...
    @property
    def orchestrator_seconds(self) -> float: ...
    @property
    def settled(self) -> Awaitable[None]: ...
    @property
    def warnings(self) -> str: ...


class Dispatching(Protocol):
    """What `gateway.dispatch.Dispatcher` does for these endpoints."""

    async def run(
        self, request_id: str, buyer: KeyGrant, request: TextToImageRequest
    ) -> Delivery: ...


@dataclass(frozen=True, slots=True)
class Making:
    """A request that holds its place: nothing is made before `delivered` is awaited."""

    request: BaseRequest
    exchange: Exchange
    job_id: str
    wanted: TextToImageRequest
    grant: KeyGrant
    dispatcher: Dispatching
    running: RunningRequests
    reveal_orchestrator: bool

    def news(self) -> AsyncGenerator[News]:
        """What happens to it meanwhile."""
        return self.running.news(self.grant.key_id, self.exchange.request_id)

    async def delivered(self) -> Delivery:
        """Have the images made, and note what they cost. Raises ProblemError."""
        delivery = await self.dispatcher.run(self.job_id, self.grant, self.wanted)
        self.exchange.foreign_seconds += delivery.orchestrator_seconds
        self.exchange.orchestrator = delivery.orchestrator
        self.exchange.fee = delivery.fee
        self.exchange.attempts = delivery.attempts
        return delivery

    def headers(self, delivery: Delivery) -> dict[str, str]:
        """What an answer with these images tells in its head."""
        found = {headers.JOB_ID: self.job_id, headers.FEE: str(delivery.fee)}
        if delivery.warnings:
            found[headers.WARNINGS] = delivery.warnings
        found["X-Gateway-Overhead-Ms"] = f"{self.exchange.own_seconds() * 1000:.3f}"
        if self.reveal_orchestrator:
            found["X-Limner-Orchestrator"] = _shown(delivery.orchestrator)
        return found


@dataclass(frozen=True, slots=True)
class Asked:
    """A body that was understood, and how its client wants the answer."""

    wanted: TextToImageRequest
    answer: Callable[[Making], Awaitable[StreamResponse]]


class Generation:
    """One per gateway."""

    def __init__(
        self,
        *,
        keys: Keys,
        rates: Rates,
        admission: Admission,
        dispatcher: Dispatching,
        running: RunningRequests,
        max_body_bytes: int,
        body_timeout_seconds: float,
        reveal_orchestrator: bool,
    ) -> None:
        self._keys = keys
        self._rates = rates
        self._admission = admission
        self._dispatcher = dispatcher
        self._running = running
        self._max_body_bytes = max_body_bytes
        self._body_timeout = body_timeout_seconds
        self._reveal_orchestrator = reveal_orchestrator

    async def serve(
        self, request: BaseRequest, exchange: Exchange, read: Callable[[bytes], Asked]
    ) -> StreamResponse:
        """Cheap refusals come first: nothing is read for strangers, nothing parsed beyond limits.

        Raises ProblemError, whatever `read` raises among it.
        """
        grant = await authenticate(self._keys, request, exchange)
        exchange.rate = self._rates.take_request(grant)
        with self._admission.place(grant):
            if exchange.bad_request_id:
                raise ProblemError(_bad_request_id())
            body = await read_json_body(
                request,
                exchange,
                max_bytes=self._max_body_bytes,
                timeout_seconds=self._body_timeout,
            )
            asked = read(body)
            wanted = asked.wanted
            exchange.model_id = wanted.model_id
            pixels = pixels_of(wanted.width, wanted.height, wanted.num_images_per_prompt)
            exchange.pixels = pixels
            self._rates.take_pixels(grant, pixels)
            making = Making(
                request,
                exchange,
                new_request_id(),
                wanted,
                grant,
                self._dispatcher,
                self._running,
                self._reveal_orchestrator,
            )
            exchange.job_id = making.job_id
            with self._running.track(grant.key_id, exchange.request_id, making.job_id, wanted):
                return await asked.answer(making)


@lru_cache(maxsize=1024)
def _shown(uri: str) -> str:
    """A configured address as a header may hold it."""
    return quote(uri, safe=":/[]?&=%")


def _bad_request_id() -> Problem:
    message = f"X-Request-Id must match {REQUEST_ID_PATTERN}."
    return problems.bad_request(message, "invalid_request_id", "X-Request-Id")
