"""The public resources, put together."""

from typing import Final

import orjson
from aiohttp.web import BaseRequest, StreamResponse

from gateway.api import images, jobs
from gateway.api.answers import json_bytes
from gateway.api.exchange import Exchange, Handler
from gateway.api.models import MODELS_PREFIX, Models
from gateway.api.openai import OpenAiImages
from gateway.api.openapi import Document
from gateway.api.own_key import PATH as KEY_PATH
from gateway.api.own_key import OwnKey
from gateway.api.page import Page
from gateway.api.page.files import PREFIX as PAGE_PREFIX
from gateway.api.quotes import Quotes
from gateway.api.router import Route, Router
from gateway.api.text_to_image import TextToImage

#: Names of the routes that make images: in logs, in metrics, and in promises on disk.
TEXT_TO_IMAGE: Final = "text-to-image"
OPENAI_IMAGES: Final = "openai-images"


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
    own_key: OwnKey | None = None,
    page: Page | None = None,
) -> Router:
    """Everything a client may ask; the slash twin is Livepeer's."""
    exact, prefixed = _people(own_key, page)
    generate = Route(TEXT_TO_IMAGE, {"POST": text_to_image.create})
    health = _fixed(orjson.dumps({"status": "OK", "version": version}))
    return Router(
        {
            "/text-to-image": generate,
            "/text-to-image/": generate,
            "/v1/images/generations": Route(OPENAI_IMAGES, {"POST": openai_images.create}),
            "/quote": Route("quote", {"POST": quotes.create}),
            "/v1/models": Route("openai-models", {"GET": models.index}),
            "/health": Route("health", {"GET": health}),
            "/openapi.json": Route("openapi", {"GET": _fixed(orjson.dumps(contract))}),
            **exact,
        },
        {
            MODELS_PREFIX: Route("openai-models", {"GET": models.show}),
            jobs.PREFIX: Route("jobs", {"GET": running_jobs.show, "DELETE": running_jobs.stop}),
            jobs.EVENTS: Route("jobs", {"GET": running_jobs.stream}),
            images.PREFIX: Route("stream", {"GET": stored_images.show}),
            **prefixed,
        },
    )


def _people(
    own_key: OwnKey | None, page: Page | None
) -> tuple[dict[str, Route], dict[str, Route]]:
    """What is for people rather than programs: exact paths, and prefixes."""
    exact = {} if own_key is None else {KEY_PATH: Route("key", {"GET": own_key.show})}
    if page is None:
        return exact, {}
    exact["/"] = Route("page", {"GET": page.index})
    return exact, {PAGE_PREFIX: Route("page", {"GET": page.show})}


def _fixed(body: bytes) -> Handler:
    async def show(request: BaseRequest, exchange: Exchange) -> StreamResponse:
        del request, exchange
        return json_bytes(body)

    return show
