"""OpenAI's interface: `POST /v1/images/generations` and `GET /v1/models`."""

from collections.abc import Callable, Collection
from typing import Any, Final
from urllib.parse import unquote

import orjson
from aiohttp.web import BaseRequest, Response, StreamResponse
from pybase64 import b64encode_as_string

from gateway.api.addresses import Addresses
from gateway.api.answers import SERVER, json_answer
from gateway.api.auth import Keys, authenticate
from gateway.api.bounds import Bounds
from gateway.api.exchange import Exchange
from gateway.api.generation import Asked, Delivery, Generation, Making, Picture
from gateway.api.openai_body import IMAGE_EVENT, OpenAiRequest, parse_openai, renamed
from gateway.keys import KeyGrant
from network.errors import ProblemError
from network.runtime.clock import Clock
from network.units import ModelId
from network.wire import headers, problems

MODELS_PREFIX: Final = "/v1/models/"
_OWNER: Final = "livepeer"


class OpenAiImages:
    """`POST /v1/images/generations`."""

    def __init__(
        self, generation: Generation, bounds: Bounds, addresses: Addresses, clock: Clock
    ) -> None:
        self._generation = generation
        self._bounds = bounds
        self._addresses = addresses
        self._clock = clock

    async def create(self, request: BaseRequest, exchange: Exchange) -> StreamResponse:
        """Raises ProblemError in the names of OpenAI's fields."""
        try:
            return await self._generation.serve(request, exchange, self._read)
        except ProblemError as error:
            raise ProblemError(renamed(error.problem)) from None

    def _read(self, body: bytes) -> Asked:
        asked = parse_openai(body, self._bounds)

        async def answer(making: Making) -> StreamResponse:
            return await self._answer(making, asked)

        return Asked(asked.wanted, answer)

    async def _answer(self, making: Making, asked: OpenAiRequest) -> StreamResponse:
        delivery = await making.delivered()
        data = [await self._datum(making, asked, image) for image in delivery.images]
        await delivery.settled
        about = {
            "output_format": "png",
            "size": f"{asked.wanted.width}x{asked.wanted.height}",
        }
        now = int(self._clock.now())
        if asked.stream:
            events = [{"created_at": now, **about, **datum} for datum in data]
            response = _stream(events)
        else:
            response = json_answer({"created": now, "data": data, **about})
        response.headers.update(making.headers(delivery))
        if warnings := _warnings(delivery, asked):
            response.headers[headers.WARNINGS] = warnings
        return response

    async def _datum(
        self, making: Making, asked: OpenAiRequest, image: Picture
    ) -> dict[str, object]:
        # Ours beside OpenAI's: what it takes to draw the same image again, and what was seen in it.
        told: dict[str, object] = {"seed": image.seed, "nsfw": image.safety.nsfw}
        if asked.inline or asked.stream:
            return {"b64_json": b64encode_as_string(image.png), **told}
        return {"url": await self._addresses.of(making.request, making.job_id, image.png), **told}


def _stream(events: Collection[dict[str, object]]) -> Response:
    """One event for each image; a client reads as many partial images as there are: none."""
    body = b"".join(
        b"event: %b\ndata: %b\n\n"
        % (IMAGE_EVENT.encode(), orjson.dumps({"type": IMAGE_EVENT, **event}))
        for event in events
    )
    headers = {"Content-Type": "text/event-stream", "Cache-Control": "no-store", "Server": SERVER}
    return Response(body=body, headers=headers)


def _warnings(delivery: Delivery, asked: OpenAiRequest) -> str:
    return "; ".join((*filter(None, [delivery.warnings]), *asked.warnings))


class Models:
    """`GET /v1/models`, and one of them: what the key may ask for and somebody offers."""

    def __init__(self, keys: Keys, known: Callable[[], Collection[ModelId]], since: int) -> None:
        """`since` is told as each model's creation, in Unix seconds: clients require a number."""
        self._keys = keys
        self._known = known
        self._since = since

    async def index(self, request: BaseRequest, exchange: Exchange) -> StreamResponse:
        grant = await authenticate(self._keys, request, exchange)
        listed = [self._describe(model_id) for model_id in self._offered(grant)]
        return json_answer({"object": "list", "data": listed})

    async def show(self, request: BaseRequest, exchange: Exchange) -> StreamResponse:
        """Raises ProblemError 404."""
        grant = await authenticate(self._keys, request, exchange)
        # Ids have slashes, which clients write as such or as %2F.
        model_id = ModelId(unquote(request.rel_url.raw_path.removeprefix(MODELS_PREFIX)))
        offered = self._offered(grant)
        if model_id not in offered:
            raise ProblemError(renamed(problems.model_not_found(model_id, offered)))
        return json_answer(self._describe(model_id))

    def _offered(self, grant: KeyGrant) -> list[ModelId]:
        return [one for one in self._known() if grant.models is None or one in grant.models]

    def _describe(self, model_id: ModelId) -> dict[str, Any]:
        return {"id": model_id, "object": "model", "created": self._since, "owned_by": _OWNER}
