"""How the integration tests ask a gateway: one call, the whole answer."""

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import orjson

from scripts.local_network.network import Gateway

#: Quick on a CPU; each test overrides what it is about.
QUICK: dict[str, Any] = {
    "prompt": "a red circle on a white background",
    "width": 128,
    "height": 128,
    "num_inference_steps": 2,
}
#: Takes many seconds on a CPU, with a denoise step every few dozen milliseconds.
LONG: dict[str, Any] = QUICK | {"width": 1024, "height": 1024, "num_inference_steps": 100}


@dataclass(frozen=True, slots=True)
class Answer:
    """What a client got; `body` is parsed JSON."""

    status: int
    headers: Mapping[str, str]
    body: Any

    @property
    def message(self) -> str:
        return str(self.body["error"]["message"])

    @property
    def code(self) -> str:
        return str(self.body["error"]["code"])


@asynccontextmanager
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    """A session that opens as many connections as are asked for."""
    connector = aiohttp.TCPConnector(limit=0, ssl=False)
    async with aiohttp.ClientSession(connector=connector) as opened:
        yield opened


async def ask(
    http: aiohttp.ClientSession,
    gateway: Gateway,
    fields: Mapping[str, Any] = QUICK,
    *,
    request_id: str | None = None,
) -> Answer:
    """POST one request with the gateway's own key."""
    return await post(
        http,
        f"{gateway.url}/text-to-image",
        json.dumps(dict(fields)).encode(),
        {
            "Authorization": f"Bearer {gateway.key}",
            "Content-Type": "application/json",
            "X-Request-Id": request_id or uuid.uuid4().hex,
        },
    )


async def post(
    http: aiohttp.ClientSession, url: str, body: bytes, headers: Mapping[str, str]
) -> Answer:
    timeout = aiohttp.ClientTimeout(total=100)
    async with http.post(url, data=body, headers=headers, timeout=timeout) as answer:
        content = await answer.read()
        parsed = orjson.loads(content) if answer.content_type == "application/json" else content
        return Answer(answer.status, answer.headers, parsed)


async def images(http: aiohttp.ClientSession, answer: Answer) -> list[tuple[int, bytes]]:
    """Seed and PNG of every image of an answer."""
    assert answer.status == 200, answer.body
    found = []
    for media in answer.body["images"]:
        async with http.get(media["url"]) as fetched:
            assert fetched.status == 200
            found.append((media["seed"], await fetched.read()))
    return found


async def progress(
    http: aiohttp.ClientSession, gateway: Gateway, request_id: str
) -> dict[str, Any] | None:
    """What `GET /jobs/{id}` says; None when no such request is under way."""
    headers = {"Authorization": f"Bearer {gateway.key}"}
    async with http.get(f"{gateway.url}/jobs/{request_id}", headers=headers) as answer:
        if answer.status != 200:
            return None
        said: dict[str, Any] = await answer.json()
        return said


async def until_stepping(
    http: aiohttp.ClientSession, gateway: Gateway, request_id: str, seconds: float = 30
) -> None:
    """Return once a request's first denoise step is done."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        said = await progress(http, gateway, request_id)
        if said is not None and said["done_steps"] > 0:
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"no step within {seconds:.0f} s")
