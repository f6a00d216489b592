"""`POST /text-to-image`: the product."""

from functools import partial

from aiohttp.web import BaseRequest, StreamResponse

from gateway.api.addresses import Addresses
from gateway.api.answers import json_answer
from gateway.api.bounds import Bounds
from gateway.api.exchange import Exchange
from gateway.api.finishing import Finisher
from gateway.api.generation import Asked, Generation, Making
from gateway.api.output import Output, metadata_of, parse_output
from network.wire import headers


class TextToImage:
    """The endpoint; one per gateway."""

    def __init__(
        self, generation: Generation, bounds: Bounds, addresses: Addresses, finisher: Finisher
    ) -> None:
        self._generation = generation
        self._finisher = finisher
        self._bounds = bounds
        self._addresses = addresses

    async def create(self, request: BaseRequest, exchange: Exchange) -> StreamResponse:
        return await self._generation.serve(request, exchange, self._read)

    def _read(self, body: bytes) -> Asked:
        wanted = self._bounds.parse(body)
        output = parse_output(body)
        self._finisher.check(output)
        return Asked(wanted, partial(self._answer, output))

    async def _answer(self, output: Output, making: Making) -> StreamResponse:
        delivery = await making.delivered()
        media = []
        warnings = [delivery.warnings]
        for image in delivery.images:
            metadata = metadata_of(output, making.wanted, image.seed, making.exchange.request_id)
            file = await self._finisher.finish(image.png, output, metadata)
            warnings.append(file.warning)
            url = await self._addresses.of(making.request, making.job_id, file.data, file.kind)
            safety = image.safety
            media.append({"url": url, "seed": image.seed, "nsfw": safety.nsfw, "safety": safety})
        await delivery.settled
        response = json_answer({"images": media})
        response.headers.update(making.headers(delivery))
        if told := "; ".join(dict.fromkeys(filter(None, warnings))):
            response.headers[headers.WARNINGS] = told
        return response
