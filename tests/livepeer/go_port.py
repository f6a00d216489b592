"""The one port of a scripted orchestrator: TLS, and ALPN tells gRPC from HTTP (wire, 1.2)."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp import web
from grpclib.server import Server
from typing_extensions import override

from node.api.listener import RawCodec
from tests.livepeer.certificate import fresh_context
from tests.livepeer.go_orchestrator import GoOrchestrator


@asynccontextmanager
async def serving(
    orchestrator: GoOrchestrator, folder: Path, port: int = 0
) -> AsyncIterator[GoOrchestrator]:
    """Serve on a loopback port until the block is left."""
    app = web.Application(client_max_size=2**24)
    app.router.add_route("*", "/text-to-image", orchestrator.job)
    app.router.add_get("/stream/{path:.+}", orchestrator.stream)
    runner = web.AppRunner(
        app,
        handler_cancellation=True,
        shutdown_timeout=0.01,
        max_field_size=2**20,
        max_line_size=2**20,
    )
    await runner.setup()
    assert runner.server is not None
    grpc = Server([orchestrator], codec=RawCodec())
    http = runner.server
    open_: set[asyncio.Transport] = set()

    class Port(asyncio.Protocol):
        @override
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            assert isinstance(transport, asyncio.Transport)
            open_.add(transport)
            tls: ssl.SSLObject = transport.get_extra_info("ssl_object")
            is_h2 = tls.selected_alpn_protocol() == "h2"
            inner: asyncio.Protocol = grpc._protocol_factory() if is_h2 else http()
            transport.set_protocol(inner)
            inner.connection_made(transport)

    context = fresh_context(folder, "127.0.0.1")
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Port, "127.0.0.1", port, ssl=context)
    orchestrator.uri = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield orchestrator
    finally:
        server.close()
        for transport in open_:
            transport.abort()
        await runner.cleanup()
