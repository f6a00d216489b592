"""OpenAI's interface: `POST /v1/images/generations`."""

from collections.abc import Iterable
from contextlib import aclosing, suppress
from functools import partial
from typing import Any

from aiohttp.web import BaseRequest, StreamResponse
from pybase64 import b64encode_as_string

from gateway.api.addresses import Addresses, Direct
from gateway.api.answers import json_answer
from gateway.api.bounds import Bounds
from gateway.api.events import EventStream, event
from gateway.api.exchange import SERVER_TIMING, Exchange
from gateway.api.finishing import Finisher, ImageFile
from gateway.api.generation import (
    Asked,
    Delivered,
    Delivery,
    Generation,
    Making,
    Picture,
    Showing,
)
from gateway.api.openai_body import (
    IMAGE_EVENT,
    PARTIAL_EVENT,
    OpenAiRequest,
    parse_openai,
    renamed,
)
from gateway.api.output import Format, metadata_of
from gateway.orchestrators.job_events import Preview
from network.errors import ProblemError
from network.runtime.clock import Clock
from network.runtime.supervisor import supervise
from network.runtime.trace import TRACEPARENT
from network.wire import headers


class OpenAiImages:
    """The endpoint; one per gateway."""

    def __init__(
        self,
        generation: Generation,
        bounds: Bounds,
        addresses: Addresses,
        finisher: Finisher,
        clock: Clock,
    ) -> None:
        self._generation = generation
        self._finisher = finisher
        self._bounds = bounds
        self._addresses = addresses
        self._clock = clock

    async def create(self, request: BaseRequest, exchange: Exchange) -> StreamResponse:
        """Raises ProblemError in the names of OpenAI's fields."""
        try:
            return await self._generation.serve(request, exchange, self.read)
        except ProblemError as error:
            raise ProblemError(renamed(error.problem)) from None

    def read(self, body: bytes) -> Asked:
        """What a body asks for. Raises ProblemError."""
        asked = parse_openai(body, self._bounds)
        self._finisher.check(asked.output)
        answer = self._stream if asked.stream else self._answer
        tell = None if asked.stream else partial(self._tell, asked)
        return Asked(asked.wanted, partial(answer, asked), tell, renamed, asked.warnings)

    async def _answer(self, asked: OpenAiRequest, making: Making) -> StreamResponse:
        delivery = await making.delivered()
        showing = Direct(self._addresses, making.request, making.job_id)
        files = await self._files(asked, delivery, showing.job_id)
        told = await self._told(asked, delivery, showing, files)
        response = json_answer(told)
        await delivery.settled
        response.headers.update(making.headers(delivery))
        if warnings := _warnings(delivery, asked, files):
            response.headers[headers.WARNINGS] = warnings
        return response

    async def _files(
        self, asked: OpenAiRequest, delivered: Delivered, job_id: str
    ) -> list[ImageFile]:
        files = []
        for image in delivered.images:
            metadata = metadata_of(asked.output, asked.wanted, image.seed, job_id)
            files.append(await self._finisher.finish(image.png, asked.output, metadata))
        return files

    async def _tell(
        self, asked: OpenAiRequest, delivered: Delivered, showing: Showing
    ) -> dict[str, object]:
        files = await self._files(asked, delivered, showing.job_id)
        return await self._told(asked, delivered, showing, files)

    async def _told(
        self,
        asked: OpenAiRequest,
        delivered: Delivered,
        showing: Showing,
        files: list[ImageFile],
    ) -> dict[str, object]:
        data = [
            await _datum(showing, asked, image, file)
            for image, file in zip(delivered.images, files, strict=True)
        ]
        return {"created": self._now(), "data": data, **_about(asked, files[0].format)}

    async def _stream(self, asked: OpenAiRequest, making: Making) -> StreamResponse:
        """Refused before anything was shown, it has a status of its own; later, an event."""
        exchange = making.exchange
        named = {
            "X-Request-Id": exchange.request_id,
            TRACEPARENT: exchange.trail.trace.header,
            SERVER_TIMING: exchange.timing(),
            **exchange.rate_headers(),
        }
        stream = EventStream(making.request, named)
        try:
            async with supervise(self._clock) as supervisor:
                if asked.partial_images:
                    supervisor.start(
                        "previews", partial(self._show_previews, asked, making, stream)
                    )
                delivery = await making.delivered()
            await delivery.settled
        except ProblemError as error:
            if not stream.is_open:
                raise
            problem = renamed(error.problem)
            making.exchange.code = problem.code
            told = {"message": problem.message, "type": problem.type, "code": problem.code}
            await stream.send(event("error", {"type": "error", "error": told}))
            return await stream.end()
        stream.tell(making.headers(delivery))
        files = await self._files(asked, delivery, making.job_id)
        for image, file in zip(delivery.images, files, strict=True):
            sent = self._image_event(
                asked, IMAGE_EVENT, file.data, output_format=file.format, seed=image.seed
            )
            await stream.send(sent)
        return await stream.end()

    async def _show_previews(
        self, asked: OpenAiRequest, making: Making, stream: EventStream
    ) -> None:
        """So many of each image, spread over its steps; those that would be of the end are not sent."""
        steps = asked.wanted.num_inference_steps
        shown: dict[int, int] = {}
        # Previews are a courtesy: whoever is gone, or watches too often, gets none.
        with suppress(ConnectionError, ProblemError):
            async with aclosing(making.news()) as news:
                async for one in news:
                    if not isinstance(one, Preview):
                        continue
                    count = shown.get(one.image, 0)
                    due = (count + 1) * steps / (asked.partial_images + 1)
                    if count < asked.partial_images and one.step >= due:
                        shown[one.image] = count + 1
                        await stream.send(self._partial_event(asked, one, count))

    def _partial_event(self, asked: OpenAiRequest, preview: Preview, index: int) -> bytes:
        return self._image_event(
            asked,
            PARTIAL_EVENT,
            preview.jpeg,
            partial_image_index=index,
            output_format="jpeg",
        )

    def _image_event(self, asked: OpenAiRequest, name: str, image: bytes, **more: object) -> bytes:
        told: dict[str, Any] = {
            "type": name,
            "created_at": self._now(),
            "b64_json": b64encode_as_string(image),
            **_about(asked, asked.output.format),
            "background": "opaque",
            "quality": "auto",
            **more,
        }
        return event(name, told)

    def _now(self) -> int:
        return int(self._clock.now())


async def _datum(
    showing: Showing, asked: OpenAiRequest, image: Picture, file: ImageFile
) -> dict[str, object]:
    # Ours beside OpenAI's: what it takes to draw the same image again, and what was seen in it.
    told: dict[str, object] = {"seed": image.seed, "nsfw": image.safety.nsfw}
    if asked.inline:
        return {"b64_json": await showing.inline(file.data, file.kind), **told}
    return {"url": await showing.url(file.data, file.kind), **told}


def _about(asked: OpenAiRequest, form: Format) -> dict[str, object]:
    return {"output_format": form, "size": f"{asked.wanted.width}x{asked.wanted.height}"}


def _warnings(delivery: Delivery, asked: OpenAiRequest, files: Iterable[ImageFile]) -> str:
    said = (delivery.warnings, *asked.warnings, *(file.warning for file in files))
    return "; ".join(dict.fromkeys(filter(None, said)))
