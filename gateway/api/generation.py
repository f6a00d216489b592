"""From a client's request to delivered images: what every endpoint that makes images shares."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Protocol
from urllib.parse import quote

from aiohttp.web import BaseRequest, StreamResponse

from gateway.accounting.events import Attempt, Event
from gateway.api.admission import Admission, check_steps
from gateway.api.auth import Keys, authenticate
from gateway.api.body import read_json_body
from gateway.api.cache_status import CACHE_CONTROL, CACHE_STATUS, STATUSES
from gateway.api.exchange import REQUEST_ID_PATTERN, Exchange, new_request_id
from gateway.api.rates import Rates
from gateway.api.running import RunningRequest, RunningRequests
from gateway.keys import KeyGrant
from gateway.orchestrators.job_events import News
from gateway.storage.names import Kind
from network.errors import Problem, ProblemError
from network.units import Wei, pixels_of
from network.wire import headers, problems
from network.wire.messages import TextToImageRequest
from network.wire.safety import Safety

OVERHEAD: Final = "X-Gateway-Overhead-Ms"


class Picture(Protocol):
    """One delivered image (`gateway.orchestrators.client.Picture`)."""

    @property
    def png(self) -> bytes: ...
    @property
    def seed(self) -> int: ...
    @property
    def safety(self) -> Safety: ...


class Delivered(Protocol):
    """What came (`gateway.dispatch.Delivered`)."""

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
    def warnings(self) -> str: ...
    @property
    def cache(self) -> str: ...


class Delivery(Delivered, Protocol):
    """What a dispatcher brings back (`gateway.dispatch.DispatchResult`)."""

    @property
    def settled(self) -> Awaitable[None]: ...


class Keep(Protocol):
    """Makes the answer that is kept (`gateway.dispatch.Keep`)."""

    async def __call__(self, delivered: Delivered, /) -> Event: ...


class Dispatching(Protocol):
    """What `gateway.dispatch.Dispatcher` does for these endpoints."""

    async def run(
        self,
        request_id: str,
        buyer: KeyGrant,
        request: TextToImageRequest,
        keep: Keep | None = None,
        *,
        seed: int | None = None,
    ) -> Delivery: ...


class Recovering(Protocol):
    """What `gateway.dispatch.Dispatcher` does with attempts of an earlier process."""

    async def recover(
        self,
        request_id: str,
        buyer: KeyGrant,
        request: TextToImageRequest,
        keep: Keep,
        attempts: Sequence[Attempt],
        *,
        seed: int,
    ) -> Delivery | None: ...


class Showing(Protocol):
    """How an answer shows an image."""

    @property
    def job_id(self) -> str:
        """Of the request, as the journal has it."""

    async def url(self, data: bytes, kind: Kind) -> str: ...

    async def inline(self, data: bytes, kind: Kind) -> str:
        """In base64."""


class Keeping(Protocol):
    """Serves requests whose answers are kept (`gateway.api.promising`)."""

    def is_meant(self, request: BaseRequest) -> bool: ...

    async def serve(
        self,
        request: BaseRequest,
        exchange: Exchange,
        grant: KeyGrant,
        read: "Callable[[bytes], Asked]",
    ) -> StreamResponse: ...


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
    entry: RunningRequest
    reveal_orchestrator: bool

    def news(self) -> AsyncGenerator[News]:
        """What happens to it meanwhile."""
        return self.running.news(self.grant.owner, self.exchange.request_id)

    async def delivered(self) -> Delivery:
        """Have the images made, and note what they cost. Raises ProblemError."""
        with self.entry:
            delivery = await self.dispatcher.run(self.job_id, self.grant, self.wanted)
        self.exchange.foreign_seconds += delivery.orchestrator_seconds
        self.exchange.orchestrator = delivery.orchestrator
        self.exchange.fee = delivery.fee
        self.exchange.attempts = delivery.attempts
        self.exchange.cache = delivery.cache
        return delivery

    def headers(self, delivery: Delivery) -> dict[str, str]:
        """What an answer with these images tells in its head."""
        found = delivery_headers(
            self.job_id, delivery, reveal_orchestrator=self.reveal_orchestrator
        )
        found[OVERHEAD] = f"{self.exchange.own_seconds() * 1000:.3f}"
        return found


@dataclass(frozen=True, slots=True)
class Asked:
    """A body that was understood, and how its client wants the answer."""

    wanted: TextToImageRequest
    answer: Callable[[Making], Awaitable[StreamResponse]]
    #: The same answer as JSON, to be kept; None for one that is sent piece by piece.
    tell: Callable[[Delivered, Showing], Awaitable[dict[str, object]]] | None
    #: What went wrong, in the endpoint's own words.
    problem: Callable[[Problem], Problem]
    #: What of the body has no effect.
    warnings: tuple[str, ...] = ()


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
        keeping: Keeping | None = None,
        note_cache_control: Callable[[Sequence[str]], None] | None = None,
    ) -> None:
        """`note_cache_control` is told of every request's `Cache-Control`, where answers are remembered."""
        self._keeping = keeping
        self._note_cache_control = note_cache_control
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
        if self._note_cache_control is not None:
            self._note_cache_control(request.headers.getall(CACHE_CONTROL, ()))
        if self._keeping is not None and self._keeping.is_meant(request):
            return await self._keeping.serve(request, exchange, grant, read)
        with self._admission.place(grant):
            if exchange.bad_request_id:
                raise ProblemError(bad_request_id())
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
            check_steps(grant, wanted.num_inference_steps)
            self._rates.take_pixels(grant, pixels)
            job_id = exchange.job_id = new_request_id()
            with self._running.track(grant, exchange.request_id, job_id, wanted) as entry:
                making = Making(
                    request,
                    exchange,
                    job_id,
                    wanted,
                    grant,
                    self._dispatcher,
                    self._running,
                    entry,
                    self._reveal_orchestrator,
                )
                return await asked.answer(making)


def delivery_headers(
    job_id: str, delivered: Delivered, *, reveal_orchestrator: bool
) -> dict[str, str]:
    """What the head of an answer tells of its images."""
    found = {headers.JOB_ID: job_id, headers.FEE: str(delivered.fee)}
    if delivered.warnings:
        found[headers.WARNINGS] = delivered.warnings
    if delivered.cache:
        found[CACHE_STATUS] = STATUSES[delivered.cache]
    if reveal_orchestrator:
        found["X-Limner-Orchestrator"] = _shown(delivered.orchestrator)
    return found


@lru_cache(maxsize=1024)
def _shown(uri: str) -> str:
    """A configured address as a header may hold it."""
    return quote(uri, safe=":/[]?&=%")


def bad_request_id() -> Problem:
    message = f"X-Request-Id must match {REQUEST_ID_PATTERN}."
    return problems.bad_request(message, "invalid_request_id", "X-Request-Id")
