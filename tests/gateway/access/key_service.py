"""An operator's service that knows keys, on a real socket: it answers well, or badly in one exact way."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import orjson
from aiohttp import web

Behaviour = Literal[
    "answer", "hang", "huge", "drip", "drop", "redirect", "compressed", "not_json", "crash"
]
SECRET = "s3-of-the-gateway"


@dataclass
class KeyService:
    #: What is said of each bearer, and of all others.
    knows: dict[str, dict[str, Any]] = field(default_factory=dict)
    default: dict[str, Any] = field(
        default_factory=lambda: {"status": 401, "reason": "nobody has this key"}
    )
    behaviour: Behaviour = "answer"
    #: Answers wait for this.
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    asked: list[str] = field(default_factory=list)
    questions: list[dict[str, Any]] = field(default_factory=list)
    #: What the asker showed of itself.
    shown: list[str] = field(default_factory=list)
    followed: int = 0
    #: So many connections are closed in place of an answer.
    drops: int = 0
    url: str = ""

    def __post_init__(self) -> None:
        self.gate.set()

    async def authorize(self, request: web.Request) -> web.StreamResponse:
        question = orjson.loads(await request.read())
        self.questions.append(question)
        self.shown.append(request.headers.get("Authorization", ""))
        bearer = question["headers"]["Authorization"][0].removeprefix("Bearer ")
        self.asked.append(bearer)
        await self.gate.wait()
        if self.drops:
            self.drops -= 1
            return await self._drop(request)
        if self.behaviour != "answer":
            return await self._misbehave(request)
        return web.json_response(self.knows.get(bearer, self.default))

    async def _misbehave(self, request: web.Request) -> web.StreamResponse:
        yes = web.json_response({"auth_id": "alice"})
        match self.behaviour:
            case "hang":
                await asyncio.sleep(60)
            case "huge":
                return web.Response(body=b'{"auth_id": "' + b"a" * 200_000 + b'"}')
            case "drip":
                return await _drip(request)
            case "drop":
                return await self._drop(request)
            case "redirect":
                raise web.HTTPFound("/elsewhere")
            case "compressed":
                yes.enable_compression(web.ContentCoding.gzip)
            case "not_json":
                return web.Response(text="<html>yes</html>")
            case "crash":
                return web.Response(status=500, text="no")
            case _:
                pass
        return yes

    async def _drop(self, request: web.Request) -> web.StreamResponse:
        if request.transport is not None:
            request.transport.abort()
        return web.Response()

    async def elsewhere(self, request: web.Request) -> web.Response:
        del request
        self.followed += 1
        return web.json_response({"auth_id": "alice"})


async def _drip(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    while True:
        await response.write(b" ")
        await asyncio.sleep(0.02)


@asynccontextmanager
async def serving_keys(service: KeyService, port: int = 0) -> AsyncIterator[KeyService]:
    app = web.Application()
    app.router.add_post("/authorize", service.authorize)
    app.router.add_route("*", "/elsewhere", service.elsewhere)
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    service.url = f"http://127.0.0.1:{runner.addresses[0][1]}/authorize"
    try:
        yield service
    finally:
        service.gate.set()
        await runner.cleanup()
