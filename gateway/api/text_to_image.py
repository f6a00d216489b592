"""`POST /text-to-image`: the product."""

from aiohttp.web import BaseRequest, StreamResponse

from gateway.api.addresses import Addresses, Direct
from gateway.api.answers import json_answer
from gateway.api.bounds import Bounds
from gateway.api.exchange import Exchange
from gateway.api.generation import Asked, Delivered, Generation, Making, Showing
from network.errors import Problem


class TextToImage:
    """The endpoint; one per gateway."""

    def __init__(self, generation: Generation, bounds: Bounds, addresses: Addresses) -> None:
        self._generation = generation
        self._bounds = bounds
        self._addresses = addresses

    async def create(self, request: BaseRequest, exchange: Exchange) -> StreamResponse:
        return await self._generation.serve(request, exchange, self.read)

    def read(self, body: bytes) -> Asked:
        """What a body asks for. Raises ProblemError."""
        return Asked(self._bounds.parse(body), self._answer, _tell, _same)

    async def _answer(self, making: Making) -> StreamResponse:
        delivery = await making.delivered()
        told = await _tell(delivery, Direct(self._addresses, making.request, making.job_id))
        await delivery.settled
        response = json_answer(told)
        response.headers.update(making.headers(delivery))
        return response


async def _tell(delivered: Delivered, showing: Showing) -> dict[str, object]:
    media = [
        {
            "url": await showing.url(image.png),
            "seed": image.seed,
            "nsfw": image.safety.nsfw,
            "safety": image.safety,
        }
        for image in delivered.images
    ]
    return {"images": media}


def _same(problem: Problem) -> Problem:
    return problem
