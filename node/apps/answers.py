"""Images as answers: the network's JSON, our own gateway's parts, or the bare PNG."""

import asyncio
from collections.abc import Mapping
from typing import Any, Final

import orjson
import pybase64
from aiohttp import web

from network.units import format_price
from network.wire import image_parts
from network.wire.headers import FEE, GUIDANCE, JOB_ID, PRICE, SAFETY, SEED, STEPS, WARNINGS
from node.apps.images import Order
from node.engine.work import EncodedImage, ImageResult

#: Encoding more than this takes longer than a thread costs.
_INLINE_BYTES: Final = 512 * 1024
_DATA_URL: Final = "data:image/png;base64,"


async def json_answer(
    order: Order, result: ImageResult, headers: Mapping[str, str] | None = None
) -> web.Response:
    """`{"images": [{"url", "seed", "nsfw", "safety"}]}`, each image in its data URL."""
    if sum(len(image.png) for image in result.images) > _INLINE_BYTES:
        body = await asyncio.to_thread(_body, result)
    else:
        body = _body(result)
    told = {**(headers or {}), **_told(order, result)}
    return web.Response(body=body, content_type="application/json", headers=told)


def parts_answer(
    order: Order, result: ImageResult, headers: Mapping[str, str] | None = None
) -> web.Response:
    """The same without base64, for a gateway that takes it (`network.wire.image_parts`)."""
    body = image_parts.encode([(image.png, _facts(image)) for image in result.images])
    told = {**(headers or {}), **_told(order, result)}
    return web.Response(body=body, content_type=image_parts.CONTENT_TYPE, headers=told)


def png_answer(order: Order, result: ImageResult) -> web.Response:
    """The first image, for a client that asked for one; what JSON says of it is in headers."""
    image = result.images[0]
    told = {**_told(order, result), SEED: str(image.seed), SAFETY: image.safety.value}
    return web.Response(body=image.png, content_type="image/png", headers=told)


def _told(order: Order, result: ImageResult) -> dict[str, str]:
    headers = {
        JOB_ID: order.job.job_id,
        FEE: str(order.job.fee),
        PRICE: format_price(order.job.price),
        STEPS: str(order.work.steps),
        GUIDANCE: f"{order.work.guidance:g}",
    }
    warnings = (*order.warnings, *result.warnings)
    if warnings:
        headers[WARNINGS] = "; ".join(warnings)
    return headers


def _body(result: ImageResult) -> bytes:
    images = [
        {
            "url": _DATA_URL + pybase64.b64encode_as_string(image.png),
            **_facts(image),
        }
        for image in result.images
    ]
    return orjson.dumps({"images": images})


def _facts(image: EncodedImage) -> dict[str, Any]:
    return {"seed": image.seed, "nsfw": image.safety.nsfw, "safety": image.safety}
