"""Request bodies, read whole within bounds."""

import asyncio

from aiohttp import web

from node.apps.refusal import Refusal


async def read_body(request: web.Request, *, max_bytes: int, seconds: float) -> bytes:
    """Read a body of at most `max_bytes`, which has to arrive within `seconds`. Raises Refusal."""
    too_large = Refusal(
        413,
        f"text-to-image returned 400: the body is larger than {max_bytes} bytes",
        "body_too_large",
        message=f"the body is larger than {max_bytes} bytes",
    )
    if (request.content_length or 0) > max_bytes:
        raise too_large
    try:
        async with asyncio.timeout(seconds):
            return await request.read()
    except web.HTTPRequestEntityTooLarge:
        raise too_large from None
    except TimeoutError:
        raise Refusal(408, "the body did not arrive in time", "slow_body") from None
    except web.RequestPayloadError as error:
        raise Refusal(400, f"cannot read the body: {error}", "bad_body") from None
