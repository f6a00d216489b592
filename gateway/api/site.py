"""The public resources, put together."""

import orjson
from aiohttp.web import BaseRequest, StreamResponse

from gateway.api import images, jobs
from gateway.api.answers import json_bytes
from gateway.api.exchange import Exchange, Handler
from gateway.api.models import MODELS_PREFIX, Models
from gateway.api.openai import OpenAiImages
from gateway.api.openapi import Document
from gateway.api.quotes import Quotes
from gateway.api.router import Route, Router
from gateway.api.text_to_image import TextToImage


def public_router(
    *,
    text_to_image: TextToImage,
    openai_images: OpenAiImages,
    models: Models,
    quotes: Quotes,
    running_jobs: jobs.Jobs,
    stored_images: images.Images,
    contract: Document,
    version: str,
) -> Router:
    """Everything a client may ask; the slash twin is Livepeer's."""
    generate = Route("text-to-image", {"POST": text_to_image.create})
    health = _fixed(orjson.dumps({"status": "OK", "version": version}))
    return Router(
        {
            "/text-to-image": generate,
            "/text-to-image/": generate,
            "/v1/images/generations": Route("openai-images", {"POST": openai_images.create}),
            "/quote": Route("quote", {"POST": quotes.create}),
            "/v1/models": Route("openai-models", {"GET": models.index}),
            "/health": Route("health", {"GET": health}),
            "/openapi.json": Route("openapi", {"GET": _fixed(orjson.dumps(contract))}),
        },
        {
            MODELS_PREFIX: Route("openai-models", {"GET": models.show}),
            jobs.PREFIX: Route("jobs", {"GET": running_jobs.show}),
            images.PREFIX: Route("stream", {"GET": stored_images.show}),
        },
    )


def _fixed(body: bytes) -> Handler:
    async def show(request: BaseRequest, exchange: Exchange) -> StreamResponse:
        del request, exchange
        return json_bytes(body)

    return show
