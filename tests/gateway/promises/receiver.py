"""A webhook receiver on a real socket that checks signatures as Standard Webhooks says."""

import asyncio
import base64
import hashlib
import hmac
import json
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web


@dataclass(frozen=True)
class Told:
    """One message that arrived."""

    message_id: str
    body: dict[str, Any]
    is_signed: bool
    path: str


@dataclass
class Receiver:
    #: `whsec_...`, as `limner-gateway keys webhook-secret` shows it.
    secret: str = ""
    #: Statuses of the next answers; 204 when it is empty.
    script: deque[int] = field(default_factory=deque)
    told: list[Told] = field(default_factory=list)
    url: str = ""
    #: Nothing is answered before it is set.
    gate: asyncio.Event | None = None
    waiting: int = 0

    async def _take(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        head = request.headers
        content = b"%b.%b.%b" % (
            head["webhook-id"].encode(),
            head["webhook-timestamp"].encode(),
            body,
        )
        key = base64.b64decode(self.secret.removeprefix("whsec_"))
        digest = hmac.new(key, content, hashlib.sha256).digest()
        signature = "v1," + base64.b64encode(digest).decode()
        is_signed = head["webhook-signature"] == signature
        if self.gate is not None:
            self.waiting += 1
            await self.gate.wait()
        self.told.append(Told(head["webhook-id"], json.loads(body), is_signed, request.path))
        status = self.script.popleft() if self.script else 204
        if status == 0:  # an answer without end
            response = web.StreamResponse()
            await response.prepare(request)
            while True:
                await response.write(b"x" * 65536)
                await asyncio.sleep(0.01)
        headers = {"Location": self.url + "/elsewhere"} if status in {302, 307} else None
        return web.Response(status=status, headers=headers)


@asynccontextmanager
async def receiving(secret: str) -> AsyncIterator[Receiver]:
    """Serve until the block is left."""
    receiver = Receiver(secret)
    app = web.Application()
    app.router.add_post("/{path:.*}", receiver._take)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.01)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    receiver.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield receiver
    finally:
        await runner.cleanup()
