"""Waiting for what happens on the other side of a socket or a thread."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path


async def until(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    """Return as soon as `condition` holds; TimeoutError after `seconds`."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - what is waited for knows no events
            await asyncio.sleep(0.005)


async def until_async(condition: Callable[[], Awaitable[bool]], seconds: float = 10.0) -> None:
    """The same for a condition that has to be asked for."""
    async with asyncio.timeout(seconds):
        while not await condition():  # noqa: ASYNC110 - and neither does this
            await asyncio.sleep(0.05)


def pngs(folder: Path) -> list[Path]:
    """Every PNG file below `folder`."""
    return sorted(folder.rglob("*.png"))
