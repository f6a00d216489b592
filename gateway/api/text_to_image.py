"""`POST /text-to-image`: the product."""

from functools import partial

from aiohttp.web import BaseRequest, StreamResponse

from gateway.api.addresses import Addresses, Direct
from gateway.api.answers import json_answer
from gateway.api.bounds import Bounds
from gateway.api.exchange import Exchange
from gateway.api.finishing import Finisher
from gateway.api.generation import Asked, Delivered, Generation, Making, Showing
from gateway.api.output import Output, metadata_of, parse_output
from network.errors import Problem
from network.wire import headers
from network.wire.messages import TextToImageRequest


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
        return await self._generation.serve(request, exchange, self.read)

    def read(self, body: bytes) -> Asked:
        """What a body asks for. Raises ProblemError."""
        wanted = self._bounds.parse(body)
        output = parse_output(body)
        self._finisher.check(output)
        tell = partial(self._tell, output, wanted)
        return Asked(wanted, partial(self._answer, output), tell, _same)

    async def _answer(self, output: Output, making: Making) -> StreamResponse:
        delivery = await making.delivered()
        warnings = [delivery.warnings]
        showing = Direct(self._addresses, making.request, making.job_id)
        told = await self._tell(output, making.wanted, delivery, showing, warnings)
        response = json_answer(told)
        await delivery.settled
        response.headers.update(making.headers(delivery))
        if said := "; ".join(dict.fromkeys(filter(None, warnings))):
            response.headers[headers.WARNINGS] = said
        return response

    async def _tell(
        self,
        output: Output,
        wanted: TextToImageRequest,
        delivered: Delivered,
        showing: Showing,
        warnings: list[str] | None = None,
    ) -> dict[str, object]:
        media = []
        for image in delivered.images:
            metadata = metadata_of(output, wanted, image.seed, showing.job_id)
            file = await self._finisher.finish(image.png, output, metadata)
            if warnings is not None:
                warnings.append(file.warning)
            told: dict[str, object] = {"url": await showing.url(file.data, file.kind)}
            safety = image.safety
            media.append(told | {"seed": image.seed, "nsfw": safety.nsfw, "safety": safety})
        return {"images": media}


def _same(problem: Problem) -> Problem:
    return problem
