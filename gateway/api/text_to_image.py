"""`POST /text-to-image`: the product."""

import re
from collections.abc import Awaitable
from functools import lru_cache
from typing import Final, Protocol
from urllib.parse import quote

import structlog
from aiohttp.web import BaseRequest, StreamResponse
from pybase64 import b64encode

from gateway.api.admission import Admission
from gateway.api.answers import json_answer
from gateway.api.auth import Keys, authenticate
from gateway.api.body import read_json_body
from gateway.api.bounds import Bounds
from gateway.api.exchange import REQUEST_ID_PATTERN, Exchange, new_request_id
from gateway.api.running import ProgressSource, RunningRequests
from gateway.keys import KeyGrant
from gateway.storage.disk import ImageNotStoredError
from network.errors import Problem, ProblemError
from network.units import Wei, pixels_of
from network.wire import headers, problems
from network.wire.messages import TextToImageRequest
from network.wire.safety import Safety

_log = structlog.get_logger(__name__)

_HOST: Final = re.compile(
    r"[A-Za-z0-9._-]{1,255}(:[0-9]{1,5})?|\[[0-9A-Fa-f:.]{2,45}\](:[0-9]{1,5})?"
)


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


class Dispatching(ProgressSource, Protocol):
    """What `gateway.dispatch.Dispatcher` does for this endpoint."""

    async def run(
        self, request_id: str, buyer: KeyGrant, request: TextToImageRequest
    ) -> Delivery: ...


class Images(Protocol):
    """What `gateway.storage` does for this endpoint."""

    async def put(self, request: str, png: bytes) -> str: ...


class TextToImage:
    """The endpoint; one per gateway."""

    def __init__(
        self,
        *,
        keys: Keys,
        admission: Admission,
        bounds: Bounds,
        dispatcher: Dispatching,
        running: RunningRequests,
        images: Images,
        public_url: str,
        body_timeout_seconds: float,
        reveal_orchestrator: bool,
    ) -> None:
        """`public_url` "" builds image addresses from each request's own Host header."""
        self._keys = keys
        self._admission = admission
        self._bounds = bounds
        self._dispatcher = dispatcher
        self._running = running
        self._images = images
        self._public_url = public_url
        self._body_timeout = body_timeout_seconds
        self._reveal_orchestrator = reveal_orchestrator

    async def create(self, request: BaseRequest, exchange: Exchange) -> StreamResponse:
        """Cheap refusals come first: nothing is read for strangers, nothing parsed beyond limits."""
        grant = await authenticate(self._keys, request, exchange)
        with self._admission.place(grant):
            if exchange.bad_request_id:
                raise ProblemError(_bad_request_id())
            body = await read_json_body(
                request,
                exchange,
                max_bytes=self._bounds.limits.max_body_bytes,
                timeout_seconds=self._body_timeout,
            )
            wanted = self._bounds.parse(body)
            exchange.model_id = wanted.model_id
            exchange.pixels = pixels_of(wanted.width, wanted.height, wanted.num_images_per_prompt)
            job_id = new_request_id()
            with self._running.track(grant.key_id, exchange.request_id, job_id, wanted):
                delivery = await self._dispatcher.run(job_id, grant, wanted)
                return await self._deliver(request, exchange, job_id, delivery)

    async def _deliver(
        self, request: BaseRequest, exchange: Exchange, job_id: str, delivery: Delivery
    ) -> StreamResponse:
        exchange.foreign_seconds += delivery.orchestrator_seconds
        exchange.orchestrator = delivery.orchestrator
        exchange.fee = delivery.fee
        exchange.attempts = delivery.attempts
        base = self._public_url or self._own_url(request)
        media = [
            {
                "url": await self._url(base, job_id, image.png),
                "seed": image.seed,
                "nsfw": image.safety.nsfw,
                "safety": image.safety,
            }
            for image in delivery.images
        ]
        await delivery.settled
        response = json_answer({"images": media})
        response.headers[headers.JOB_ID] = job_id
        response.headers[headers.FEE] = str(delivery.fee)
        if delivery.warnings:
            response.headers[headers.WARNINGS] = delivery.warnings
        response.headers["X-Gateway-Overhead-Ms"] = f"{exchange.own_seconds() * 1000:.3f}"
        if self._reveal_orchestrator:
            response.headers["X-Limner-Orchestrator"] = _shown(delivery.orchestrator)
        return response

    async def _url(self, base: str, job_id: str, png: bytes) -> str:
        try:
            return base + await self._images.put(job_id, png)
        except ImageNotStoredError as error:
            # The image is made and paid for: it goes into the answer itself.
            _log.error("image_sent_inline", error=str(error))
            return "data:image/png;base64," + b64encode(png).decode()

    def _own_url(self, request: BaseRequest) -> str:
        host = request.headers.get("Host", "")
        if _HOST.fullmatch(host) is None:  # HTTP/1.0, or a header made to deceive
            address, port, *_ = request.get_extra_info("sockname", ("127.0.0.1", 80))
            host = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
        return f"{request.scheme}://{host}"


@lru_cache(maxsize=1024)
def _shown(uri: str) -> str:
    """A configured address as a header may hold it."""
    return quote(uri, safe=":/[]?&=%")


def _bad_request_id() -> Problem:
    message = f"X-Request-Id must match {REQUEST_ID_PATTERN}."
    return problems.bad_request(message, "invalid_request_id", "X-Request-Id")
