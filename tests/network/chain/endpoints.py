"""JSON-RPC endpoints on loopback that behave as badly as a test wants."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import orjson
from aiohttp import web

Answer = Callable[[list[Any]], Any]


class RpcRefusal(Exception):  # noqa: N818  it is an answer
    """Raised by an answer to make it a JSON-RPC error."""

    def __init__(self, message: str, code: int = -32000, data: object = None) -> None:
        super().__init__(message)
        self.error = {"code": code, "message": message, "data": data}


class FakeEndpoint:
    """Answers by method name, once `gate` is open; `status` and `body` spoil what it answers."""

    def __init__(self, chain_id: int = 7, block: int = 100) -> None:
        self.chain_id = chain_id
        self.block = block
        self.status = 200
        self.body: bytes | None = None
        self.gate = asyncio.Event()
        self.gate.set()
        self.asked: list[str] = []
        self.answers: dict[str, Answer] = {}
        self.port = 0
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        return f"http://user:verysecret@127.0.0.1:{self.port}/key-verysecret"

    async def start(self) -> None:
        """On the port it had before, if it had one."""
        app = web.Application()
        app.router.add_post("/key-verysecret", self._serve)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        self.gate.set()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _serve(self, request: web.Request) -> web.Response:
        asked = orjson.loads(await request.read())
        self.asked.append(asked["method"])
        await self.gate.wait()
        if self.body is not None or self.status != 200:
            return web.Response(body=self.body or b"", status=self.status)
        answer: dict[str, Any] = {"jsonrpc": "2.0", "id": asked["id"]}
        try:
            answer["result"] = self._answer(asked["method"], asked["params"])
        except RpcRefusal as refusal:
            answer["error"] = refusal.error
        return web.Response(body=orjson.dumps(answer), content_type="application/json")

    def _answer(self, method: str, params: list[Any]) -> Any:
        if method in self.answers:
            return self.answers[method](params)
        if method == "eth_chainId":
            return hex(self.chain_id)
        if method == "eth_getBlockByNumber":
            return {"number": hex(self.block), "hash": "0x" + "11" * 32, "baseFeePerGas": "0x5"}
        if method == "eth_blockNumber":
            return hex(self.block)
        raise RpcRefusal(f"the method {method} does not exist", -32601)


@asynccontextmanager
async def endpoints(*made: FakeEndpoint) -> AsyncIterator[tuple[FakeEndpoint, ...]]:
    try:
        for endpoint in made:
            await endpoint.start()
        yield made
    finally:
        for endpoint in made:
            await endpoint.stop()
