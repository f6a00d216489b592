"""A GPU app, less the GPU, that registers by Livepeer's Python SDK as it is, in an environment of its own.

Takes one JSON object, with what to tell `register_runner`, from its first argument; the app answers at
any path with the path and what it was sent, as JSON, as an image or as events. Says "ready" with its
id, and leaves when its input ends.
"""

import asyncio
import json
import logging
import sys
from typing import Any

from aiohttp import web
from livepeer_gateway import register_runner

#: What is sent back of the headers that came.
_TOLD = ("Livepeer-Runner-Route", "Livepeer-Session-Id", "Livepeer-Payment", "Authorization")


async def answer(request: web.Request) -> web.StreamResponse:
    if request.path.endswith("/image"):
        return web.Response(body=b"\x89PNG\r\n\x1a\n", content_type="image/png")
    if request.path.endswith("/events"):
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for number in range(3):
            await response.write(f"data: {number}\n\n".encode())
        return response
    body = await request.text()
    headers = {name: request.headers[name] for name in _TOLD if name in request.headers}
    return web.json_response({"path": request.path, "body": body, "headers": headers})


async def main() -> None:
    logging.basicConfig(stream=sys.stderr, level=logging.INFO)
    asked: dict[str, Any] = json.loads(sys.argv[1])
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    server = web.AppRunner(app, access_log=None)
    await server.setup()
    await web.TCPSite(server, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{server.addresses[0][1]}"
    registration = await register_runner(runner_url=url, auto_detect_gpu=False, **asked)
    print(json.dumps({"ready": registration.runner_id}), flush=True)  # noqa: T201
    await asyncio.to_thread(sys.stdin.read)
    await registration.close()
    await server.cleanup()


if __name__ == "__main__":
    asyncio.run(main())
