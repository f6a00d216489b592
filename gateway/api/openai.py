"""OpenAI's interface: `POST /v1/images/generations`."""

from collections.abc import Iterable
from contextlib import aclosing, suppress
from functools import partial
from typing import Any

from aiohttp.web import BaseRequest, StreamResponse
from pybase64 import b64encode_as_string

from gateway.api.addresses import Addresses
from gateway.api.answers import json_answer
from gateway.api.bounds import Bounds
from gateway.api.events import EventStream, event
from gateway.api.exchange import Exchange
from gateway.api.finishing import Finisher, ImageFile
from gateway.api.generation import Asked, Delivery, Generation, Making, Picture
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
            return await self._generation.serve(request, exchange, self._read)
        except ProblemError as error:
            raise ProblemError(renamed(error.problem)) from None

    def _read(self, body: bytes) -> Asked:
        asked = parse_openai(body, self._bounds)
        self._finisher.check(asked.output)
        answer = self._stream if asked.stream else self._answer
        return Asked(asked.wanted, partial(answer, asked))

    async def _answer(self, asked: OpenAiRequest, making: Making) -> StreamResponse:
        delivery = await making.delivered()
        files = await self._files(asked, making, delivery)
        data = [
            await self._datum(making, asked, image, file)
            for image, file in zip(delivery.images, files, strict=True)
        ]
        await delivery.settled
        response = json_answer(
            {"created": self._now(), "data": data, **_about(asked, files[0].format)}
        )
        response.headers.update(making.headers(delivery))
        if warnings := _warnings(delivery, asked, files):
            response.headers[headers.WARNINGS] = warnings
        return response

    async def _files(
        self, asked: OpenAiRequest, making: Making, delivery: Delivery
    ) -> list[ImageFile]:
        files = []
        for image in delivery.images:
            metadata = metadata_of(
                asked.output, asked.wanted, image.seed, making.exchange.request_id
            )
            files.append(await self._finisher.finish(image.png, asked.output, metadata))
        return files

    async def _datum(
        self, making: Making, asked: OpenAiRequest, image: Picture, file: ImageFile
    ) -> dict[str, object]:
        # Ours beside OpenAI's: what it takes to draw the same image again, and what was seen in it.
        told: dict[str, object] = {"seed": image.seed, "nsfw": image.safety.nsfw}
        if asked.inline:
            return {"b64_json": b64encode_as_string(file.data), **told}
        url = await self._addresses.of(making.request, making.job_id, file.data, file.kind)
        return {"url": url, **told}

    async def _stream(self, asked: OpenAiRequest, making: Making) -> StreamResponse:
        """Refused before anything was shown, it has a status of its own; later, an event."""
        stream = EventStream(making.request, {"X-Request-Id": making.exchange.request_id})
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
        files = await self._files(asked, making, delivery)
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


def _about(asked: OpenAiRequest, form: Format) -> dict[str, object]:
    return {"output_format": form, "size": f"{asked.wanted.width}x{asked.wanted.height}"}


def _warnings(delivery: Delivery, asked: OpenAiRequest, files: Iterable[ImageFile]) -> str:
    said = (delivery.warnings, *asked.warnings, *(file.warning for file in files))
    return "; ".join(dict.fromkeys(filter(None, said)))
