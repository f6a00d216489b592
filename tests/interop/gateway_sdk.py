"""A program that uses Livepeer's Python SDK (livepeer-gateway) as it is, in an environment of its own.

Reads one JSON object a line and answers with one: what the SDK returned, or the error that it raised.
"""

import asyncio
import base64
import json
import struct
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import livepeer_gateway
from livepeer_gateway import (
    CapabilityId,
    build_capabilities,
    call_runner,
    reserve_session,
    runner_selector,
)


async def main() -> None:
    for line in sys.stdin:
        asked = json.loads(line)
        operation = OPERATIONS[asked.pop("operation")]
        try:
            told = await operation(**asked)
        except Exception as error:  # noqa: BLE001  the tests compare what is raised
            told = {
                "error": type(error).__name__,
                "message": str(error),
                "status": getattr(error, "status_code", None),
            }
        print(json.dumps(told), flush=True)  # noqa: T201


async def select(**options: Any) -> dict[str, Any]:
    """Find runners and have the first that works do the call."""
    cursor = await runner_selector(**options)
    result = await cursor.next()
    return {
        **_told(result),
        "candidates": [runner.url for runner in cursor.candidates],
        "rejections": [rejection.reason for rejection in cursor.rejections],
        "price_info": result.runner.raw.get("price_info"),
    }


async def call(**options: Any) -> dict[str, Any]:
    """Call a runner whose address is known."""
    return _told(await call_runner(**options))


async def info(url: str, model: str, signer: str | None = None) -> dict[str, Any]:
    """Ask an orchestrator for its terms, over gRPC."""
    capabilities = build_capabilities(CapabilityId.TEXT_TO_IMAGE, model)
    found = await asyncio.to_thread(
        livepeer_gateway.get_orch_info, url, signer_url=signer, capabilities=capabilities
    )
    return {
        "transcoder": found.transcoder,
        "address": found.address.hex(),
        "price": [found.price_info.pricePerUnit, found.price_info.pixelsPerUnit],
        "recipient": found.ticket_params.recipient.hex(),
        "session": found.auth_token.session_id,
        "models": list(found.capabilities.constraints.PerCapability[27].models),
    }


async def data(**options: Any) -> dict[str, Any]:
    """Find a runner and return the JSON that it answers a call with."""
    cursor = await runner_selector(**options)
    result = await cursor.next()
    return {**result.data, "session": result.session_id}


async def session(paths: list[str], **options: Any) -> dict[str, Any]:
    """Reserve a session, call it at these paths, and give it back; what the app answered."""
    async with await reserve_session(**options) as reserved:
        calls = [await call_runner(f"{reserved.app_url}{path}", timeout=60) for path in paths]
    return {"session": reserved.session_id, "answers": [one.data for one in calls]}


async def stream(**options: Any) -> dict[str, Any]:
    """Call a runner, and read its answer line by line as it comes."""
    async with await call_runner(stream=True, **options) as answer:
        return {"lines": [line async for line in answer.aiter_lines()]}


def _told(result: Any) -> dict[str, Any]:
    images = (result.data or {}).get("images", [])
    return {
        "runner_url": result.runner_url,
        "session": result.session_id,
        "content_type": result.content_type,
        "images": [{**image, "url": None, "size": _size(image["url"])} for image in images],
    }


def _size(url: str) -> list[int]:
    """Width and height of the PNG in a data URL."""
    kind, _, data = url.partition(",")
    png = base64.b64decode(data, validate=True)
    if kind != "data:image/png;base64" or not png.startswith(b"\x89PNG\r\n\x1a\n"):
        raise ValueError(kind)
    return list(struct.unpack(">II", png[16:24]))


OPERATIONS: dict[str, Callable[..., Awaitable[dict[str, Any]]]] = {
    "select": select,
    "call": call,
    "info": info,
    "data": data,
    "stream": stream,
    "session": session,
}

if __name__ == "__main__":
    asyncio.run(main())
