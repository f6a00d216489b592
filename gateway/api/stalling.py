"""Readers who take nothing of what they asked for: nothing is held for them for ever."""

import asyncio
from collections.abc import Awaitable

from aiohttp.web import BaseRequest


async def taken(request: BaseRequest, writing: Awaitable[None], seconds: float) -> None:
    """Return when it is written; the connection of whoever does not take it in time is dropped.

    Raises ConnectionError for a reader who is gone or takes nothing.
    """
    try:
        async with asyncio.timeout(seconds):
            await writing
    except TimeoutError:
        if request.transport is not None:
            request.transport.abort()
        raise ConnectionResetError(f"the reader took nothing for {seconds:g} s") from None
