"""Whoever lists orchestrators over HTTP: it answers as it is told to."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Literal

import orjson
from aiohttp import web

Answer = Literal["list", "hang", "endless", "redirect"]


@dataclass
class ListingServer:
    """`body` is what it lists; `status` and `answer` are how."""

    uris: list[str] = field(default_factory=list)
    body: bytes | None = None
    status: int = 200
    answer: Answer = "list"
    url: str = ""
    #: Path with query, and the authorization, of each question.
    asked: list[tuple[str, str]] = field(default_factory=list)
    _release: asyncio.Event = field(default_factory=asyncio.Event)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.asked.append((request.path_qs, request.headers.get("Authorization", "")))
        if self.answer == "hang":
            await self._release.wait()
        if self.answer == "redirect":
            raise web.HTTPFound(f"{self.url}/elsewhere")
        if self.answer == "endless":
            response = web.StreamResponse()
            await response.prepare(request)
            while not self._release.is_set():
                await response.write(b" " * 65_536)
            return response
        body = self.body
        if body is None:
            body = orjson.dumps([{"address": uri, "score": 1.0} for uri in self.uris])
        return web.Response(body=body, status=self.status, content_type="application/json")

    def release(self) -> None:
        self._release.set()


@asynccontextmanager
async def listing(*uris: str) -> AsyncIterator[ListingServer]:
    server = ListingServer(list(uris))
    application = web.Application()
    application.router.add_get("/{path:.*}", server.handle)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield server
    finally:
        server.release()
        await runner.cleanup()
