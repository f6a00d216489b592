"""`POST /text-to-image`: the product."""

from aiohttp.web import BaseRequest, StreamResponse

from gateway.api.addresses import Addresses
from gateway.api.answers import json_answer
from gateway.api.bounds import Bounds
from gateway.api.exchange import Exchange
from gateway.api.generation import Asked, Generation, Making


class TextToImage:
    """The endpoint; one per gateway."""

    def __init__(self, generation: Generation, bounds: Bounds, addresses: Addresses) -> None:
        self._generation = generation
        self._bounds = bounds
        self._addresses = addresses

    async def create(self, request: BaseRequest, exchange: Exchange) -> StreamResponse:
        return await self._generation.serve(request, exchange, self._read)

    def _read(self, body: bytes) -> Asked:
        return Asked(self._bounds.parse(body), self._answer)

    async def _answer(self, making: Making) -> StreamResponse:
        delivery = await making.delivered()
        media = [
            {
                "url": await self._addresses.of(making.request, making.job_id, image.png),
                "seed": image.seed,
                "nsfw": image.safety.nsfw,
                "safety": image.safety,
            }
            for image in delivery.images
        ]
        await delivery.settled
        response = json_answer({"images": media})
        response.headers.update(making.headers(delivery))
        return response
