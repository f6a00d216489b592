"""`POST /quote`: what a request for images would cost and how long it would take."""

from typing import Any, Protocol

from aiohttp.web import BaseRequest, StreamResponse

from gateway.api.admission import Admission, check_steps
from gateway.api.answers import json_answer
from gateway.api.auth import Keys, authenticate
from gateway.api.body import read_json_body
from gateway.api.bounds import Bounds
from gateway.api.exchange import Exchange, new_request_id
from gateway.api.output import parse_output
from gateway.api.rates import Rates
from gateway.dispatch.foresight import Quote
from gateway.keys import KeyGrant
from network.units import Wei, format_price, pixels_of
from network.wire.messages import TextToImageRequest


class Quoting(Protocol):
    """What `gateway.dispatch.Dispatcher` does for this endpoint."""

    def quote(self, request_id: str, buyer: KeyGrant, request: TextToImageRequest) -> Quote: ...


class Foretelling(Protocol):
    """Knows answers that may be given again (`gateway.repeats.repeating.Repeating`)."""

    def foretell(self, buyer: KeyGrant, request: TextToImageRequest) -> tuple[str, Wei | None]: ...


class Quotes:
    """The endpoint; one per gateway."""

    def __init__(
        self,
        *,
        keys: Keys,
        rates: Rates,
        admission: Admission,
        bounds: Bounds,
        quoting: Quoting,
        max_body_bytes: int,
        body_timeout_seconds: float,
        repeats: Foretelling | None = None,
    ) -> None:
        self._keys = keys
        self._rates = rates
        self._admission = admission
        self._bounds = bounds
        self._quoting = quoting
        self._max_body_bytes = max_body_bytes
        self._body_timeout = body_timeout_seconds
        self._repeats = repeats

    async def create(self, request: BaseRequest, exchange: Exchange) -> StreamResponse:
        """Raises ProblemError where the request itself would be refused.

        A quote counts as a request of its key, but pixels are taken only when they are made.
        """
        grant = await authenticate(self._keys, request, exchange)
        exchange.rate = self._rates.take_request(grant)
        with self._admission.place(grant):
            body = await read_json_body(
                request,
                exchange,
                max_bytes=self._max_body_bytes,
                timeout_seconds=self._body_timeout,
            )
            wanted = self._bounds.parse(body)
            parse_output(body)  # costs nothing, but what would be refused has no quote
            exchange.model_id = wanted.model_id
            pixels = pixels_of(wanted.width, wanted.height, wanted.num_images_per_prompt)
            exchange.pixels = pixels
            check_steps(grant, wanted.num_inference_steps)
            self._rates.check_pixels(grant, pixels)
            told = shown_quote(self._quoting.quote(new_request_id(), grant, wanted))
            if self._repeats is not None:
                told["cache"], fee = self._repeats.foretell(grant, wanted)
                if fee is not None:
                    told |= {"fee_wei": str(fee), "expected_seconds": 0.0}
            return json_answer(told)


def shown_quote(quote: Quote) -> dict[str, Any]:
    """Amounts as text: they outgrow JSON's numbers."""
    return {
        "model_id": quote.model_id,
        "fee_wei": str(quote.fee),
        "price_wei_per_pixel": format_price(quote.price),
        "expected_seconds": round(quote.expected_seconds, 3),
        "orchestrators": quote.orchestrators,
        "warm": quote.warm,
        "waiting": quote.waiting,
    }
